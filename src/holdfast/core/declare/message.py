"""Messages and contracts: the messages that services may send to each other, and the names they are stored under.

A contract is the only thing other services import. Events and commands are frozen msgspec structs; the decorators of a
`Contract` give each a stored name and version of its own, never a class path. Comes before everything that decides;
fails with `Misuse` when a declaration cannot work and with `Invalid` (exact path) when bytes do not fit a type.
"""

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, cast, dataclass_transform, overload

import msgspec

from holdfast.core.declare.state import check_storable
from holdfast.core.log.key import join_key
from holdfast.errors import CommandFailed, Invalid, Misuse

HOPS_MAX = 32
"""How many reactions and sagas one chain may begin; at the limit the message is parked, never dropped."""

A = TypeVar("A")
T = TypeVar("T")
E = TypeVar("E", bound="type[Event]")
C = TypeVar("C", bound="type[Command[Any]]")

REGISTRATION = "__holdfast__"
_SENSITIVE = "holdfast-sensitive"
Sensitive = Annotated[T, msgspec.Meta(extra={_SENSITIVE: True})]
"""`card_number: Sensitive[str]`: stored as it is, but masked in trails, in logs and in all answers to operators."""
MASK = "***"


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True):
    """Something that happened; subclass it and register it with `@contract.event`. Unknown fields are ignored."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, Generic[A], frozen=True, forbid_unknown_fields=True):
    """A request to change something; `Command[Reserved]` names the event that answers it. Unknown fields are
    refused."""


class Rejection(msgspec.Struct, frozen=True):
    """A rejection as data: a `partial` step hands it on in the place of an event."""

    code: str
    message: str = ""
    facts: Mapping[str, Any] = {}


class Context(msgspec.Struct, frozen=True):
    """What a handler may know beside its message; all of it is recorded, so that a replay gives the same result."""

    at_us: int
    """Microseconds since 1970-01-01 UTC at which the message is handled."""
    message_id: str
    """`service@position`, or the transaction's id for a command from the edge."""
    key: str
    correlation_id: str
    transaction_id: str

    @property
    def at(self) -> datetime:
        """The same time as an aware datetime."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.at_us)


Upcast = Callable[[dict[str, Any]], dict[str, Any]]


class MessageType:
    """A message as its contract registered it: names, codec, key, and what is sensitive in it."""

    def __init__(
        self,
        home: "Contract",
        kind: Literal["event", "command"],
        cls: type[Any],
        name: str,
        version: int,
        key: tuple[str, ...],
        upcasts: Mapping[int, Upcast],
    ) -> None:
        self.home = home
        self.contract = home.name
        self.kind: Literal["event", "command"] = kind
        self.cls = cls
        self.name = name
        self.version = version
        self.key_fields = key
        self.upcasts = dict(upcasts)
        self.full_name = f"{home.name}.{name}"
        """The stored name without its version."""
        self.stored = f"{self.full_name}.v{version}"
        self.stored_all = tuple(f"{self.full_name}.v{one}" for one in range(1, version + 1))
        """Every name that it is or was stored under: a consumer also needs the records of earlier versions."""
        self.answers: tuple[type[Any], ...] = _answers_of(cls) if kind == "command" else ()
        self.masks = masks_of(cls)
        self._decoder = msgspec.json.Decoder(cls)

    def decode(self, data: bytes) -> Any:
        """The message in `data` (UTF-8 JSON). Raises Invalid which names the path that does not fit."""
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid(error, self.name) from None

    def key_of(self, message: Any) -> str:
        """The key of a command: its key fields joined with `/`, each escaped. Raises Invalid when a part is empty."""
        return join_key((getattr(message, field) for field in self.key_fields), self.name)


_encoder = msgspec.json.Encoder()
encode: Callable[[Any], bytes] = _encoder.encode
"""A message or any plain value as UTF-8 JSON."""


_AT = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>key in )?`(?P<path>[^`]*)`)?$", re.DOTALL)


def invalid(error: Exception, what: str) -> Invalid:
    """An Invalid from a msgspec error, with the path it names taken apart."""
    if isinstance(error, RecursionError):
        return Invalid(f"{what}: nested too deeply", errors=[("$", "nested too deeply")])
    match = _AT.match(str(error))
    reason, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    return Invalid(f"{what}: {reason} at {path}", errors=[(path, reason)])


_VERSION = re.compile(r"[0-9]{1,6}")
NEWER_KEPT_MAX, NEWER_CHARACTERS_MAX = 1_000, 4_000
"""How many answers to readers are cached."""


class Contract:
    """The public part of one service: its events and commands, by name.

    `pin` names a JSON file that holds the stored names and schemas as they were released; `check-config` and the
    build of a service compare with it, so that no change slips into stored data unseen.
    """

    def __init__(self, name: str, *, pin: Path | None = None) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name):
            raise Misuse(
                f"contract name {name!r} is not valid; use lower-case letters, digits, - and _, beginning with a letter"
            )
        self.name = name
        self.pin = pin
        self.by_name: dict[str, MessageType] = {}
        self.by_type: dict[str, MessageType] = {}
        self._newer: dict[tuple[str, ...], tuple[str, ...]] = {}
        """A cache, types -> `with_newer` of them: a few readers ask the same again and again."""

    @overload
    def event(self, cls: E, /) -> E: ...
    @overload
    def event(
        self, /, *, name: str = "", version: int = 1, upcasts: Mapping[int, Upcast] = ...
    ) -> Callable[[E], E]: ...
    def event(
        self, cls: Any = None, /, *, name: str = "", version: int = 1, upcasts: Mapping[int, Upcast] | None = None
    ) -> Any:
        """Register an event. `upcasts={1: f}`: f turns the JSON object of version 1 into one of version 2."""
        if cls is not None:
            return self._register("event", cls, name, version, (), upcasts or {})
        return partial(self._register, "event", name=name, version=version, key=(), upcasts=upcasts or {})

    @overload
    def command(self, cls: C, /) -> C: ...
    @overload
    def command(
        self, /, *, key: str | Sequence[str] = (), name: str = "", version: int = 1, upcasts: Mapping[int, Upcast] = ...
    ) -> Callable[[C], C]: ...
    def command(
        self,
        cls: Any = None,
        /,
        *,
        key: str | Sequence[str] = (),
        name: str = "",
        version: int = 1,
        upcasts: Mapping[int, Upcast] | None = None,
    ) -> Any:
        """Register a command. `key` names the field, or fields, that identify its aggregate."""
        fields = (key,) if isinstance(key, str) else tuple(key)
        if cls is not None:
            return self._register("command", cls, name, version, fields, upcasts or {})
        return partial(self._register, "command", name=name, version=version, key=fields, upcasts=upcasts or {})

    def _register(
        self,
        kind: Literal["event", "command"],
        cls: type[Any],
        name: str,
        version: int,
        key: tuple[str, ...],
        upcasts: Mapping[int, Upcast],
    ) -> type[Any]:
        where = f"{self.name}.{cls.__name__}"
        base: type[Any] = Event if kind == "event" else Command
        if not issubclass(cls, base):
            raise Misuse(f"{where}: the class must inherit from holdfast.{base.__name__}")
        name = name or _snake(cls.__name__)
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
            raise Misuse(f"{where}: the name {name!r} must be lower-case letters, digits and _")
        if name in self.by_name:
            raise Misuse(f"{where}: the name {name!r} already belongs to {self.by_name[name].cls.__name__}")
        if missing := set(range(1, version)) - set(upcasts):
            raise Misuse(f"{where}: version {version} needs upcasts for the versions {sorted(missing)}")
        fields = {field.name: field.encode_name for field in msgspec.structs.fields(cls)}
        if unknown := [field for field in key if field not in fields]:
            raise Misuse(f"{where}: the key names {unknown[0]!r}, which is not a field of the class")
        _check_immutable(cls, where)
        check_storable(cls, where)
        message = MessageType(self, kind, cls, name, version, key, upcasts)
        if kind == "command" and not message.answers:
            raise Misuse(f"{where}: name the event that answers it: class {cls.__name__}(Command[SomeEvent])")
        self.by_name[name] = self.by_type[message.stored] = message
        self._newer.clear()
        setattr(cls, REGISTRATION, message)
        return cls

    def find(self, stored: str) -> tuple[MessageType, tuple[Upcast, ...]] | None:
        """The type stored under that name, with the upcasts to apply to its payload, or None."""
        if message := self.by_type.get(stored):
            return message, ()
        message, version = self._versioned(stored)
        if message is None or not 0 < version < message.version:
            return None
        return message, tuple(message.upcasts[step] for step in range(version, message.version))

    def _versioned(self, stored: str) -> tuple[MessageType | None, int]:
        """The message with that name in any version, and the version; None and 0 if there is none."""
        prefix, _, version = stored.rpartition(".v")
        if not _VERSION.fullmatch(version) or not prefix.startswith(self.name + "."):
            return None, 0
        return self.by_name.get(prefix[len(self.name) + 1 :]), int(version)

    def with_newer(self, types: Sequence[str]) -> tuple[str, ...]:
        """These stored types, and the later versions of the same messages that this process knows: a reader that asks
        by the versions it knows must receive a newer one, not miss it."""
        asked = tuple(types)
        if (known := self._newer.get(asked)) is not None:
            return known
        found = dict.fromkeys(asked)
        for stored in asked:
            message, version = self._versioned(stored)
            if message is not None:
                found.update(dict.fromkeys(message.stored_all[version:]))
        if sum(map(len, asked)) <= NEWER_CHARACTERS_MAX:  # any caller may ask for any types
            if len(self._newer) >= NEWER_KEPT_MAX:
                self._newer.clear()
            self._newer[asked] = tuple(found)
        return tuple(found)

    def schemas(self) -> dict[str, Any]:
        """Stored name -> JSON schema of every message: what a pin file contains."""
        found: dict[str, Any] = {}
        for stored, message in sorted(self.by_type.items()):
            schemas, components = msgspec.json.schema_components([message.cls])
            found[stored] = {"schema": schemas[0], "components": components, "key": list(message.key_fields)}
        return found


def message_type(cls: type[Any]) -> MessageType:
    """The registration of a message class. Raises Misuse if it has none."""
    found = cls.__dict__.get(REGISTRATION)
    if not isinstance(found, MessageType):
        raise Misuse(f"{cls.__name__} is not registered: decorate it with @contract.event or @contract.command")
    return found


def message_of(message: object) -> MessageType:
    """The registration of a message's class. Raises Misuse when it has none."""
    cls = type(message)
    found = cls.__dict__.get(REGISTRATION)
    return found if type(found) is MessageType else message_type(cls)


