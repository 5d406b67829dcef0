"""Services as declared: a team's declarations, compiled and checked before anything runs.

A `Service` collects the aggregates, handlers, sagas, reactions, views and routes of one contract. There is no global
registry and no side effect: the same declaration can run twice in one process. Comes before `core.system`, which puts
services together; it fails with `Misuse`, whose sentence names the place.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import msgspec

from holdfast.core.declare.aggregate import AggregateType
from holdfast.core.declare.effect import EFFECT_SECONDS, EffectType
from holdfast.core.declare.handler import HANDLER_SECONDS, HandlerType
from holdfast.core.declare.message import Command, Contract, MessageType, message_type
from holdfast.core.declare.retry import Retry
from holdfast.core.declare.saga import DEADLINE_SECONDS, SagaType
from holdfast.core.declare.view import ReactionType, ViewType
from holdfast.errors import Misuse

T = TypeVar("T", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])
Begins = Literal["start", "now"]
Decides = AggregateType | EffectType | HandlerType | SagaType
"""The kinds of declarations that can decide a command."""


@dataclass(frozen=True, slots=True, init=False)
class Query:
    """A question to a view, as a `get` route returns it: the row of that key (several values for a composite key).

    `shape` turns the row, a dict of plain values, into the answer.
    """

    view: type[Any]
    key: tuple[object, ...]
    shape: Callable[[Any], Any] | None

    def __init__(self, view: type[Any], *key: object, shape: Callable[[Any], Any] | None = None) -> None:
        for name, value in (("view", view), ("key", key), ("shape", shape)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Keyed:
    """The command a route runs, with the idempotency key that the caller put into the path or the body.

    An `Idempotency-Key` header, if there is one, is used instead.
    """

    command: Command[Any]
    key: str


@dataclass(frozen=True, slots=True, init=False)
class Every:
    """One command to each aggregate of a type, as a route returns it: its key fields are the aggregate's key, `values`
    the others.

    Each command is decided and recorded separately, so this is not atomic. If it breaks off, a repeat with the same
    idempotency key goes on: a command that is done already is not done again.
    """

    aggregate: type[Any]
    command: type[Any]
    values: dict[str, Any]

    def __init__(self, aggregate: type[Any], command: type[Any], **values: Any) -> None:
        for name, value in (("aggregate", aggregate), ("command", command), ("values", values)):
            object.__setattr__(self, name, value)


class DeclaredRoute(msgspec.Struct, frozen=True):
    """A user's HTTP route: `function` takes path parameters and a body by name, and returns a command, an Every (or
    several), or a Query."""

    method: str
    path: str
    function: Callable[..., Any]


class Service:
    """One service: its contract, its owner, and its declarations.

    `owner` is the team that is named wherever this service needs an operator. `retry`: how often a message
    whose handler fails is tried before it is parked.
    """

    def __init__(self, contract: Contract, *, owner: str = "", retry: Retry = Retry()) -> None:  # noqa: B008 - a value
        self.contract, self.name, self.owner = contract, contract.name, owner
        self._retry = retry
        self._retries: dict[str, Retry] = {}
        self.effects: dict[str, EffectType] = {}
        self.aggregates: dict[str, AggregateType] = {}
        self.handlers: dict[str, HandlerType] = {}
        self.sagas: dict[str, SagaType] = {}
        self.reactions: dict[str, ReactionType] = {}
        self.views: dict[str, ViewType] = {}
        self.routes: list[DeclaredRoute] = []
        self.deciders: dict[str, Decides] = {}
        """Command name -> the declaration that decides it."""

    def aggregate(self, cls: T) -> T:
        """Register an aggregate class."""
        found = AggregateType(cls, self.name)
        self._take(found.name)
        for decider in found.deciders.values():
            self._decides(decider.command, found)
        self.aggregates[found.name] = found
        return cls

    @overload
    def handle(self, function: F, /) -> F: ...
    @overload
    def handle(self, /, *, seconds: float = HANDLER_SECONDS) -> Callable[[F], F]: ...
    def handle(self, function: Any = None, /, *, seconds: float = HANDLER_SECONDS) -> Any:
        """Register a handler: `async def name(command: Charge, tx: LocalTransaction) -> Charged`.

        It runs in the store's transaction, with its connection, and may take `seconds`. It needs a store that can
        lend transactions: SQLite, PostgreSQL, MariaDB. On SQLite nothing else is committed meanwhile.
        """

        def register(function: F) -> F:
            found = HandlerType(function, self.name, seconds)
            self._take(found.name)
            self._decides(found.command, found)
            self.handlers[found.name] = found
            return function

        return register if function is None else register(function)

    @overload
    def effect(self, function: F, /) -> F: ...
    @overload
    def effect(
        self, /, *, probe: Callable[..., Any] | None = None, idempotent: bool = False, seconds: float = EFFECT_SECONDS
    ) -> Callable[[F], F]: ...
    def effect(
        self,
        function: Any = None,
        /,
        *,
        probe: Callable[..., Any] | None = None,
        idempotent: bool = False,
        seconds: float = EFFECT_SECONDS,
    ) -> Any:
        """Register an effect: `async def name(command: Charge, attempt: Attempt) -> Charged`, a call to an external
        system.

        If it returns, the call is done. If it raises `Rejected`, the call is refused; if it raises `NotDone`, the call
        has not happened and is made again. Any other exception, or more than `seconds`, makes the outcome unknown. Then
        `probe` is called with the same parameters: it returns the event, raises `Rejected`, or returns None if nothing
        was done and nothing will be. Without a probe an unknown call is made again if it is `idempotent`; otherwise it
        waits for an operator.
        """

        def register(function: F) -> F:
            found = EffectType(function, self.name, probe, idempotent=idempotent, seconds=seconds)
            self._take(found.name)
            self._decides(found.command, found)
            self.effects[found.name] = found
            return function

        return register if function is None else register(function)

    def retry(self, message: type[Any], retry: Retry) -> None:
        """Set how often this command is tried, or this event by a reaction or saga of this service."""
        kind = message_type(message)
        if kind.stored in self._retries:
            raise Misuse(f"{self.name}: {kind.stored} already has a Retry")
        self._retries.update(dict.fromkeys(kind.stored_all, retry))

    def retry_of(self, stored: str) -> Retry:
        """How often a message of that stored type is tried."""
        return self._retries.get(stored, self._retry)

    @overload
    def saga(self, cls: T, /) -> T: ...
    @overload
    def saga(
        self, /, *, begins: Begins = "start", staged: bool = False, deadline_seconds: float = DEADLINE_SECONDS
    ) -> Callable[[T], T]: ...
    def saga(
        self,
        cls: Any = None,
        /,
        *,
        begins: Begins = "start",
        staged: bool = False,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Any:
        """Register a saga class. If an event begins it, `begins` says from where: the "start" of the event's log, or
        "now".

        `staged`: its steps are held, and commit all together or not at all; a saga that is undecided after
        `deadline_seconds` is cancelled.
        """

        def register(cls: T) -> T:
            found = SagaType(cls, self.contract, begins, staged=staged, deadline_seconds=deadline_seconds)
            self._take(found.name)
            if found.begin.kind == "command":
                self._decides(found.begin, found)
            self.sagas[found.name] = found
            return cls

        return register if cls is None else register(cls)

    @overload
    def reaction(self, function: F, /) -> F: ...
    @overload
    def reaction(self, /, *, begins: Begins = "start") -> Callable[[F], F]: ...
    def reaction(self, function: Any = None, /, *, begins: Begins = "start") -> Any:
        """Register a reaction: a function from an event of any service to commands."""

        def register(function: F) -> F:
            found = ReactionType(function, self.name, begins)
            self._take(found.name)
            self.reactions[found.name] = found
            return function

        return register if function is None else register(function)

    def view(self, cls: T) -> T:
        """Register a view class."""
        found = ViewType(cls, self.name)
        self._take(found.name)
        self.views[found.name] = found
        return cls

    def get(self, path: str) -> Callable[[F], F]:
        """Register a route whose function returns a `query(View, key)`."""
        return self._route("GET", path)

    def post(self, path: str) -> Callable[[F], F]:
        """Register a route whose function returns the command to run."""
        return self._route("POST", path)

    def put(self, path: str) -> Callable[[F], F]:
        """Register a route whose function returns the command to run."""
        return self._route("PUT", path)

    def patch(self, path: str) -> Callable[[F], F]:
        """Register a route whose function returns the command to run."""
        return self._route("PATCH", path)

    def delete(self, path: str) -> Callable[[F], F]:
        """Register a route whose function returns the command to run."""
        return self._route("DELETE", path)

    def _route(self, method: str, path: str) -> Callable[[F], F]:
        if not path.startswith("/") or not re.fullmatch(r"(/([^{}/]+|\{[a-z_]\w*\}))+", path):
            raise Misuse(f"{self.name}: the route {path!r} is not valid; write it as /fixed/{{parameter}}")

        def register(function: F) -> F:
            shape = re.sub(r"\{\w+\}", "{}", path)
            for route in self.routes:
                if route.method == method and re.sub(r"\{\w+\}", "{}", route.path) == shape:
                    raise Misuse(f"{self.name}: {method} {path} already has the function {route.function.__name__}")
            self.routes.append(DeclaredRoute(method, path, function))
            return function

        return register

    def _take(self, name: str) -> None:
        mine = (self.aggregates, self.handlers, self.effects, self.sagas, self.reactions, self.views)
        if any(name in taken for taken in mine):
            raise Misuse(
                f"{self.name}.{name}: another aggregate, handler, effect, saga, reaction or view already has this name"
            )

    def _decides(self, command: MessageType, by: Decides) -> None:
        if other := self.deciders.get(command.name):
            raise Misuse(f"{self.name}.{by.name}: {other.name} already decides {command.name}")
        self.deciders[command.name] = by

    def check(self) -> None:
        """Check what can only be checked when all is declared. Raises Misuse."""
        for message in self.contract.by_name.values():
            if message.kind == "command" and message.name not in self.deciders:
                raise Misuse(
                    f"{self.name}: nothing decides {message.cls.__name__}: add a @decide method, a handler, an effect"
                    " or a saga"
                )
        self.check_staged({self.name: self})

    def check_staged(self, services: Mapping[str, "Service"]) -> None:
        """Check that aggregates decide the commands of staged sagas, in services that are known. Raises Misuse."""
        for saga in self.sagas.values():
            for step in saga.steps if saga.staged else ():
                for command in step.commands:
                    home = services.get(command.contract)
                    by = home.deciders.get(command.name) if home is not None else None
                    if by is not None and not isinstance(by, AggregateType):
                        raise Misuse(
                            f"{saga.where}.{step.name}: {command.cls.__name__} cannot be staged, because {by.name},"
                            " which decides it, is not an aggregate"
                        )

    def peers(self) -> set[str]:
        """The other services to which this one sends commands or whose events it takes."""
        found = {name for saga in self.sagas.values() for name in saga.contracts}
        return (found | {event.contract for event in self.fed_by()}) - {self.name}

    def fed_by(self) -> list[MessageType]:
        """Every event that a view, reaction or saga of this service is fed with."""
        events = [event for view in self.views.values() for event in view.events.values()]
        events += [event for reaction in self.reactions.values() for event in reaction.events.values()]
        events += [saga.begin for saga in self.sagas.values() if saga.begin.kind == "event"]
        return list(dict.fromkeys(events))
