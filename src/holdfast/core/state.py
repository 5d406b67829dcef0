"""State of plain classes: the annotated fields of an aggregate, a view or a saga, made anew, frozen and brought back.

Users' classes stay plain: no base class, no metaclass. A `Shape` reads the annotations once and knows how to make a
fresh instance (mutable defaults copied), how to turn one into JSON and back, and the fingerprint of its fields.
"""

import copy
import hashlib
import typing
from typing import Any

import msgspec

from holdfast.errors import Misuse


class Shape:
    """The fields of one plain class, each with a type and a default."""

    def __init__(self, cls: type[Any], where: str, *, defaults: bool = True) -> None:
        self.cls = cls
        self.fields: dict[str, Any] = {
            name: hint
            for name, hint in typing.get_type_hints(cls, include_extras=True).items()
            if typing.get_origin(hint) is not typing.ClassVar
        }
        if defaults and (bare := [name for name in self.fields if not hasattr(cls, name)]):
            raise Misuse(f"{where}.{bare[0]}: give the field a default: it is the state before anything has happened")
        try:
            self.struct = msgspec.defstruct(
                cls.__name__, [(name, hint, msgspec.field(default=None)) for name, hint in self.fields.items()]
            )
            """The fields as a struct: for their JSON, their schema and what is sensitive in them."""
            self._decoder = msgspec.json.Decoder(self.struct)
        except TypeError as error:
            raise Misuse(f"{where}: a field has a type that cannot be stored: {error}") from None
        self._copied = {
            name: getattr(cls, name) for name in self.fields if isinstance(getattr(cls, name, None), dict | list | set)
        }
        text = ",".join(f"{name}:{hint!r}" for name, hint in self.fields.items())
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def new(self) -> Any:
        """A fresh instance, its mutable defaults its own."""
        made = self.cls()
        for name, default in self._copied.items():
            setattr(made, name, copy.deepcopy(default) if default else type(default)())
        return made

    def values(self, instance: Any) -> dict[str, Any]:
        """The fields of an instance, by name."""
        return {name: getattr(instance, name) for name in self.fields}

    def encode(self, instance: Any) -> bytes:
        """The fields of an instance as UTF-8 JSON."""
        return msgspec.json.encode(self.values(instance))

    def decode(self, data: bytes) -> Any:
        """The instance that `encode` made these bytes of. Raises msgspec.DecodeError when they are of another shape."""
        found = self._decoder.decode(data)
        made = self.cls()
        for name in self.fields:
            setattr(made, name, getattr(found, name))
        return made