def decode_stored(contract: Contract, stored: str, data: bytes) -> Any:
    """The message stored under that type, brought up to the version known here. Raises Invalid."""
    found = contract.find(stored)
    if found is None:
        raise Invalid(f"{stored} is not a message of the contract {contract.name!r}", errors=[("$", "unknown type")])
    message, upcasts = found
    if not upcasts:
        return message.decode(data)
    try:
        value = msgspec.json.decode(data)
        for upcast in upcasts:
            value = upcast(value)
        return msgspec.convert(value, message.cls)
    except Exception as error:  # noqa: BLE001 - whatever an upcast raises means that the message does not fit
        raise invalid(error, stored) from None


def masked(masks: Any, value: Any) -> Any:
    """A copy of a decoded JSON value with every sensitive field replaced by `***`."""
    if masks is True:
        return MASK
    if isinstance(value, dict) and isinstance(masks, dict):
        rows, plan = cast(dict[str, Any], value), cast(dict[str, Any], masks)
        every = plan.get("*")
        return {key: masked(plan[key], item) if key in plan else masked(every, item) for key, item in rows.items()}
    if isinstance(value, list) and isinstance(masks, dict):
        return [masked(cast(dict[str, Any], masks).get("[]"), item) for item in cast(list[Any], value)]
    return cast(Any, value)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _answers_of(cls: type[Any]) -> tuple[type[Any], ...]:
    for base in getattr(cls, "__orig_bases__", ()):
        if typing.get_origin(base) is Command:
            (answer,) = typing.get_args(base)
            if typing.get_origin(answer) in (typing.Union, UnionType):
                return typing.get_args(answer)
            return (answer,) if isinstance(answer, type) else ()
    return ()


