"""State of plain classes: the annotated fields of an aggregate, a view or a saga, made, encoded and decoded.

Users' classes stay plain: no base class, no metaclass. A `Shape` reads the annotations once and knows how to make a
fresh instance (mutable defaults copied), how to turn one into JSON and back, and the fingerprint of its fields.
"""

import copy
import hashlib
import typing
from typing import Any

import msgspec

from holdfast.errors import Misuse


def members(cls: type[Any]) -> dict[str, Any]:
    """The members of a class by name, inherited ones first, in the order they are written; overrides replace them."""
    return {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}


def hints_of(cls: type[Any], where: str) -> dict[str, Any]:
    """The annotated fields of a class, inherited ones first, without class variables. Raises Misuse."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise Misuse(f"{where}: an annotation cannot be resolved: {error}") from None
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def check_storable(cls: type[Any], where: str) -> None:
    """Raise Misuse for a field of a type that JSON cannot bring back as it was."""
    for field in msgspec.structs.fields(cls):
        odd = _unstorable(msgspec.inspect.type_info(field.type), ())
        if odd is not None:
            name = getattr(odd, "__name__", odd)
            raise Misuse(f"{where}.{field.name}: a {name} cannot be stored; use values, tuples and structs of them")


def _unstorable(info: Any, seen: tuple[Any, ...]) -> Any:
    """The first class in a type that msgspec cannot encode, or None."""
    if isinstance(info, msgspec.inspect.CustomType | msgspec.inspect.ExtType):
        return getattr(info, "cls", info)
    cls = getattr(info, "cls", None)
    if cls is not None and cls in seen:
        return None
    parts = [getattr(info, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    parts += [part for name in ("types", "item_types") for part in getattr(info, name, ())]
    parts += [field.type for field in getattr(info, "fields", ())]
    inner = (*seen, cls) if cls is not None else seen
    found = (_unstorable(part, inner) for part in parts if isinstance(part, msgspec.inspect.Type))
    return next((odd for odd in found if odd is not None), None)


ATOMS = (int, str, float, bool, bytes, type(None))
"""Values of these need no copy."""


class Shape:
    """The fields of one plain class, each with a type and a default."""

    def __init__(self, cls: type[Any], where: str, *, defaults: bool = True) -> None:
        self.cls = cls
        self.fields: dict[str, Any] = hints_of(cls, where)
        if defaults and (bare := [name for name in self.fields if not hasattr(cls, name)]):
            raise Misuse(
                f"{where}.{bare[0]}: give the field a default; the defaults are the state before the first event"
            )
        try:
            self.struct = msgspec.defstruct(
                cls.__name__, [(name, hint, msgspec.field(default=None)) for name, hint in self.fields.items()]
            )
            """The fields as a struct: it gives their JSON, their schema and their sensitive parts."""
            self._decoder = msgspec.json.Decoder(self.struct)
        except TypeError as error:
            raise Misuse(f"{where}: a field has a type that cannot be stored: {error}") from None
        if defaults:
            check_storable(self.struct, where)
        self._copied = {
            name: getattr(cls, name) for name in self.fields if isinstance(getattr(cls, name, None), dict | list | set)
        }
        text = ",".join(f"{name}:{hint!r}" for name, hint in self.fields.items())
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def new(self) -> Any:
        """A fresh instance with its own copies of mutable defaults."""
        made = self.cls()
        for name, default in self._copied.items():
            setattr(made, name, copy.deepcopy(default) if default else type(default)())
        return made

    def copied(self, instance: Any) -> Any:
        """A deep copy of an instance; only its fields are copied."""
        made = self.cls()
        for name in self.fields:
            value = getattr(instance, name)
            setattr(made, name, value if type(value) in ATOMS else copy.deepcopy(value))
        return made

    def values(self, instance: Any) -> dict[str, Any]:
        """The fields of an instance, by name."""
        return {name: getattr(instance, name) for name in self.fields}

    def encode(self, instance: Any) -> bytes:
        """The fields of an instance as UTF-8 JSON."""
        return msgspec.json.encode(self.values(instance))

    def decode(self, data: bytes) -> Any:
        """The instance that `encode` made these bytes of. Raises msgspec.DecodeError if they have another shape."""
        found = self._decoder.decode(data)
        made = self.cls()
        for name in self.fields:
            setattr(made, name, getattr(found, name))
        return made
