"""Aggregates: decide and evolve, compiled from a plain class.

`decide` takes a command and answers with events or raises `Rejected`; `evolve` folds an event into the state. Both are
pure. Comes after `core.declare.message`; `runtime.decide.dispatch` runs deciders, stores keep what they decided. Fails
with `Misuse` when a class is compiled that cannot work, never when it runs. (The decider pattern: Chassaing,
"Functional Event Sourcing Decider", 2021.)
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Any, TypeVar, cast, overload

import msgspec

from holdfast.core.declare.message import Command, Context, Event, MessageType, message_type
from holdfast.core.declare.state import Shape, hints_of, members
from holdfast.errors import CommandFailed, Misuse

F = TypeVar("F", bound=Callable[..., Any])

DECIDE, EVOLVE, ESCROW = "__holdfast_decide__", "__holdfast_evolve__", "__holdfast_escrow__"


@overload
def decide(method: F, /) -> F: ...
@overload
def decide(*, creates: bool = False) -> Callable[[F], F]: ...
def decide(method: Any = None, /, *, creates: bool = False) -> Any:
    """Mark a method that decides a command. `creates=True`: it may run on a stream that does not exist yet; without
    it such a command is rejected with code `not_found`."""

    def mark(method: F) -> F:
        setattr(method, DECIDE, creates)
        return method

    return mark if method is None else mark(method)


@overload
def evolve(method: F, /) -> F: ...
@overload
def evolve(*, key: Callable[[Any], object]) -> Callable[[F], F]: ...
def evolve(method: Any = None, /, *, key: Callable[[Any], object] | None = None) -> Any:
    """Mark a method that folds an event into the state. In a view, `key` returns the key of the row that an event
    belongs to."""

    def mark(method: F) -> F:
        setattr(method, EVOLVE, key or True)
        return method

    return mark if method is None else mark(method)


class Escrow(msgspec.Struct, frozen=True):
    """The bounds of an escrow field; made by `escrow`."""

    default: int = 0
    min: int | None = None
    max: int | None = None


def escrow(*, default: int = 0, min: int | None = None, max: int | None = None) -> Any:
    """Declare a field that events only add to or subtract from, such as a stock.

    For example `on_hand: int = escrow(min=0)`; or a dict in which each command sets or removes a key of its own.
    Commands that only move such fields go on while staged transactions hold other moves: each command is decided for
    the worst and the best case of the held moves, and accepted if both give the same result. A decider may only
    compare the field with a limit. A command that would leave the bounds is rejected with code `out_of_bounds`.
    (O'Neil, "The Escrow Transactional Method", ACM TODS 11(4), 1986.)
    """
    return Escrow(default, min, max)


class Decider(msgspec.Struct, frozen=True):
    """One command's decider."""

    command: MessageType
    method: Callable[..., Any]
    creates: bool
    wants_context: bool


class AggregateType:
    """A compiled aggregate class: its deciders by command class, its evolvers by event class."""

    def __init__(self, cls: type[Any], contract: str) -> None:
        self.cls, self.name = cls, cls.__name__
        where = f"{contract}.{self.name}"
        self.escrow = _escrow_of(cls, where)
        """The escrow fields of the class, with their bounds."""
        self.bounded = any(one.min is not None or one.max is not None for one in self.escrow.values())
        self.shape = Shape(cls, where)
        self.deciders: dict[type[Any], Decider] = {}
        self.evolvers: dict[type[Any], Callable[[Any, Any], None]] = {}
        for name, method in members(cls).items():
            if hasattr(method, DECIDE):
                decider = _decider(method, f"{where}.{name}")
                if decider.command.contract != contract:
                    raise Misuse(
                        f"{where}.{name}: it decides {decider.command.stored}, which is a command of another contract"
                    )
                if other := self.deciders.get(decider.command.cls):
                    raise Misuse(f"{where}.{name}: {other.method.__name__} already decides {decider.command.name}")
                self.deciders[decider.command.cls] = decider
            if hasattr(method, EVOLVE):
                event = evolver_event(method, f"{where}.{name}")
                if event.cls in self.evolvers:
                    raise Misuse(f"{where}.{name}: another method already evolves {event.name}")
                self.evolvers[event.cls] = method
        if not self.deciders:
            raise Misuse(f"{where}: an aggregate needs at least one @decide method")

    def decide(self, state: Any, command: Command[Any], context: Context) -> tuple[Event, ...]:
        """The events that accept a command, the answering event among them. Raises what the decider
        raises, and CommandFailed when it returns something else."""
        decider = self.deciders[type(command)]
        found = decider.method(state, command, context) if decider.wants_context else decider.method(state, command)
        if type(found) in decider.command.answers:
            return (found,)
        events = as_events(found, f"{self.name}.{decider.method.__name__}")
        if not any(isinstance(event, decider.command.answers) for event in events):
            names = " or ".join(answer.__name__ for answer in decider.command.answers)
            raise CommandFailed(
                f"{self.name}.{decider.method.__name__} must return {names}; it returned {found!r:.200}"
            )
        return events

    def evolve(self, state: Any, event: Event) -> None:
        """Fold one event into the state, in place. An event without an evolver changes nothing."""
        if method := self.evolvers.get(type(event)):
            method(state, event)


def _escrow_of(cls: type[Any], where: str) -> dict[str, Escrow]:
    """The escrow fields of a class; each becomes a class attribute with its default. Raises Misuse."""
    known: dict[str, Escrow] = dict(getattr(cls, ESCROW, {}))
    hints = hints_of(cls, where)
    for name, member in members(cls).items():
        if not isinstance(member, Escrow):
            continue
        hint = hints.get(name)
        whole = hint is int
        if not whole and typing.get_origin(hint) is not dict:
            raise Misuse(f"{where}.{name}: an escrow field must be an int or a dict[...]")
        if not whole and member != Escrow():
            raise Misuse(
                f"{where}.{name}: an escrow dict has no default and no bounds; each command sets or removes its own key"
            )
        low, high = member.min, member.max
        if (low is not None and member.default < low) or (high is not None and member.default > high):
            raise Misuse(f"{where}.{name}: the default {member.default} is outside the bounds")
        known[name] = member
        setattr(cls, name, member.default if whole else {})
    if known:
        setattr(cls, ESCROW, known)
    return known


def as_events(found: Any, where: str) -> tuple[Event, ...]:
    """The events that a decider returned, as a tuple of registered events. Raises CommandFailed on anything else."""
    events: tuple[Any, ...] = (found,) if isinstance(found, Event) else ()
    if isinstance(found, tuple | list):
        events = tuple(cast(Iterable[Any], found))
    for event in events:
        if not isinstance(event, Event) or "__holdfast__" not in type(event).__dict__:
            raise CommandFailed(f"{where} must return events of its contract; it returned {event!r:.200}")
    return events


def is_a(hint: Any, cls: type[Any]) -> bool:
    """True if an annotation is that class or a subclass of it."""
    return isinstance(hint, type) and issubclass(hint, cls)


def events_in(hint: Any) -> tuple[type[Event], ...]:
    """The events that an annotation names, one or a union; empty if it names anything else."""
    union = typing.get_origin(hint) in (typing.Union, UnionType)
    kinds: tuple[Any, ...] = typing.get_args(hint) if union else (hint,)
    return kinds if all(is_a(kind, Event) for kind in kinds) else ()


def parameters(method: Callable[..., Any], where: str) -> tuple[dict[str, Any], Any]:
    """(name -> annotation of every parameter after self, return annotation). Raises Misuse for `async def`."""
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise Misuse(f"{where}: the method must be a plain def; it may not wait, and I/O belongs in an effect")
    try:
        hints = typing.get_type_hints(method)
    except NameError as error:
        raise Misuse(f"{where}: an annotation cannot be resolved: {error}") from None
    names = list(inspect.signature(method).parameters)
    found: dict[str, Any] = {}
    for name in names[1:] if names[:1] == ["self"] else names:
        if name not in hints:
            raise Misuse(f"{where}: parameter {name!r} needs an annotation")
        found[name] = hints[name]
    return found, hints.get("return")


def evolver_event(method: Callable[..., Any], where: str) -> MessageType:
    """The event that an evolver folds, from its one annotated parameter."""
    params, _ = parameters(method, where)
    annotation = next(iter(params.values()), None)
    if len(params) != 1 or not isinstance(annotation, type) or not issubclass(annotation, Event):
        raise Misuse(f"{where}: an evolver must take one parameter that is annotated with an event")
    return message_type(annotation)


def _decider(method: Callable[..., Any], where: str) -> Decider:
    params, returned = parameters(method, where)
    commands: list[type[Any]] = [hint for hint in params.values() if is_a(hint, Command)]
    unknown = [name for name, hint in params.items() if hint not in commands and hint is not Context]
    if len(commands) != 1 or unknown or next(iter(params.values())) is Context:
        raise Misuse(
            f"{where}: it must take one parameter annotated with a command, and may then take `context: Context`"
        )
    command = message_type(commands[0])
    if not command.key_fields:
        raise Misuse(f"{where}: {command.cls.__name__} has no key; name the key field: @contract.command(key=...)")
    declared = _event_classes(returned)
    if returned is not None and not any(issubclass(cls, command.answers) for cls in declared):
        names = " or ".join(answer.__name__ for answer in command.answers)
        raise Misuse(f"{where}: it returns {returned!r}, but {command.cls.__name__} is answered by {names}")
    for answer in command.answers:
        message_type(answer)
    return Decider(command, method, getattr(method, DECIDE), Context in params.values())


def _event_classes(hint: Any) -> list[type[Any]]:
    if isinstance(hint, type) and issubclass(hint, Event):
        return [hint]
    if typing.get_origin(hint) in (tuple, list, Sequence, typing.Union, UnionType):
        return [cls for part in typing.get_args(hint) for cls in _event_classes(part)]
    return []
