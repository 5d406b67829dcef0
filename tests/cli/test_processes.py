"""Processes: children are started, watched, restarted, ended in order, and never left behind.

The child here is a small HTTP program that tells when it ended, so that what is tested is the supervisor alone.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast.config import Settings
from holdfast.errors import ConfigInvalid
from holdfast.host.supervisor import Supervisor

CHILD = """
import http.server, os, pathlib, signal, sys, threading, time
target, name, port = sys.argv[1:]
if target == "broken":
    sys.exit(f"{name}: the store is locked")
folder = pathlib.Path(target)
(folder / f"{name}.environ").write_text("\\n".join(f"{k}={v}" for k, v in os.environ.items()))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
def ended(*_):
    if (folder / "stubborn").exists():
        return
    with (folder / "ended").open("a") as out:
        out.write(name + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, ended)
def orphaned():
    while os.read(0, 100):
        pass
    with (folder / "orphaned").open("a") as out:
        out.write(name + "\\n")
    os._exit(0)
threading.Thread(target=orphaned, daemon=True).start()
http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    """The command that starts a child."""
    path = tmp_path / "child.py"
    path.write_text(CHILD, "utf-8")
    return (sys.executable, str(path))


@pytest.fixture
async def supervisor(tmp_path: Path, command: tuple[str, ...]) -> AsyncIterator[Supervisor]:
    """Two services, running."""
    settings = Settings(secret="a-secret-for-these-tests")
    made = Supervisor(
        str(tmp_path), ["b", "a"], folder=tmp_path / "data", child=command, settings=settings,
        state=tmp_path / "state.json", environ={"EXTRA": "yes"},
    )  # fmt: skip
    await made.start()
    yield made
    await made.stop()


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a file or a process gives no event to wait for
            await asyncio.sleep(0.02)


async def test_children_run_on_ports_of_their_own(supervisor: Supervisor, tmp_path: Path) -> None:
    """Each service has its process, URL and settings; the secret goes by the environment, never by the command line."""
    assert set(supervisor.pids) == set(supervisor.urls) == {"a", "b"} and len(set(supervisor.pids.values())) == 2
    assert await supervisor.ready("a", seconds=1)
    environ = dict(line.split("=", 1) for line in (tmp_path / "a.environ").read_text().splitlines() if "=" in line)
    assert environ["HOLDFAST_SECRET"] == "a-secret-for-these-tests" and environ["EXTRA"] == "yes"
    assert environ["HOLDFAST_STORE"] == f"sqlite:{tmp_path}/data/"
    assert json.loads(environ["HOLDFAST_SERVICES"])["b"]["url"] == supervisor.urls["b"]
    state = json.loads((tmp_path / "state.json").read_text())
    assert {name: found["pid"] for name, found in state["services"].items()} == supervisor.pids


async def test_a_killed_child_comes_back(supervisor: Supervisor, tmp_path: Path) -> None:
    """A child that was killed is started again on the same URL; its neighbour is left alone; the state file follows."""
    before, url = supervisor.pids, supervisor.urls["a"]
    assert supervisor.kill("a", signal.SIGKILL)
    await until(lambda: supervisor.pids.get("a", before["a"]) != before["a"])
    assert await supervisor.ready("a", seconds=10)
    assert (
        supervisor.pids["b"] == before["b"] and supervisor.urls["a"] == url and supervisor.restarts == {"a": 1, "b": 0}
    )
    await until(
        lambda: json.loads((tmp_path / "state.json").read_text())["services"]["a"]["pid"] == supervisor.pids["a"]
    )


async def test_children_end_in_order(supervisor: Supervisor, tmp_path: Path) -> None:
    """Stopping ends the children one after another in the order given, starts none again, and removes the state."""
    await supervisor.stop()
    await supervisor.stop()
    assert (tmp_path / "ended").read_text().split() == ["b", "a"]
    assert supervisor.pids == {} and supervisor.kill("a") is False
    assert not (tmp_path / "state.json").exists()


async def test_a_child_that_will_not_end_is_killed(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that ignores SIGTERM does not hold up the end for ever."""
    monkeypatch.setattr("holdfast.host.supervisor.DRAIN_SECONDS_MAX", 0.2)
    (tmp_path / "stubborn").touch()
    async with asyncio.timeout(5):
        await supervisor.stop()
    assert supervisor.pids == {}


async def test_a_child_that_cannot_start_is_said(tmp_path: Path, command: tuple[str, ...]) -> None:
    """When a service cannot start, none is left running and its own words are the reason."""
    made = Supervisor("broken", ["a", "b"], folder=tmp_path / "data", child=command)
    with pytest.raises(ConfigInvalid, match=r"did not start: [ab]: the store is locked"):
        await made.start()
    assert made.pids == {}


async def test_children_end_with_their_supervisor(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A supervisor that was killed leaves no orphans: the end of standard input tells its children."""
    program = (
        "import asyncio, sys; from pathlib import Path; from holdfast.host.supervisor import Supervisor\n"
        "async def main():\n"
        "    made = Supervisor(sys.argv[1], ['a'], folder=Path(sys.argv[1]), child=sys.argv[2:])\n"
        "    await made.start(); print('up', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), *command]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.kill()
    await process.wait()
    await until((tmp_path / "orphaned").exists)