_MUTABLE = {list: "tuple[..., ...]", dict: "collections.abc.Mapping", set: "frozenset", bytearray: "bytes"}


def _check_immutable(cls: type[Any], where: str) -> None:
    for name, hint in typing.get_type_hints(cls).items():
        if typing.get_origin(hint) is not typing.ClassVar:
            _check_hint(hint, f"{where}.{name}")


def _check_hint(hint: Any, where: str) -> None:
    origin = typing.get_origin(hint) or hint
    if origin in _MUTABLE:
        raise Misuse(f"{where}: messages are immutable; use {_MUTABLE[origin]} in the place of {origin.__name__}")
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct) and origin not in (Event, Command):
        if not origin.__struct_config__.frozen:
            raise Misuse(f"{where}: messages are immutable; declare {origin.__name__} with frozen=True")
        if not issubclass(origin, Event | Command):
            _check_immutable(origin, where)
    for part in typing.get_args(hint):
        if not isinstance(part, str | int | msgspec.Meta):
            _check_hint(part, where)


def masks_of(cls: type[Any]) -> Any:
    """The sensitive fields of a class as a plan for `masked`, or None."""
    return _mask_plan(msgspec.inspect.type_info(cls), ())


def _mask_plan(info: Any, seen: tuple[type[Any], ...]) -> Any:
    kind = msgspec.inspect
    if isinstance(info, kind.Metadata):
        return (
            True if cast(dict[str, Any], cast(Any, info).extra or {}).get(_SENSITIVE) else _mask_plan(info.type, seen)
        )
    if isinstance(info, kind.StructType):
        if info.cls in seen:
            return None
        plans = {field.encode_name: _mask_plan(field.type, (*seen, info.cls)) for field in info.fields}
        return {name: plan for name, plan in plans.items() if plan} or None
    if isinstance(info, kind.VarTupleType | kind.FrozenSetType):
        plan = _mask_plan(info.item_type, seen)
        return {"[]": plan} if plan else None
    if isinstance(info, kind.DictType):
        plan = _mask_plan(info.value_type, seen)
        return {"*": plan} if plan else None
    if isinstance(info, kind.UnionType):
        return next((plan for plan in (_mask_plan(part, seen) for part in info.types) if plan), None)
    return None


def as_commands(found: Any, where: str) -> tuple[Command[Any], ...]:
    """The commands that a step or reaction returned, as a tuple of registered commands; None means no commands."""
    if found is None:
        return ()
    commands: tuple[Any, ...] = tuple(cast(list[Any], found)) if isinstance(found, tuple | list) else (found,)
    for command in commands:
        if not isinstance(command, Command) or REGISTRATION not in vars(cast(Any, type)(command)):
            raise CommandFailed(f"{where} must return commands of a contract; it returned {command!r:.200}")
    return commands
