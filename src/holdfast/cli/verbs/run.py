"""`holdfast run`: serve a system, in this process or in one process per service.

Comes after configuration; `cli.serving` does the work, and is loaded once the options are understood. It fails before
it listens, in one sentence. The first SIGTERM or SIGINT drains the services and ends in order; a second one kills.
"""

from pathlib import Path
from typing import Literal

from holdfast.cli.options import AsJson, ConfigFile, Flag, settings_of
from holdfast.errors import ConfigInvalid


def run(
    target: str,
    *,
    processes: Flag = False,
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
        raise ConfigInvalid("--processes runs every service and --service only one: give one of the two")
    if state is not None and not processes:
        raise ConfigInvalid("--state is for --processes")
    from holdfast.cli.serving import serve_here, serve_processes

    if processes:
        return serve_processes(target, settings, state, as_json=as_json)
    return serve_here(target, settings, service, as_json=as_json)
