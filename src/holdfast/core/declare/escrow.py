"""Escrow: counters that many transactions move at once, without waiting for each other.

A field declared `on_hand: int = escrow(min=0)` is only ever moved by events (`self.on_hand -= event.quantity`), so the
order does not matter. While transactions hold such moves, the next command is decided for every case between none and
all of them being committed. If the result is the same each time, the command goes on beside them; otherwise it waits.
Pure; comes after `core.declare.aggregate`, before `runtime.decide.stages`. (O'Neil, "The Escrow Transactional Method",
1986.)
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import msgspec

from holdfast.core.declare.aggregate import AggregateType
from holdfast.core.declare.message import Command, Context, Event
from holdfast.errors import Rejected

CASES_FIELDS_MAX = 4
"""How many fields with held moves a command is decided for; with more fields the command waits."""


class _Else:
    """An assumed entry of a dict: a decider that does not know its key leaves it alone."""

    def __deepcopy__(self, memo: object) -> "_Else":
        return self


_GONE, _ELSE = _Else(), _Else()


class Differs(Exception):
    """The result of the command depends on the outcome of the held moves, or the command changes other fields."""


class Moves(msgspec.Struct, frozen=True):
    """The effect of events on the escrow fields: how far each number moves, which dict entries are set or removed."""

    numbers: dict[str, int] = {}
    entries: dict[str, dict[Any, Any]] = {}


def decide(by: AggregateType, state: Any, command: Command[Any], context: Context) -> tuple[Event, ...]:
    """The events of a command, as from `AggregateType.decide`, checked against the bounds. The state does not
    change."""
    events = by.decide(state, command, context)
    if by.bounded:
        _check(by, _after(by, state, events))
    return events


def moves_of(by: AggregateType, state: Any, events: Iterable[Event]) -> Moves | None:
    """The moves of events if they do nothing else, and do the same from a slightly different state; else None."""
    if not by.escrow:
        return None
    events = tuple(events)
    found = _moves(by, state, _after(by, state, events))
    if found is None:
        return None
    try:
        further = _shifted(by, state)
        return found if _moves(by, further, _after(by, further, events)) == found else None
    except Exception:  # noqa: BLE001 - a user's evolver that fails on this state: not a mere move
        return None


def beside(
    by: AggregateType, state: Any, command: Command[Any], context: Context, held: Sequence[Moves]
) -> tuple[tuple[Event, ...], Moves]:
    """The events of a command and their moves, if these are the same for every outcome of the held moves.

    Raises Rejected if every case rejects with the same code, and Differs if the cases differ.
    """
    try:
        first: Any = _outcome(by, state, command, context)
    except Rejected as no:
        first = no
    for case in _cases(by, state, held):
        try:
            found = _outcome(by, case, command, context)
        except Rejected as no:
            if not isinstance(first, Rejected) or first.code != no.code or first.events or no.events:
                raise Differs from None
            continue
        except Exception as error:  # a case that may never happen
            raise Differs from error
        if isinstance(first, Rejected) or found != first:
            raise Differs
    if isinstance(first, Rejected):
        raise first
    events, moves = first
    for name, entries in moves.entries.items():
        if any(key in one.entries.get(name, ()) for one in held for key in entries):
            raise Differs
    return events, moves


def _outcome(by: AggregateType, state: Any, command: Any, context: Context) -> tuple[tuple[Event, ...], Moves]:
    events = by.decide(by.shape.copied(state), command, context)
    _check(by, _after(by, state, events))
    moves = moves_of(by, state, events)
    if moves is None:
        raise Differs
    return events, moves


def _cases(by: AggregateType, state: Any, held: Sequence[Moves]) -> list[Any]:
    """The extreme states that the held moves may lead to."""
    choices: list[list[tuple[str, Any]]] = []
    for name in by.escrow:
        numbers = [one.numbers[name] for one in held if name in one.numbers]
        entries = [one.entries[name] for one in held if name in one.entries]
        if numbers:
            now = getattr(state, name)
            low, high = (now + sum(n for n in numbers if (n < 0) == down) for down in (True, False))
            choices.append([(name, low), (name, high)])
        if entries:
            now = getattr(state, name)
            after: dict[Any, Any] = {}
            for one in (now, *entries):
                after.update(one)
            choices.append([(name, now), (name, {key: value for key, value in after.items() if value is not _GONE})])
    if len(choices) > CASES_FIELDS_MAX:
        raise Differs
    cases: list[Any] = []
    for chosen in product(*choices) if choices else ():
        case = by.shape.copied(state)
        for name, value in chosen:
            setattr(case, name, value.copy() if hasattr(value, "copy") else value)
        cases.append(case)
    return cases


def _after(by: AggregateType, state: Any, events: Iterable[Event]) -> Any:
    after = by.shape.copied(state)
    for event in events:
        by.evolve(after, event)
    return after


def _moves(by: AggregateType, before: Any, after: Any) -> Moves | None:
    numbers: dict[str, int] = {}
    entries: dict[str, dict[Any, Any]] = {}
    for name in by.shape.fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name not in by.escrow:
            return None
        if isinstance(new, int):
            numbers[name] = new - old
        else:
            entries[name] = {key: value for key, value in new.items() if key not in old or old[key] != value}
            entries[name].update((key, _GONE) for key in old if key not in new)
    return Moves(numbers, entries)


def _shifted(by: AggregateType, state: Any) -> Any:
    further = by.shape.copied(state)
    for name in by.escrow:
        value = getattr(further, name)
        setattr(further, name, {**value, _ELSE: _ELSE} if isinstance(value, dict) else value + 1)
    return further


def _check(by: AggregateType, after: Any) -> None:
    for name, bounds in by.escrow.items():
        value = getattr(after, name)
        if isinstance(value, dict):
            continue
        if bounds.min is not None and value < bounds.min:
            raise Rejected("out_of_bounds", f"{name} may not go below {bounds.min}", field=name, min=bounds.min)
        if bounds.max is not None and value > bounds.max:
            raise Rejected("out_of_bounds", f"{name} may not go above {bounds.max}", field=name, max=bounds.max)


def check_commutes(by: AggregateType, state: Any, events: Iterable[Event]) -> str:
    """Why events that touch escrow fields are not mere moves; empty if they are, or if they touch none."""
    events = tuple(events)
    after = _after(by, state, events)
    touched = [name for name in by.escrow if getattr(state, name) != getattr(after, name)]
    others = [n for n in by.shape.fields if n not in by.escrow and getattr(state, n) != getattr(after, n)]
    if not touched or others:
        return ""
    if moves_of(by, state, events) is None:
        return f"{', '.join(touched)}: an event sets an escrow field; it may only move it, by what stands in the event"
    return ""
