"""The console blocks of a page, run as they stand: one shell types the commands, and what it says is compared.

A page's command fails the test that runs it where it does not end in time; exit codes and lines are for the test to
judge. What a page leaves running is ended by the process ids that it wrote to `*.pid`.
"""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from support.pages import split

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
    """One bash for a whole page, in a folder of its own; `programs` is the folder that is looked in first."""

    def __init__(self, folder: Path, programs: Path, environment: dict[str, str]) -> None:
        path = f"{programs}{os.pathsep}{environment['PATH']}"
        environment = {**environment, "PATH": path, "COLUMNS": "200"}
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
