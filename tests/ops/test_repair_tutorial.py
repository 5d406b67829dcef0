"""The tutorial of docs/repair.md, run as it stands: five ways to break the shop, and the repairs (G4, G5, G11)."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from support.http_services import free_ports
from support.pages import DOCS, ROOT, split, text_of

END = "--- end of what it says:"
COMMAND_SECONDS_MAX = 30


class Told(NamedTuple):
    """A command of the page, and lines that its output must hold, in order; `...` stands for anything."""

    command: str
    lines: list[str]


def told(text: str) -> list[Told]:
    """The commands of the page's console blocks."""
    found: list[Told] = []
    for block in split(text)[0]:
        if block.info[:1] != ["console"]:
            continue
        document = False
        for line in block.code.splitlines():
            if document:
                found[-1] = Told(f"{found[-1].command}\n{line}", [])
                document = line != "END"
            elif line.startswith("$ "):
                found.append(Told(line[2:], []))
                document = line.endswith("<<END")
            else:
                found[-1].lines.append(line)
    return found


class Shell:
    """One bash for the whole page, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "examples"), "COLUMNS": "200"}
        self._bash = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        self.folder = folder

    def run(self, command: str) -> tuple[str, int]:
        """What a command says, and its exit code."""
        pipe, out = self._bash.stdin, self._bash.stdout
        assert pipe is not None and out is not None
        pipe.write(f"{command}\necho; echo '{END}' $?\n")
        pipe.flush()
        lines: list[str] = []
        begin = time.monotonic()
        while not (line := out.readline()).startswith(END):
            assert line and time.monotonic() - begin < COMMAND_SECONDS_MAX, (command, "".join(lines))
            lines.append(line)
        return "".join(lines), int(line.removeprefix(END))

    def close(self) -> None:
        """End what the page has left running: its own processes, by the ids it wrote down."""
        for file in self.folder.glob("*.pid"):
            subprocess.run(["kill", file.read_text().strip()], check=False, capture_output=True)
        self._bash.terminate()
        self._bash.wait(10)
        for pipe in (self._bash.stdin, self._bash.stdout):
            if pipe is not None:
                pipe.close()


def holds(output: str, lines: list[str]) -> str:
    """The first of the lines that the output does not hold after the one before it; empty when it holds all."""
    at = 0
    for line in lines:
        pattern = ".*?".join(re.escape(part) for part in line.strip().split("..."))
        found = re.compile(pattern).search(output, at)
        if found is None:
            return line
        at = found.end()
    return ""


def test_the_tutorial_breaks_the_shop_and_repairs_it(tmp_path: Path) -> None:
    """Each command of the page ends well and says what the page shows; at the end the books of all four agree."""
    text = text_of(DOCS / "repair.md")
    ports = free_ports(4)
    for number, port in zip(range(8401, 8405), ports, strict=True):
        text = text.replace(str(number), str(port))
    commands = told(text)
    assert sum(len(one.lines) for one in commands) > 45 and text.count("\n## ") >= 6
    shell = Shell(tmp_path)
    try:
        for one in commands:
            output, code = shell.run(one.command)
            logs = "".join(file.read_text()[-2000:] for file in tmp_path.glob("*.log"))
            assert code == 0, f"$ {one.command}\n{output}\n{logs}"
            assert not (missing := holds(output, one.lines)), f"$ {one.command}\n{output}\nlacks: {missing}"
    finally:
        shell.close()
