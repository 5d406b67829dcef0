"""The supervisor: one process per service, each on a port of its own, started, watched, restarted and ended in order.

`Supervisor` is what `holdfast run --processes` and `holdfast demo` run on. A child that dies is started again after a
delay that doubles while it keeps dying. Children end one after another, in the order in which services are given, so
that those that send commands drain while those that answer still run. Fails with `ConfigInvalid` if a child cannot
start at all; the child's own words are in its log.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.config import ServiceSettings, Settings, replace
from holdfast.errors import ConfigInvalid

logger = logging.getLogger("holdfast.processes")

CHILD = (sys.executable, "-m", "holdfast.host.child")
RESTART_SECONDS = 0.1
"""Delay before a dead child is started again. It doubles up to RESTART_SECONDS_MAX, and is short again after
STEADY_SECONDS."""
RESTART_SECONDS_MAX = 5.0
STEADY_SECONDS = 10.0
READY_SECONDS_MAX = 30.0
READY_POLL_SECONDS = 0.02
DRAIN_SECONDS_MAX = 10.0
"""How long a child may take to end before it is killed."""


class Child:
    """The process of one service at present."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self.watch: asyncio.Task[None] | None = None


class Supervisor:
    """Runs the services of a target, each in its own process.

    `folder` gets the stores (unless the settings name others than the default) and a log file per service. `ports` maps
    service names to ports; other services get free ones. `child` is the command that starts a child, instead of
    holdfast's own; it gets TARGET SERVICE PORT. `environ` is added to the children's environment. `state` is a file
    that always holds `{"services": {NAME: {"pid", "url"}}}` as JSON.
    """

    def __init__(
        self,
        target: str,
        services: Sequence[str],
        *,
        folder: Path,
        ports: Mapping[str, int] | None = None,
        settings: Settings | None = None,
        child: Sequence[str] = CHILD,
        environ: Mapping[str, str] | None = None,
        state: Path | None = None,
        log_files: bool = True,
    ) -> None:
        self.target, self.services, self.folder = target, tuple(services), folder
        self._settings = settings or Settings()
        self._command, self._environ, self._state, self._log_files = tuple(child), dict(environ or {}), state, log_files
        self._stopping = False
        taken = _ports(self._settings, self.services, ports or {})
        self._children = {name: Child(name, taken[name]) for name in self.services}

    @property
    def urls(self) -> dict[str, str]:
        """Service name -> URL; the same over restarts."""
        return {name: f"http://{_bracketed(self._host(name))}:{one.port}" for name, one in self._children.items()}

    @property
    def pids(self) -> dict[str, int]:
        """Service name -> present process id; services that are down are left out."""
        return {
            name: one.process.pid
            for name, one in self._children.items()
            if one.process is not None and one.process.returncode is None
        }

    @property
    def restarts(self) -> dict[str, int]:
        """Service name -> how often it was started again."""
        return {name: one.restarts for name, one in self._children.items()}

    async def start(self) -> None:
        """Start every child and wait until each says it is ready. Raises ConfigInvalid; then none is left running."""
        if self._log_files or self._settings.store == Settings().store:
            await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        try:
            for one in self._children.values():
                await self._spawn(one)
            await asyncio.gather(*(self._first_ready(one) for one in self._children.values()))
        except BaseException:
            await self.stop()
            raise
        for one in self._children.values():
            one.watch = asyncio.get_running_loop().create_task(self._keep(one))
        self._write_state()

    async def ready(self, name: str, *, seconds: float = READY_SECONDS_MAX) -> bool:
        """Wait until a child answers /readyz with 200; False if it does not in time."""
        end = time.monotonic() + seconds
        host, port = self._host(name), self._children[name].port
        while time.monotonic() < end:
            if await _answers_ready(host, port):
                return True
            await asyncio.sleep(READY_POLL_SECONDS)
        return False

    def kill(self, name: str, number: int = signal.SIGKILL) -> bool:
        """Send a signal to a child; False if it is down. It is started again unless the supervisor is stopping."""
        if name not in self.pids:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[name], number)
        return True

    async def stop(self) -> None:
        """End the children in order; each drains, and one that takes too long is killed. Safe to call twice."""
        self._stopping = True
        for one in self._children.values():
            if one.watch is not None:
                one.watch.cancel()
        for one in self._children.values():
            await self._end(one)
        if self._state is not None:
            self._state.unlink(missing_ok=True)

    def kill_all(self) -> None:
        """Kill every child that still runs, at once."""
        self._stopping = True
        for name in list(self.pids):
            self.kill(name)

    def _host(self, name: str) -> str:
        return self._settings.services.get(name, ServiceSettings()).host or self._settings.host

    def _child_environ(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
        own = self._settings
        store = own.store if own.store != Settings().store else f"sqlite:{self.folder}/"
        urls = self._settings.urls() | self.urls
        services = {
            peer: replace_url(own.services.get(peer, ServiceSettings()), url) for peer, url in sorted(urls.items())
        }
        made = replace(own, store=store, host=self._host(name), services=services)
        for field in Settings.__struct_fields__:
            value: Any = getattr(made, field)
            if field == "services":
                kept["HOLDFAST_SERVICES"] = msgspec.json.encode(value).decode()
            elif value != "":
                kept[f"HOLDFAST_{field.upper()}"] = str(value)
        kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        return kept | self._environ

    async def _spawn(self, one: Child) -> None:
        with contextlib.ExitStack() as files:
            log = None
            if self._log_files:
                log = files.enter_context((self.folder / f"{one.name}.log").open("ab"))
            one.process = await asyncio.create_subprocess_exec(
                *self._command,
                self.target,
                one.name,
                str(one.port),
                env=self._child_environ(one.name),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _first_ready(self, one: Child) -> None:
        process = one.process
        if process is None:
            return
        waiting = asyncio.ensure_future(self.ready(one.name))
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and waiting.result() and not ended.done():
                return
            raise ConfigInvalid(f"{one.name} did not start{self._last_words(one.name)}")
        finally:
            for task in (waiting, ended):
                task.cancel()
            await asyncio.gather(waiting, ended, return_exceptions=True)

    def _last_words(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        if not self._log_files or not path.exists():
            return "; its last lines are above"
        lines = path.read_text("utf-8", "replace").strip().splitlines()
        return f": {lines[-1]}" if lines else f"; its log {path} is empty"

    async def _keep(self, one: Child) -> None:
        """Start a child again whenever it ends."""
        delay = RESTART_SECONDS
        while not self._stopping:
            began = time.monotonic()
            code = await one.process.wait() if one.process is not None else -1
            if self._stopping:
                return
            if time.monotonic() - began > STEADY_SECONDS:
                delay = RESTART_SECONDS
            logger.warning("the process of %s ended with %s; it is started again in %.1f s", one.name, code, delay)
            self._write_state()
            await asyncio.sleep(delay)
            delay = min(delay * 2, RESTART_SECONDS_MAX)
            one.restarts += 1
            try:
                await self._spawn(one)
            except OSError as error:
                logger.error("the process of %s cannot be started: %s", one.name, error)
                one.process = None
            self._write_state()

    async def _end(self, one: Child) -> None:
        process = one.process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS_MAX):
                    await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _write_state(self) -> None:
        if self._state is None:
            return
        pids = self.pids
        services = {name: {"pid": pids.get(name), "url": url} for name, url in self.urls.items()}
        draft = self._state.with_name(self._state.name + ".new")
        draft.write_text(json.dumps({"pid": os.getpid(), "services": services}, indent=2) + "\n", "utf-8")
        draft.replace(self._state)


def replace_url(settings: ServiceSettings, url: str) -> ServiceSettings:
    """A service's settings with another URL."""
    return msgspec.structs.replace(settings, url=url)


def _ports(settings: Settings, services: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """A port for each service; all free ones are held before any is released, so that no two are the same."""
    taken: dict[str, int] = {}
    with contextlib.ExitStack() as sockets:
        for name in services:
            own = settings.services.get(name, ServiceSettings())
            port = given.get(name, 0) or own.port
            if not port:
                held = sockets.enter_context(socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET))
                held.bind((own.host or settings.host, 0))
                port = int(held.getsockname()[1])
            taken[name] = port
    return taken


def _bracketed(host: str) -> str:
    """The host as it is written in a URL; for one that listens on all addresses, loopback."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


async def _answers_ready(host: str, port: int) -> bool:
    address = _bracketed(host).strip("[]")
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
