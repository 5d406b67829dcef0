"""`holdfast run`: serve a system, in this process or in one process per service.

Comes after configuration and targets; `host.server` or `host.supervisor` do the work. Fails before it listens, in one
sentence. The first SIGTERM or SIGINT drains and ends in order; a second one kills.
"""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from holdfast import logs
from holdfast.cli.options import AsJson, ConfigFile, settings_of
from holdfast.compose import make_running
from holdfast.config import Settings
from holdfast.core.system import System
from holdfast.errors import ConfigInvalid
from holdfast.host.server import address_of, host, run_loop
from holdfast.host.supervisor import Supervisor
from holdfast.host.target import load_target, shutdown_order


def run(
    target: str,
    *,
    processes: Annotated[bool, Parameter(negative="")] = False,
    service: str = "",
    host: str | None = None,
    port: int | None = None,
    store: str | None = None,
    state: Path | None = None,
    log_level: Literal["debug", "info", "warning", "error"] | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Run a system, or one service of it, until it is told to end (SIGTERM, Ctrl-C; twice: at once).

    For example:
    - `holdfast run shop.services:shop`: all services in one process, under /order, /stock, ...

    - `holdfast run shop.services:shop --processes`: one process per service, restarted when it dies

    - `holdfast run shop.services:shop --service stock`: only this one; peers by services.NAME.url

    Parameters
    ----------
    target
        MODULE:NAME of a System or a Service.
    processes
        One process per service, each on a port of its own.
    service
        Run this service of the system alone.
    host
        Address to listen on. Off loopback a secret is needed.
    port
        Port to listen on; 0 takes a free one.
    store
        Store URL: memory:, sqlite:FOLDER/ (a file per service), postgresql://... or mysql://...
    state
        With --processes: a file that holds process ids and URLs as JSON while it runs.
    log_level
        The least severe log lines that are written.
    """
    settings = settings_of(config, host=host, port=port, store=store, log_level=log_level)
    if processes and service:
        raise ConfigInvalid("--processes runs every service and --service one: give one of the two")
    if state is not None and not processes:
        raise ConfigInvalid("--state is for --processes")
    system = load_target(target)
    logs.configure(
        level=settings.log_level,
        form=settings.log_format,
        service=service or ("" if len(system.services) > 1 else next(iter(system.services))),
        secrets=settings.passwords(),
    )
    if processes:
        return run_loop(_run_processes(target, system, settings, state, as_json=as_json))
    only = service or (next(iter(system.services)) if len(system.services) == 1 else "")
    address = address_of(settings, only) if only else (settings.host, settings.port)
    _run_here(system, settings, service, address, as_json=as_json)
    return 0


def _run_here(system: System, settings: Settings, only: str, address: tuple[str, int], *, as_json: bool) -> None:
    running = make_running(system, settings, services=(only,) if only else ())

    def ready(port: int) -> None:
        base = f"http://{address[0]}:{port}"
        _print_urls(
            {name: base if len(running.nodes) == 1 else f"{base}/{name}" for name in running.nodes}, as_json=as_json
        )

    run_loop(host(running, host=address[0], port=address[1], ready=ready))


async def _run_processes(target: str, system: System, settings: Settings, state: Path | None, *, as_json: bool) -> int:
    supervisor = Supervisor(
        target, shutdown_order(system), folder=Path("data"), settings=settings, state=state, log_files=False
    )
    ended = asyncio.Event()

    def told() -> None:
        if ended.is_set():
            supervisor.kill_all()
        ended.set()

    loop = asyncio.get_running_loop()
    _on_signals(loop.add_signal_handler, told)
    starting = asyncio.ensure_future(supervisor.start())
    waiting = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        starting.result()
        _print_urls(supervisor.urls, as_json=as_json)
        await waiting
    finally:
        waiting.cancel()
        await supervisor.stop()
    return 0


def _on_signals(add: Callable[[int, Callable[[], None]], None], told: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        add(number, told)


def _print_urls(urls: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"urls": urls}), flush=True)
    else:
        width = max(map(len, urls))
        print("\n".join(f"{name:<{width}}  {url}" for name, url in sorted(urls.items())), flush=True)
