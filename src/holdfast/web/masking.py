"""Masking: records and states as `/ops` may show them, every sensitive field replaced by `***`.

A message is masked by its type's own plan, also where a saga keeps it inside a record of its own. What holds values
of messages without being one (state, facts of a rejection) is masked by name: a name that is sensitive in one message
is so everywhere. A payload of unknown type is hidden whole. Comes after the store, before `web.ops`.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from holdfast.core.audit.cut import NOTHING, Seen
from holdfast.core.declare.message import MASK, Contract, encode, masked, masks_of
from holdfast.core.declare.service import Service
from holdfast.core.declare.state import Shape
from holdfast.core.log.record import REJECTED, Record, record_id

SAGA = "holdfast.saga."
_ANY = msgspec.json.Decoder()


class Masking:
    """What is sensitive to one service."""

    def __init__(self, service: Service) -> None:
        self._contracts: dict[str, Contract] = {service.contract.name: service.contract}
        for saga in service.sagas.values():
            self._contracts.update(saga.contracts)
        self._contracts.update({message.contract: message.home for message in service.fed_by()})
        self._names: set[str] = set()
        for contract in self._contracts.values():
            for message in contract.by_name.values():
                _collect(message.masks, self._names)
        self._shapes: dict[int, Any] = {}
        self._sensitive: dict[str, bool] = {}
        """Stored type -> whether a payload of it has to be looked into."""

    def record(self, log: str, record: Record) -> dict[str, Any]:
        """A record as plain values, masked."""
        return {
            "id": record_id(log, record.position), "position": record.position, "kind": record.kind,
            "type": record.type, "data": self._payload(record.type, record.data), "tx": record.tx,
            "cause": record.cause, "at": record.at, "correlation": record.correlation, "stream": record.stream,
            "version": record.version, "destination": record.destination,
            "headers": msgspec.to_builtins(record.headers),
        }  # fmt: skip

    def brief(self, record: Seen) -> Seen:
        """A record as an audit sees it, masked; its payload untouched where nothing in it is sensitive."""
        if record.data is NOTHING or not self._is_sensitive(record.type):
            return record
        return msgspec.structs.replace(record, data=msgspec.Raw(encode(self._payload(record.type, bytes(record.data)))))

    def _is_sensitive(self, stored: str) -> bool:
        if stored not in self._sensitive:
            contract = self._contracts.get(stored.partition(".")[0])
            found = contract.find(stored) if contract is not None else None
            plain = found is not None and not found[0].masks and not (found[1] and self._names)
            self._sensitive[stored] = not plain and bool(self._names or not stored.startswith("holdfast."))
        return self._sensitive[stored]

    def message(self, stored: str, value: Any) -> Any:
        """A message as plain values, masked by its type."""
        if stored == REJECTED:
            return self.by_name(value)
        contract = self._contracts.get(stored.partition(".")[0])
        found = contract.find(stored) if contract is not None else None
        if found is None:
            return MASK
        message, upcasts = found
        # An older version may have had its sensitive fields elsewhere: then names decide as well.
        return masked(message.masks, self.by_name(value) if upcasts else value)

    def by_name(self, value: Any) -> Any:
        """Plain values, masked by the names of their fields."""
        if isinstance(value, Mapping):
            rows = cast(Mapping[str, Any], value)
            return {key: MASK if key in self._names else self.by_name(item) for key, item in rows.items()}
        if isinstance(value, list | tuple):
            return [self.by_name(item) for item in cast(list[Any], value)]
        return value

    def state(self, shape: Shape, instance: Any) -> Any:
        """The fields of an aggregate or a view as plain values, masked."""
        if id(shape) not in self._shapes:
            self._shapes[id(shape)] = masks_of(shape.struct)
        return masked(self._shapes[id(shape)], self.by_name(_ANY.decode(shape.encode(instance))))

    def _payload(self, stored: str, data: bytes) -> Any:
        try:
            value = _ANY.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return MASK
        if not stored.startswith("holdfast."):
            return self.message(stored, value)
        if stored in (SAGA + "begun", SAGA + "answered") and isinstance(value, dict):
            body = cast(dict[str, Any], value)
            part = "message" if "message" in body else "answer"
            return body | {part: self.message(str(body.get("type", "")), body.get(part))}
        return self.by_name(value)


def _collect(plan: Any, names: set[str]) -> None:
    if isinstance(plan, dict):
        for name, below in cast(dict[str, Any], plan).items():
            if below is True and name not in ("*", "[]"):
                names.add(name)
            _collect(below, names)
