"""Masking: records, messages, states and plans as `/ops` may show them, every sensitive field replaced by `***`.

A message is masked by the plan of its type, even inside a record of holdfast's own (`MESSAGE_IN`). Values that were
copied from messages (state, facts of a rejection) are masked by name: a name that is sensitive in one message is
sensitive everywhere. A payload of unknown type is hidden whole. Each method takes a value and returns the value of
`core.explain.status`, `core.explain.overview` or `core.explain.plan` that may leave the service. Comes after the store,
before `web.ops` and `web.repairs`. Never raises.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from holdfast.core.audit.cut import NOTHING, Seen
from holdfast.core.declare.message import MASK, Contract, Rejection, encode, masked, masks_of, message_of
from holdfast.core.declare.service import Service
from holdfast.core.declare.state import Shape
from holdfast.core.explain.overview import MessageStatus
from holdfast.core.explain.plan import Plan
from holdfast.core.explain.status import RecordStatus
from holdfast.core.log.record import ANSWERED, BEGUN, REJECTED, Record
from holdfast.core.saga.stage import HELD
from holdfast.runtime.ops.repair import RETRIED

MESSAGE_IN = {BEGUN: "message", ANSWERED: "answer", HELD: "event", RETRIED: "data"}
"""Stored types of records that hold a message -> the field that it is in; the field `type` says of which type it is."""
_ANY = msgspec.json.Decoder()


class Masking:
    """The sensitive fields of one service."""

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
        """Stored type -> whether its payload may have sensitive fields."""

    def record(self, log: str, record: Record) -> RecordStatus:
        """A record of a log, masked."""
        return RecordStatus.of(log, record, self._payload(record.type, record.data))

    def kept(self, message: Any) -> MessageStatus:
        """A message or a rejection as a saga keeps it, masked."""
        stored = REJECTED if isinstance(message, Rejection) else message_of(message).stored
        value = msgspec.to_builtins(message, str_keys=True)
        return MessageStatus(stored, self._message(stored, value))

    def rejection(self, rejection: Rejection) -> Rejection:
        """A rejection with its facts masked."""
        facts = msgspec.to_builtins(rejection.facts, str_keys=True)
        return msgspec.structs.replace(rejection, facts=self._by_name(facts))

    def plan(self, plan: Plan) -> Plan:
        """A plan; the answer that another service would get is masked."""
        if plan.answer is None:
            return plan
        value = self._message(plan.answer.type, msgspec.json.decode(plan.answer.data))
        answer = msgspec.structs.replace(plan.answer, data=msgspec.Raw(encode(value)))
        return msgspec.structs.replace(plan, answer=answer)

    def brief(self, record: Seen) -> Seen:
        """A record as an audit sees it, masked; its payload is unchanged if nothing in it is sensitive."""
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

    def _message(self, stored: str, value: Any) -> Any:
        """A message as plain values, masked by its type."""
        if stored == REJECTED:
            return self._by_name(value)
        contract = self._contracts.get(stored.partition(".")[0])
        found = contract.find(stored) if contract is not None else None
        if found is None:
            return MASK
        message, upcasts = found
        # An older version may have had other sensitive fields, so names decide as well.
        return masked(message.masks, self._by_name(value) if upcasts else value)

    def _by_name(self, value: Any) -> Any:
        """Plain values, masked by the names of their fields."""
        if isinstance(value, Mapping):
            rows = cast(Mapping[str, Any], value)
            return {key: MASK if key in self._names else self._by_name(item) for key, item in rows.items()}
        if isinstance(value, list | tuple):
            return [self._by_name(item) for item in cast(list[Any], value)]
        return value

    def state(self, shape: Shape, instance: Any) -> Any:
        """The fields of an aggregate or a view as plain values, masked."""
        if id(shape) not in self._shapes:
            self._shapes[id(shape)] = masks_of(shape.struct)
        return masked(self._shapes[id(shape)], self._by_name(_ANY.decode(shape.encode(instance))))

    def _payload(self, stored: str, data: bytes) -> Any:
        try:
            value = _ANY.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return MASK
        if not stored.startswith("holdfast."):
            return self._message(stored, value)
        field = MESSAGE_IN.get(stored, "")
        if isinstance(value, dict) and field in value:
            body = cast(dict[str, Any], value)
            return body | {field: self._message(str(body.get("type", "")), body[field])}
        return self._by_name(value)


def _collect(plan: Any, names: set[str]) -> None:
    if isinstance(plan, dict):
        for name, below in cast(dict[str, Any], plan).items():
            if below is True and name not in ("*", "[]"):
                names.add(name)
            _collect(below, names)
