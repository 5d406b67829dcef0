"""A service's own process, as the supervisor starts it: `python -m holdfast.host.child TARGET SERVICE PORT`.

Kept apart from the command line so that a child loads no more than it needs. Its settings come in HOLDFAST_*
variables, the secret too, so that a process list shows none of them. It ends when its standard input ends: a supervisor
that was killed leaves no orphans. Exit codes: 0 it ended in order, 1 it could not start.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from holdfast import logs
from holdfast.compose import make_running
from holdfast.config import Settings, load
from holdfast.errors import HoldfastError
from holdfast.host.server import host, run_loop
from holdfast.host.target import load_target
from holdfast.ports.store import Store
from holdfast.ports.transport import Network


def main(
    arguments: list[str] | None = None,
    *,
    wrap_store: Callable[[str, Store], Store] | None = None,
    wrap_transport: Callable[[str, Network], Network] | None = None,
) -> int:
    """Run one service until SIGTERM, SIGINT or the end of standard input; the exit code."""
    target, service, port = (sys.argv[1:] if arguments is None else arguments)[:3]
    try:
        settings = load(Path(os.devnull), os.environ)
        _log(settings, service)
        running = make_running(
            load_target(target),
            settings,
            services=(service,),
            wrap_store=wrap_store,
            wrap_transport=wrap_transport,
        )
        run_loop(_serve(host(running, host=settings.host, port=int(port))))
    except HoldfastError as error:
        print(f"{service}: {error}", file=sys.stderr)
        return 1
    return 0


def _log(settings: Settings, service: str) -> None:
    logs.configure(
        level=settings.log_level,
        form=settings.log_format,
        service=service,
        secrets=settings.passwords(),
    )


async def _serve(running: Coroutine[Any, Any, None]) -> None:
    """Serve; the end of standard input counts as SIGTERM."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            signal.raise_signal(signal.SIGTERM)

    loop.add_reader(0, ended)
    await running


if __name__ == "__main__":
    sys.exit(main())
