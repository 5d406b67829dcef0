"""Sagas, declared: the steps of a business transaction as data, compiled from a plain class.

`@step` methods return commands, `@undo(step)` returns the command that takes an accepted one back, `@pivot` marks the
point of no return, `@answer` makes the final event. Everything is checked when the class is compiled (`Misuse`). The
modules `core.saga.progress` and `core.saga.advance` describe a running saga. (Garcia-Molina and Salem, "Sagas", 1987;
the pivot: Mehrotra et al., 1992.)
"""

import hashlib
import typing
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from holdfast.core.declare.aggregate import parameters
from holdfast.core.declare.message import Command, Contract, Event, MessageType, Rejection, message_type
from holdfast.core.declare.state import hints_of, members
from holdfast.errors import Misuse

A = TypeVar("A")
E = TypeVar("E", bound=Event)

DEADLINE_SECONDS = 10.0
"""A staged saga that is undecided after this time is cancelled."""
ATTEMPTS_MAX = 5
"""How often a rejected undo, or a rejected step after the pivot, is sent before the saga is stuck."""
RETRY_DELAY_MS = 500
"""The delay before the first of these attempts; it doubles with each attempt."""


class Step(Generic[A]):
    """A declared step; `A` is the event that answers its commands. Made by `@step` and `@pivot`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        deadline_seconds: float = 0,
        partial: bool = False,
        independent: bool = False,
        when: Callable[[Any], bool] | None = None,
        pivot: bool = False,
    ) -> None:
        self.function, self.name, self.independent = function, function.__name__, independent
        self.deadline_seconds, self.partial, self.when, self.pivot = deadline_seconds, partial, when, pivot
        self.undo: Callable[..., Any] | None = None
        self.inputs: tuple[str, ...] = ()
        self.group = False
        self.commands: tuple[MessageType, ...] = ()


class Undo:
    """The undo of a step; made by `@undo(step)`."""

    def __init__(self, step: Step[Any], function: Callable[..., Any]) -> None:
        self.step, self.function = step, function


class Answer(Generic[E]):
    """The answer of a completed saga; made by `@answer`."""

    def __init__(self, function: Callable[..., E]) -> None:
        self.function = function
        self.inputs: tuple[str, ...] = ()


class _StepMaker(Protocol):
    @overload
    def __call__(self, function: Callable[..., Sequence[Command[A]]], /) -> Step[A]: ...
    @overload
    def __call__(self, function: Callable[..., Command[A] | None], /) -> Step[A]: ...


@overload
def step(function: Callable[..., Sequence[Command[A]]], /) -> Step[A]: ...
@overload
def step(function: Callable[..., Command[A] | None], /) -> Step[A]: ...
@overload
def step(function: Callable[..., Sequence[Command[Any]]], /) -> Step[Any]: ...
@overload
def step(
    *,
    deadline_seconds: float = 0,
    partial: bool = False,
    independent: bool = False,
    when: Callable[[Any], bool] | None = None,
) -> _StepMaker: ...
def step(
    function: Any = None,
    /,
    *,
    deadline_seconds: float = 0,
    partial: bool = False,
    independent: bool = False,
    when: Callable[[Any], bool] | None = None,
) -> Any:
    """Mark a step: a method that returns a command, a list of commands sent side by side, or None for no command.

    Its parameters name earlier steps and receive their answers. `deadline_seconds`: a step without an answer by then is
    unknown; before the pivot it is cancelled and the saga is undone, after the pivot this is only reported.
    `partial=True`: rejections do not undo; the next steps receive `list[Event | Rejection]`. `independent=True`:
    earlier steps are undone even while this step is unknown. `when`: a function of the saga; the step is skipped if
    it returns False.
    """

    def make(function: Callable[..., Any]) -> Step[Any]:
        return Step(function, deadline_seconds=deadline_seconds, partial=partial, independent=independent, when=when)

    return make if function is None else make(function)


@overload
def pivot(function: Callable[..., Sequence[Command[A]]], /) -> Step[A]: ...
@overload
def pivot(function: Callable[..., Command[A] | None], /) -> Step[A]: ...
@overload
def pivot(*, deadline_seconds: float = 0) -> _StepMaker: ...
def pivot(function: Any = None, /, *, deadline_seconds: float = 0) -> Any:
    """Mark the point of no return: if this step is rejected, the saga is undone; if accepted, it only goes forward.

    `deadline_seconds`: a pivot without an answer by then is cancelled; nothing is undone until its answer comes, which
    decides.
    """

    def make(function: Any) -> Step[Any]:
        return Step(function, deadline_seconds=deadline_seconds, pivot=True)

    return make if function is None else make(function)


def undo(step: Step[A], /) -> Callable[[Callable[[Any, A], Command[Any] | None]], Undo]:
    """Mark the undo of a step: called once per accepted command, with the event that accepted it."""
    return lambda function: Undo(step, function)


def answer(function: Callable[..., E], /) -> Answer[E]:
    """Mark the method that makes the saga's final event; its parameters name steps."""
    return Answer(function)


