"""Database servers for the tests: one of each engine for a whole run, and some that a test may hurt.

`shared` is the one that all tests of a run work on, whichever process they run in: who asks first starts it, and the
process that the run began in ends it. Each test takes a database of its own on it. `OwnServers` start a server for whom
it is to be killed or set up otherwise. Where an engine cannot be had the test is skipped, and the end of the run says
so; with CI set it fails.
"""

import fcntl
import os
import pickle
import shutil
import sys
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from holdfast.testing.servers import ENGINES, Missing, Server, kill_family

said: dict[str, str] = {}
"""Engine -> what served it, or why it is not there; printed at the end of the run."""
SETTINGS = {"postgres": {"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}}
"""By engine. A server that was killed syncs its folder before it starts: file by file that takes up to two seconds."""
_DATABASES = count(1)


class Run:
    """Where the processes of one run find each other's servers."""

    folder = Path("/nowhere")


def begin(folder: str = "") -> None:
    """Take part in the run whose folder this is; without one, begin a run."""
    Run.folder = Path(folder or tempfile.mkdtemp(prefix="holdfast-run-"))


def end() -> None:
    """End what `shared` has started. Called once for a run, when all its processes are through."""
    for note in Run.folder.glob("*.server"):
        pid, server = pickle.loads(note.read_bytes())
        kill_family(pid)
        server.stop()
    shutil.rmtree(Run.folder, ignore_errors=True)


def skip_or_fail(engine: str, why: str) -> None:
    """Skip what needs an engine that is not there; with CI set that is a failure."""
    said[engine] = f"not there: {why}"
    if os.environ.get("CI"):
        pytest.fail(f"{engine}: {why}", pytrace=False)
    pytest.skip(f"{engine}: {why}")


def started(engine: str) -> Server:
    """A server that runs, of whoever asks; skips where the engine cannot be had."""
    try:
        found = ENGINES[engine]()
    except Missing as error:
        skip_or_fail(engine, str(error))
    said[engine] = found.version
    found.settings |= SETTINGS.get(engine, {})
    found.start()
    return found


@cache
def shared(engine: str) -> Server:
    """The server of this run, not to be killed: what is returned knows where it is, and has no process of its own."""
    with (Run.folder / f"{engine}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = Run.folder / f"{engine}.server"
        if not note.exists():
            server = started(engine)
            assert server.process is not None
            pid, server.process.returncode = server.process.pid, 0  # nobody here waits for it: the run ends it
            server.process = None
            note.write_bytes(pickle.dumps((pid, server)))
        server = pickle.loads(note.read_bytes())[1]
    said[engine] = server.version
    return server


def database() -> str:
    """A database, or a schema, that no other test of this run uses."""
    return f"t{os.environ.get('PYTEST_XDIST_WORKER', '')}n{next(_DATABASES)}"


class OwnServers:
    """Servers that a test may kill, one of each engine; whoever kills one starts it again."""

    def __init__(self) -> None:
        self._found: dict[str, Server] = {}

    def of(self, engine: str) -> Server:
        """The one of this engine. Skips where it cannot be had."""
        if engine not in self._found:
            self._found[engine] = started(engine)
        return self._found[engine]

    def stop(self) -> None:
        """End them all."""
        for server in self._found.values():
            server.stop()
