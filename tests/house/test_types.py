"""The declared surface is checked by the type checker too: what cannot work at run time is red in the editor."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DECLARATIONS = """
from holdfast import Command, Contract, Event, Service, pivot, step, undo
from holdfast.client import Client

a = Contract("a")

@a.event
class Done(Event):
    id: str

@a.event
class Taken(Event):
    id: str

@a.command(key="id")
class Do(Command[Done]):
    id: str

@a.command(key="id")
class Take(Command[Taken]):
    id: str

service = Service(a)
"""

GOOD = (
    DECLARATIONS
    + """
class Fine:
    do: Do

    @step
    def one(self) -> Do:
        return Do("1")

    @undo(one)
    def back(self, done: Done) -> Take:
        return Take(done.id)

    @step(deadline_seconds=1)
    def many(self) -> list[Take]:
        return [Take("1")]

    @undo(many)
    def back_each(self, taken: Taken) -> Do | None:
        return Do(taken.id)

    @pivot
    def last(self, one: Done, many: list[Taken]) -> Do:
        return Do(one.id)

async def call(client: Client) -> str:
    done: Done = await client.run(Do("1"))
    return done.id
"""
)

BAD = (
    DECLARATIONS
    + """
class Wrong:
    do: Do

    @step
    def one(self) -> Do:
        return Do("1")

    @undo(one)
    def back(self, taken: Taken) -> Take:  # BAD: one is answered by Done
        return Take(taken.id)

    @step  # BAD: a step returns commands
    def text(self) -> str:
        return "no"

    @step(partial=1)  # BAD: partial is a bool
    def odd(self) -> Do:
        return Do("1")

async def call(client: Client) -> None:
    taken: Taken = await client.run(Do("1"))  # BAD: Do is answered by Done
    print(taken, Do(1))  # BAD: id is a str
    Do("1").id = "2"  # BAD: messages are immutable
"""
)


def errors_of(folder: Path, text: str) -> set[int]:
    """The lines pyright finds errors on, in strict mode."""
    (folder / "case.py").write_text("# pyright: strict\n" + text, "utf-8")
    (folder / "pyrightconfig.json").write_text(
        f'{{"extraPaths": ["{ROOT / "src"}"], "pythonVersion": "3.11", "include": ["case.py"]}}', "utf-8"
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "error" in found.stdout, found.stdout + found.stderr  # "0 errors" or some: it did run
    return {int(line) for line in re.findall(r"case\.py:(\d+):\d+ - error", found.stdout)}


def test_right_declarations_are_clean(tmp_path: Path) -> None:
    """Sagas, undos and client calls that fit each other have no type error under pyright strict."""
    assert errors_of(tmp_path, GOOD) == set()


def test_wrong_declarations_are_type_errors(tmp_path: Path) -> None:
    """A wrong undo event, a step that returns no command, a wrong answer type and a mutation are type errors."""
    expected = {number for number, line in enumerate(("\n" + BAD).splitlines(), 1) if "# BAD" in line}
    found = errors_of(tmp_path, BAD)
    near = {line for line in expected if {line, line - 1, line + 1} & found}
    assert near == expected, f"not found: {sorted(expected - near)}, found {sorted(found)}"
