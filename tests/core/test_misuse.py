"""Declarations that cannot work are refused when they are made, in one sentence that says where and what to write."""

import sys
import textwrap
import types
from typing import Any

import pytest

from holdfast.errors import Misuse

PRELUDE = """
from __future__ import annotations
from collections.abc import Callable
from holdfast import *
c, other = Contract("c"), Contract("other")
s = Service(c)

@c.event
class Done(Event):
    id: str

@c.event
class Gone(Event):
    id: str

@c.command(key="id")
class Do(Command[Done]):
    id: str

@c.command(key="id")
class Undo(Command[Gone]):
    id: str

@c.command(key="id")
class Go(Command[Done]):
    id: str

@other.event
class Told(Event):
    id: str

@other.command(key="id")
class Tell(Command[Told]):
    id: str
"""
WRONG: dict[str, tuple[str, str]] = {
    "contract name": ('Contract("No Good")', "contract name 'No Good'"),
    "not an event": ("@c.event\nclass X(Command[Done]): id: str", "must inherit from holdfast.Event"),
    "not a command": ("@c.command\nclass X(Event): id: str", "must inherit from holdfast.Command"),
    "name taken": ('@c.event(name="done")\nclass X(Event): id: str', "the name 'done' already belongs to Done"),
    "bad name": ('@c.event(name="No")\nclass X(Event): id: str', "lower-case"),
    "no upcast": ("@c.event(version=3)\nclass X(Event): id: str", "needs upcasts for the versions [1, 2]"),
    "key unknown": ('@c.command(key="nr")\nclass X(Command[Done]): id: str', "names 'nr', which is not a field"),
    "no answer": ('@c.command(key="id")\nclass X(Command): id: str', "name the event that answers it"),
    "a list in a message": ("@c.event\nclass X(Event): ids: list[str]", "messages are immutable; use"),
    "a dict in a message": ("@c.event\nclass X(Event): ids: dict[str, int]", "messages are immutable; use"),
    "no default": ("""
        @s.aggregate
        class A:
            n: int
            @decide
            def do(self, command: Do) -> Done: ...
        """, "c.A.n: give the field a default"),
    "nothing decides": ("@s.aggregate\nclass A:\n    n: int = 0", "needs at least one @decide"),
    "async decider": ("""
        @s.aggregate
        class A:
            @decide
            async def do(self, command: Do) -> Done: ...
        """, "c.A.do: the method must be a plain def"),
    "no annotation": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command) -> Done: ...
        """, "parameter 'command' needs an annotation"),
    "unknown annotation": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Nothing) -> Done: ...
        """, "an annotation cannot be resolved"),
    "wrong answer": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Gone: ...
        """, "but Do is answered by Done"),
    "foreign command": ("""
        @s.aggregate
        class A:
            @decide
            def tell(self, command: Tell) -> Told: ...
        """, "a command of another contract"),
    "decided twice": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
            @decide
            def do_too(self, command: Do) -> Done: ...
        """, "c.A.do_too: do already decides do"),
    "decided by two": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
        @s.aggregate
        class B:
            @decide
            def do(self, command: Do) -> Done: ...
        """, "c.B: A already decides do"),
    "evolved twice": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
            @evolve
            def one(self, event: Done) -> None: ...
            @evolve
            def two(self, event: Done) -> None: ...
        """, "another method already evolves done"),
    "evolver of two": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
            @evolve
            def one(self, event: Done, more: int) -> None: ...
        """, "an evolver must take one parameter"),
    "state that cannot be stored": ("""
        @s.aggregate
        class A:
            f: Callable[[], int] = print
            @decide
            def do(self, command: Do) -> Done: ...
        """, "cannot be stored"),
    "a message that cannot be stored": (
        "@c.event\nclass X(Event): whom: tuple[Service, ...] = ()",
        "c.X.whom: a Service cannot be stored",
    ),
    "two of one name": ("""
        for _ in range(2):
            @s.view
            class V:
                n: int = 0
                @evolve(key=lambda event: event.id)
                def one(self, event: Done) -> None: ...
        """, "c.V: another aggregate, handler, effect, saga, reaction or view already has this name"),
    "view without key": ("""
        @s.view
        class V:
            n: int = 0
            @evolve
            def one(self, event: Done) -> None: ...
        """, "c.V.one: name the row"),
    "view evolver of two": ("""
        @s.view
        class V:
            n: int = 0
            @evolve(key=lambda event: event.id)
            def one(self, event: Done, more: int) -> None: ...
        """, "c.V.one: a view's evolver must take an event, and may then take `key: str`"),
    "view without events": ("@s.view\nclass V:\n    n: int = 0", "needs at least one @evolve(key=...)"),
    "view evolves twice": ("""
        @s.view
        class V:
            n: int = 0
            @evolve(key=lambda event: event.id)
            def one(self, event: Done) -> None: ...
            @evolve(key=lambda event: event.id)
            def two(self, event: Done) -> None: ...
        """, "another method already evolves done"),
    "reaction to nothing": ("@s.reaction\ndef r(event: int) -> Do: ...", "must take one parameter annotated"),
    "reaction that waits": ("@s.reaction\nasync def r(event: Done) -> Do: ...", "must be a plain def"),
    "saga of nothing": ("""
        @s.saga
        class S:
            @step
            def one(self) -> Do: ...
        """, "c.S: annotate exactly one field"),
    "saga of another's command": ("""
        @s.saga
        class S:
            tell: Tell
            @step
            def one(self) -> Do: ...
        """, "a command of another contract"),
    "saga without steps": ("@s.saga\nclass S:\n    go: Go", "needs at least one @step"),
    "two pivots": ("""
        @s.saga
        class S:
            go: Go
            @pivot
            def one(self) -> Do: ...
            @pivot
            def two(self) -> Do: ...
        """, "c.S.two: a saga may have only one pivot"),
    "step of no command": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> int: ...
        """, "annotate the return type"),
    "step of an event": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> Done: ...
        """, "c.S.one"),
    "negative deadline": ("""
        @s.saga
        class S:
            go: Go
            @step(deadline_seconds=-1)
            def one(self) -> Do: ...
        """, "deadline_seconds must not be negative"),
    "input from later": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self, two: Done) -> Do: ...
            @step
            def two(self) -> Do: ...
        """, "c.S.one"),
    "input of another type": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> Do: ...
            @step
            def two(self, one: Gone) -> Do: ...
        """, "c.S.two"),
    "undo of what accepts otherwise": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> Do: ...
            @undo(one)
            def back(self, event: Told) -> Undo: ...
        """, "one is answered by Done, but the undo takes Told"),
    "undo behind the pivot": ("""
        @s.saga
        class S:
            go: Go
            @pivot
            def one(self) -> Do: ...
            @step
            def two(self) -> Do: ...
            @undo(two)
            def back(self, event: Done) -> Undo: ...
        """, "two cannot be undone, because it is not before the pivot"),
    "two undos": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> Do: ...
            @undo(one)
            def back(self, event: Done) -> Undo: ...
            @undo(one)
            def back_too(self, event: Done) -> Undo: ...
        """, "one already has an undo"),
    "wrong final event": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> Do: ...
            @answer
            def end(self) -> Gone: ...
        """, "c.S.end: it must return Done"),
    "route": ('@s.get("no/slash")\ndef r(): ...', "write it as /fixed/{parameter}"),
    "route twice": ("""
        @s.get("/a/{b}")
        def r(b: str): ...
        @s.get("/a/{c}")
        def t(c: str): ...
        """, "already has the function r"),
    "undecided": ("s.check()", "c: nothing decides Do"),
    "two services of a name": ('System([s, Service(Contract("c"))], name="x")', "two services are named 'c'"),
    "no services": ('System([], name="x")', "has no services"),
}  # fmt: skip


