"""The wheel that users get: built, installed into an empty environment, and tried from an empty folder.

What runs there comes from the wheel alone: the README's first service, as the README has it, and a short demo. Needs an
index of packages and curl, so it is run by `make test-wheel` and left out of `make test`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.console import Shell, holds, told
from support.http_services import free_ports
from support.pages import ROOT, split, text_of

pytestmark = pytest.mark.wheel

INSTALL_SECONDS_MAX = 200
DEMO_SECONDS_MAX = 120
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "PYTHON", "VIRTUAL_ENV"))
}


def run(*command: str | Path, folder: Path, seconds: float) -> str:
    """What a command says on its output; fails the test with all that it says where it does not end well."""
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        pytest.fail(
            f"{command}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}", pytrace=False
        )
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the built wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, folder=folder, seconds=60)
    (wheel,) = folder.glob("holdfast-*.whl")
    run(sys.executable, "-m", "venv", folder / "env", folder=folder, seconds=60)
    install = ("-m", "pip", "--disable-pip-version-check", "install", f"{wheel}[all]", "-c", ROOT / "constraints.txt")
    run(folder / "env/bin/python", *install, folder=folder, seconds=INSTALL_SECONDS_MAX)
    return folder / "env/bin"


@pytest.fixture
def shell(programs: Path, tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder that finds the environment's programs first."""
    found = Shell(tmp_path, programs, ENVIRONMENT)
    yield found
    found.close()


def test_it_is_the_wheel_that_is_imported(programs: Path, tmp_path: Path) -> None:
    """holdfast and its examples come from the environment that the wheel was installed into, never from a checkout."""
    program = (
        "import holdfast; from holdfast.demo.run import examples_folder;"
        "print(holdfast.__file__); print(examples_folder())"
    )
    places = run(programs / "python", "-c", program, folder=tmp_path, seconds=60).splitlines()
    assert len(places) == 2
    assert all(Path(place).is_relative_to(programs.parent) for place in places), places


def test_the_first_service_runs_as_the_readme_says(shell: Shell) -> None:
    """The README's first service, saved in an empty folder, starts and answers what the page shows."""
    port = str(free_ports(1)[0])
    section = text_of(ROOT / "README.md").partition("## The first service")[2].partition("\n## ")[0]
    text = re.sub(r"\+\d+\.\d ms| \.\.\. ", "...", section.replace("8000", port))
    (code,) = [block.code for block in split(text)[0] if block.code.startswith("# file: examples/shop/first.py\n")]
    (shell.folder / "first.py").write_text(code)
    commands = [one for one in told(text) if one.command.startswith(("holdfast ", "curl "))]
    assert [one.command.split()[0] for one in commands] == ["holdfast", "curl", "curl", "holdfast"]
    served, *asked = commands
    shell.run(f"{served.command} --port {port} > served.log 2>&1 & echo $! > served.pid")
    _, code_of_wait = shell.run("for _ in $(seq 100); do grep -q http served.log && break; sleep 0.1; done")
    log = shell.folder / "served.log"
    assert code_of_wait == 0 and not (missing := holds(log.read_text(), served.lines)), (missing, log.read_text())
    for one in asked:
        output, ended = shell.run(one.command)
        assert ended == 0, f"$ {one.command}\n{output}\n{log.read_text()}"
        assert not (missing := holds(output, one.lines)), f"$ {one.command}\n{output}\nlacks: {missing}"


def test_the_demo_runs_from_the_wheel(programs: Path, tmp_path: Path) -> None:
    """G3, G4: a short demo, one process killed, with the examples that the wheel brings: it settles and adds up."""
    demo = (programs / "holdfast", "demo", "--json", "--seconds", "3", "--kills", "1", "--seed", "1")
    found = json.loads(run(*demo, folder=tmp_path, seconds=DEMO_SECONDS_MAX))
    assert found["violations"] == [] and found["completed"] > 0 and found["kills"] == 1