class SagaType:
    """A compiled saga class."""

    def __init__(
        self,
        cls: type[Any],
        contract: Contract,
        begins: Literal["start", "now"],
        *,
        staged: bool = False,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self.cls, self.name, self.begins_at = cls, cls.__name__, begins
        self.staged, self.deadline_seconds = staged, deadline_seconds
        self.where = f"{contract.name}.{self.name}"
        hints = hints_of(cls, self.where)
        if len(hints) != 1 or not isinstance(first := next(iter(hints.values())), type):
            raise Misuse(f"{self.where}: annotate exactly one field: the command or the event that begins the saga")
        self.field, self.begin = next(iter(hints)), message_type(first)
        if self.begin.kind == "command" and self.begin.contract != contract.name:
            raise Misuse(
                f"{self.where}: the saga begins with {self.begin.stored}, which is a command of another contract"
            )
        self.steps: tuple[Step[Any], ...] = tuple(_members_of(cls, Step))
        if not self.steps:
            raise Misuse(f"{self.where}: a saga needs at least one @step")
        pivots = [number for number, found in enumerate(self.steps) if found.pivot]
        if len(pivots) > 1:
            raise Misuse(f"{self.where}.{self.steps[pivots[1]].name}: a saga may have only one pivot")
        self.pivot = pivots[0] if pivots else len(self.steps)
        self.contracts: dict[str, Contract] = {contract.name: contract, self.begin.contract: self.begin.home}
        for number, found in enumerate(self.steps):
            self._compile_step(number, found)
        for found in _members_of(cls, Undo):
            self._compile_undo(found)
        if staged:
            self._check_staged()
        self.answer = self._compile_answer(contract)
        self.by_name = {found.name: number for number, found in enumerate(self.steps)}
        # The version of a message is left out: stored messages are brought up to the version known here.
        text = "|".join(
            f"{s.name}:{s.pivot}:{bool(s.undo)}:{[c.full_name for c in s.commands]}:{s.inputs}" for s in self.steps
        )
        text = f"{self.begin.full_name}|{text}{'|staged' if staged else ''}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def _compile_step(self, number: int, step: Step[Any]) -> None:
        where = f"{self.where}.{step.name}"
        params, returned = parameters(step.function, where)
        self._check_inputs(params, self.steps[:number], where)
        step.inputs, step.undo = tuple(params), None
        origin = typing.get_origin(returned)
        step.group = isinstance(origin, type) and issubclass(origin, Sequence)
        parts = typing.get_args(returned) if step.group else (returned,)
        classes = [cls for part in parts for cls in _members(part) if cls not in (type(None), ...)]
        if not classes or not all(isinstance(cls, type) and issubclass(cls, Command) for cls in classes):
            raise Misuse(f"{where}: annotate the return type: a command, `command | None` or a list of commands")
        step.commands = tuple(message_type(cls) for cls in classes)
        for command in step.commands:
            self.contracts[command.contract] = command.home
            if step.when is None and command.kind != "command":
                raise Misuse(f"{where}: {command.stored} is not a command")
        if step.deadline_seconds < 0:
            raise Misuse(f"{where}: deadline_seconds must not be negative")

    def _check_staged(self) -> None:
        for found in self.steps:
            refused = (
                ("a pivot: the commit point is its pivot", found.pivot),
                ("an undo: nothing takes effect before the commit point", found.undo is not None),
                ("partial=True: its commands commit all together or not at all", found.partial),
                ("a deadline on a step: the saga has one deadline", found.deadline_seconds),
                ("independent=True: a staged saga undoes nothing", found.independent),
            )
            wrong = next((why for why, there in refused if there), "")
            if wrong:
                raise Misuse(f"{self.where}.{found.name}: a staged saga may not have {wrong}")
        if not 0 < self.deadline_seconds <= 3600:
            raise Misuse(
                f"{self.where}: deadline_seconds={self.deadline_seconds:g} must be more than 0 and at most 3600"
            )

    def _compile_undo(self, found: Undo) -> None:
        where = f"{self.where}.{found.function.__name__}"
        if found.step not in self.steps:
            raise Misuse(f"{where}: it undoes {found.step.name}, which is not a step of this saga")
        if self.steps.index(found.step) >= self.pivot:
            raise Misuse(f"{where}: {found.step.name} cannot be undone, because it is not before the pivot")
        if found.step.undo is not None:
            raise Misuse(f"{where}: {found.step.name} already has an undo")
        params, returned = parameters(found.function, where)
        if len(params) != 1:
            raise Misuse(f"{where}: an undo must take the event that accepted the command, and nothing else")
        taken = set(_members(next(iter(params.values()))))
        answers = {cls for command in found.step.commands for cls in command.answers}
        if not answers <= taken:
            raise Misuse(
                f"{where}: {found.step.name} is answered by {_names(answers)}, but the undo takes {_names(taken)}"
            )
        for cls in _members(returned):
            if cls is not type(None):
                self.contracts[message_type(cls).contract] = message_type(cls).home
        found.step.undo = found.function

    def _compile_answer(self, contract: Contract) -> Answer[Any] | None:
        found: list[Answer[Any]] = _members_of(self.cls, Answer)
        if not found:
            if self.begin.kind == "command":
                raise Misuse(
                    f"{self.where}: a command begins it; it needs an @answer that returns {_names(self.begin.answers)}"
                )
            return None
        if len(found) > 1:
            raise Misuse(f"{self.where}: a saga may have only one @answer")
        where = f"{self.where}.{found[0].function.__name__}"
        params, returned = parameters(found[0].function, where)
        self._check_inputs(params, self.steps, where)
        found[0].inputs = tuple(params)
        expected = self.begin.answers or (Event,)
        for cls in _members(returned):
            if (
                not isinstance(cls, type)
                or not issubclass(cls, expected)
                or message_type(cls).contract != contract.name
            ):
                raise Misuse(f"{where}: it must return {_names(expected)}, an event of contract {contract.name!r}")
        return found[0]

    def _check_inputs(self, params: dict[str, Any], earlier: Sequence[Step[Any]], where: str) -> None:
        steps = {step.name: step for step in earlier}
        for name, hint in params.items():
            if name not in steps:
                raise Misuse(
                    f"{where}: parameter {name!r} is not an earlier step (earlier steps: {', '.join(steps) or 'none'})"
                )
            step, group = steps[name], typing.get_origin(hint)
            is_group = isinstance(group, type) and issubclass(group, Sequence)
            if is_group != step.group:
                raise Misuse(
                    f"{where}: {name} is {'a group: take list[...]' if step.group else 'one command: take its event'}"
                )
            taken = {cls for part in (typing.get_args(hint) if is_group else (hint,)) for cls in _members(part)}
            needed: set[Any] = {cls for command in step.commands for cls in command.answers}
            needed |= {Rejection} if step.partial else set()
            if not needed <= taken:
                raise Misuse(f"{where}: {name} gives {_names(needed)}, but the parameter takes {_names(taken)}")


def _members_of(cls: type[Any], kind: type[Any]) -> list[Any]:
    return [found for found in members(cls).values() if isinstance(found, kind)]


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _names(classes: Any) -> str:
    return " | ".join(sorted(getattr(cls, "__name__", str(cls)) for cls in classes))