def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A module with the prelude in it."""
    module = types.ModuleType("declared")
    monkeypatch.setitem(sys.modules, "declared", module)
    exec(PRELUDE, vars(module))  # declarations as a user writes them
    return vars(module)


@pytest.mark.parametrize("what", WRONG)
def test_it_is_refused_when_it_is_declared(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Misuse names the place and says what to do; nothing is found out only when money is on its way."""
    code, said = WRONG[what]
    space = declared(monkeypatch)
    with pytest.raises(Misuse) as caught:
        exec("from __future__ import annotations\n" + textwrap.dedent(code), space)
    assert said in str(caught.value)


def test_what_a_base_class_brings_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deciders, evolvers and fields of a base class are the aggregate's and the view's own; overridden ones are not."""
    space = declared(monkeypatch)
    code = """
    class Base:
        n: int = 0
        @decide(creates=True)
        def do(self, command: Do) -> Done:
            return Done(command.id)
        @evolve
        def done(self, event: Done) -> None:
            self.n += 1
    @s.aggregate
    class A(Base):
        m: int = 0
        @decide
        def undo(self, command: Undo) -> Gone:
            return Gone(command.id)
        @evolve
        def done(self, event: Done) -> None:
            self.m += 1
    """
    exec(textwrap.dedent(code), space)
    found = space["s"].aggregates["A"]
    assert {one.__name__ for one in found.deciders} == {"Do", "Undo"}
    state = found.shape.new()
    found.evolve(state, space["Done"]("x"))
    assert (state.n, state.m) == (0, 1)
