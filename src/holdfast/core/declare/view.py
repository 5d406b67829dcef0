"""Views and reactions: how a service reacts to events, its own and those of other services.

A view folds events into rows, one per key; a reaction answers an event with commands. Both are fed by the runtime's
feeds in commit order, each with a checkpoint of its own. Pure; fails with `Misuse` when compiled.
"""

import typing
from collections.abc import Callable
from typing import Any, cast

from holdfast.core.declare.aggregate import EVOLVE, events_in, is_a, parameters
from holdfast.core.declare.message import Command, Context, Event, MessageType, as_commands, message_type
from holdfast.core.declare.state import Shape, members
from holdfast.core.log.key import join_key
from holdfast.errors import Misuse


class ViewType:
    """A compiled view class: evolvers by event class, each with the function that gives the row's key."""

    def __init__(self, cls: type[Any], service: str) -> None:
        self.cls, self.name = cls, cls.__name__
        where = f"{service}.{self.name}"
        self.shape = Shape(cls, where)
        self.evolvers: dict[type[Any], tuple[Callable[[Any], object], Callable[..., None], bool]] = {}
        """Event class -> (its key function, the evolver, whether that takes the row's key)."""
        self.events: dict[str, MessageType] = {}
        """Messages by stored name, earlier versions included."""
        for name, method in members(cls).items():
            key = getattr(method, EVOLVE, None)
            if key is None:
                continue
            if key is True:
                raise Misuse(f"{where}.{name}: name the row that the event belongs to: @evolve(key=lambda event: ...)")
            event, takes_key = _evolver(method, f"{where}.{name}")
            if event.cls in self.evolvers:
                raise Misuse(f"{where}.{name}: another method already evolves {event.name}")
            self.evolvers[event.cls] = (key, method, takes_key)
            self.events.update(dict.fromkeys(event.stored_all, event))
        if not self.events:
            raise Misuse(f"{where}: a view needs at least one @evolve(key=...) method")
        self.fingerprint = f"{self.shape.fingerprint}:{','.join(sorted({one.stored for one in self.events.values()}))}"

    def keys(self, event: Event) -> list[str]:
        """The keys of the rows an event belongs to: one, or several if the key function returns a list; composite if it
        returns a tuple."""
        found: Any = self.evolvers[type(event)][0](event)
        keys = cast(list[object], found) if isinstance(found, list) else [found]
        parts = (cast(tuple[object, ...], key) if isinstance(key, tuple) else (key,) for key in dict.fromkeys(keys))
        return [join_key(part, self.name) for part in parts]

    def evolve(self, row: Any, event: Event, key: str) -> None:
        """Fold one event into the row of that key, in place."""
        _, method, takes_key = self.evolvers[type(event)]
        method(row, event, key) if takes_key else method(row, event)


def _evolver(method: Callable[..., Any], where: str) -> tuple[MessageType, bool]:
    """The event of a view's evolver, and whether it takes the row's key. Raises Misuse."""
    params, _ = parameters(method, where)
    hints = list(params.values())
    if not hints or not is_a(hints[0], Event) or len(hints) > 2 or (len(hints) == 2 and params.get("key") is not str):
        raise Misuse(f"{where}: a view's evolver must take an event, and may then take `key: str`")
    return message_type(hints[0]), len(hints) == 2


class ReactionType:
    """A compiled reaction: the events it waits for and the function that returns commands."""

    def __init__(self, function: Callable[..., Any], service: str, begins: typing.Literal["start", "now"]) -> None:
        self.function, self.name, self.begins = function, function.__name__, begins
        where = f"{service}.{self.name}"
        params, _ = parameters(function, where)
        first, *rest = list(params.values()) or [None]
        kinds = events_in(first)
        if not kinds or any(hint is not Context for hint in rest) or len(rest) > 1:
            raise Misuse(
                f"{where}: it must take one parameter annotated with an event (or `One | Other`), and may then take"
                " `context: Context`"
            )
        self.events: dict[str, MessageType] = {
            stored: kind for kind in map(message_type, kinds) for stored in kind.stored_all
        }
        """Messages by stored name, earlier versions included. All these events of one producer come in the order of its
        log."""
        self.wants_context = bool(rest)

    def react(self, event: Event, context: Context) -> tuple[Command[Any], ...]:
        """The commands that the event leads to. Raises what the function raises, or CommandFailed."""
        return as_commands(self.function(event, context) if self.wants_context else self.function(event), self.name)
