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
    "not an event": ("@c.event\nclass X(Command[Done]): id: str", "subclasses holdfast.Event"),
    "not a command": ("@c.command\nclass X(Event): id: str", "subclasses holdfast.Command"),
    "name taken": ('@c.event(name="done")\nclass X(Event): id: str', "is the name of Done already"),
    "bad name": ('@c.event(name="No")\nclass X(Event): id: str', "lower-case"),
    "no upcast": ("@c.event(version=3)\nclass X(Event): id: str", "needs upcasts for the versions [1, 2]"),
    "key unknown": ('@c.command(key="nr")\nclass X(Command[Done]): id: str', "names 'nr', which is no field"),
    "no answer": ('@c.command(key="id")\nclass X(Command): id: str', "say which event answers it"),
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
        """, "c.A.do: must be a plain def"),
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
        """, "annotation not found"),
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
        """, "c.A.do_too: do decides do already"),
    "decided by two": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
        @s.aggregate
        class B:
            @decide
            def do(self, command: Do) -> Done: ...
        """, "c.B: do is decided by A already"),
    "evolved twice": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
            @evolve
            def one(self, event: Done) -> None: ...
            @evolve
            def two(self, event: Done) -> None: ...
        """, "done is evolved by another method already"),
    "evolver of two": ("""
        @s.aggregate
        class A:
            @decide
            def do(self, command: Do) -> Done: ...
            @evolve
            def one(self, event: Done, more: int) -> None: ...
        """, "an evolver takes one parameter"),
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
        """, "c.V: the name is taken"),
    "view without key": ("""
        @s.view
        class V:
            n: int = 0
            @evolve
            def one(self, event: Done) -> None: ...
        """, "c.V.one: say which row"),
    "view evolver of two": ("""
        @s.view
        class V:
            n: int = 0
            @evolve(key=lambda event: event.id)
            def one(self, event: Done, more: int) -> None: ...
        """, "c.V.one: a view's evolver takes an event, then `key: str` if wanted"),
    "view without events": ("@s.view\nclass V:\n    n: int = 0", "needs at least one @evolve(key=...)"),
    "view evolves twice": ("""
        @s.view
        class V:
            n: int = 0
            @evolve(key=lambda event: event.id)
            def one(self, event: Done) -> None: ...
            @evolve(key=lambda event: event.id)
            def two(self, event: Done) -> None: ...
        """, "done is evolved by another method already"),
    "reaction to nothing": ("@s.reaction\ndef r(event: int) -> Do: ...", "takes one parameter annotated with an event"),
    "reaction that waits": ("@s.reaction\nasync def r(event: Done) -> Do: ...", "must be a plain def"),
    "saga of nothing": ("""
        @s.saga
        class S:
            @step
            def one(self) -> Do: ...
        """, "c.S: annotate one field"),
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
        """, "c.S.two: a saga has one pivot at the most"),
    "step of no command": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> int: ...
        """, "annotate what it returns"),
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
        """, "one is answered by Done, the undo takes Told"),
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
        """, "two is not before the pivot"),
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
        """, "one has an undo already"),
    "wrong final event": ("""
        @s.saga
        class S:
            go: Go
            @step
            def one(self) -> Do: ...
            @answer
            def end(self) -> Gone: ...
        """, "c.S.end: must return Done"),
    "route": ('@s.get("no/slash")\ndef r(): ...', "write it as /fixed/{parameter}"),
    "route twice": ("""
        @s.get("/a/{b}")
        def r(b: str): ...
        @s.get("/a/{c}")
        def t(c: str): ...
        """, "has a function already: r"),
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
