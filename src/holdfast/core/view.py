"""Views and reactions: what a service makes of events, its own and others'.

A view folds events into rows, one per key; a reaction answers an event with commands. Both are fed by the runtime's
feeds in commit order, each with a checkpoint of its own. Pure; fails with `Misuse` when compiled.
"""

import typing
from collections.abc import Callable
from typing import Any, cast

from holdfast.core.aggregate import EVOLVE, evolver_event, parameters
from holdfast.core.message import REGISTRATION, Command, Context, Event, MessageType, join_key, message_type
from holdfast.core.state import Shape, members
from holdfast.errors import CommandFailed, Misuse


class ViewType:
    """A compiled view class: evolvers by event class, each with the function that gives the row's key."""

    def __init__(self, cls: type[Any], service: str) -> None:
        self.cls, self.name = cls, cls.__name__
        where = f"{service}.{self.name}"
        self.shape = Shape(cls, where)
        self.evolvers: dict[type[Any], tuple[Callable[[Any], object], Callable[[Any, Any], None]]] = {}
        self.events: dict[str, MessageType] = {}
        for name, method in members(cls).items():
            key = getattr(method, EVOLVE, None)
            if key is None:
                continue
            if key is True:
                raise Misuse(f"{where}.{name}: say which row the event belongs to: @evolve(key=lambda event: ...)")
            event = evolver_event(method, f"{where}.{name}")
            if event.cls in self.evolvers:
                raise Misuse(f"{where}.{name}: {event.name} is evolved by another method already")
            self.evolvers[event.cls] = (key, method)
            self.events[event.stored] = event
        if not self.events:
            raise Misuse(f"{where}: a view needs at least one @evolve(key=...) method")
        self.fingerprint = f"{self.shape.fingerprint}:{','.join(sorted(self.events))}"

    def key(self, event: Event) -> str:
        """The key of the row an event belongs to; composite where the key function returns a tuple."""
        found = self.evolvers[type(event)][0](event)
        return join_key(found if isinstance(found, tuple) else (found,), self.name)  # pyright: ignore[reportUnknownArgumentType]

    def evolve(self, row: Any, event: Event) -> None:
        """Fold one event into its row, in place."""
        self.evolvers[type(event)][1](row, event)


class ReactionType:
    """A compiled reaction: the event it waits for and the function that returns commands."""

    def __init__(self, function: Callable[..., Any], service: str, begins: typing.Literal["start", "now"]) -> None:
        self.function, self.name, self.begins = function, function.__name__, begins
        where = f"{service}.{self.name}"
        params, _ = parameters(function, where)
        events = [hint for hint in params.values() if isinstance(hint, type) and issubclass(hint, Event)]
        if len(events) != 1 or any(hint is not Context and hint not in events for hint in params.values()):
            raise Misuse(f"{where}: takes one parameter annotated with an event, then `context: Context` if wanted")
        self.event = message_type(events[0])
        self.wants_context = Context in params.values()

    def react(self, event: Event, context: Context) -> tuple[Command[Any], ...]:
        """The commands the event leads to. Raises what the function raises, or CommandFailed."""
        return as_commands(self.function(event, context) if self.wants_context else self.function(event), self.name)


def as_commands(found: Any, where: str) -> tuple[Command[Any], ...]:
    """What a step or reaction returned, as a tuple of registered commands; None is none of them."""
    if found is None:
        return ()
    commands: tuple[Any, ...] = tuple(cast(list[Any], found)) if isinstance(found, tuple | list) else (found,)
    for command in commands:
        if not isinstance(command, Command) or REGISTRATION not in vars(cast(Any, type)(command)):
            raise CommandFailed(f"{where} must return commands of a contract; it returned {command!r:.200}")
    return commands
