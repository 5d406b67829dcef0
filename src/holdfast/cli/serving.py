"""What `holdfast run` does once its options are understood: serve, print the URLs, and end in order.

Comes after `host.target`, which finds the system; `host.server` serves in this process, `host.supervisor` in one
process per service. Fails before it listens, with `ConfigInvalid`, `Misuse` or `StoreError`.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast import logs
from holdfast.compose import make_running
from holdfast.config import Settings
from holdfast.host.server import address_of, host, run_loop
from holdfast.host.supervisor import Supervisor
from holdfast.host.target import load_target, shutdown_order


def serve_here(target: str, settings: Settings, only: str, *, as_json: bool) -> int:
    """Serve a system, or one service of it, in this process until it is told to end; the exit code."""
    system = load_target(target)
    alone = only or (next(iter(system.services)) if len(system.services) == 1 else "")
    _log(settings, alone)
    address = address_of(settings, alone) if alone else (settings.host, settings.port)
    running = make_running(system, settings, services=(only,) if only else ())

    def ready(port: int) -> None:
        base = f"http://{address[0]}:{port}"
        _print_urls(
            {name: base if len(running.nodes) == 1 else f"{base}/{name}" for name in running.nodes}, as_json=as_json
        )

    run_loop(host(running, host=address[0], port=address[1], ready=ready))
    return 0


def serve_processes(target: str, settings: Settings, state: Path | None, *, as_json: bool) -> int:
    """Serve a system in a process for each service until it is told to end; the exit code."""
    system = load_target(target)
    _log(settings, next(iter(system.services)) if len(system.services) == 1 else "")
    return run_loop(_supervise(target, shutdown_order(system), settings, state, as_json=as_json))


def _log(settings: Settings, service: str) -> None:
    logs.configure(level=settings.log_level, form=settings.log_format, service=service, secrets=settings.passwords())


async def _supervise(
    target: str, services: Sequence[str], settings: Settings, state: Path | None, *, as_json: bool
) -> int:
    supervisor = Supervisor(target, services, folder=Path("data"), settings=settings, state=state, log_files=False)
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
