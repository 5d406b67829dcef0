"""Repair: finds a message or a saga, and has it repaired, by asking the services over HTTP.

`gather_targets` finds what is to be repaired, `repair` carries one repair out or asks for its plan. Comes after
`operator.lists`; before `operator.judge`, which judges the results, and the verbs, which show them. A refusal
is a result, with the reason. Fails with `HoldfastError` if no service has a target.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from holdfast.config import Settings
from holdfast.core.explain.overview import ListedSaga, ListedWaiting, LogPage, RecordList, WaitingList
from holdfast.core.explain.plan import AnswerGiven, Plan, RepairResult
from holdfast.core.log.record import parse_record_id
from holdfast.errors import HoldfastError
from holdfast.operator.client import get, post
from holdfast.operator.lists import chosen, gather_items


class RepairTarget(msgspec.Struct, frozen=True):
    """What to repair, and in which service."""

    service: str
    name: str
    """A message (`service@position`) or a saga (`Type/id`)."""
    stream: str = ""
    """The stream on which a message waits."""


class RepairOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `POST /ops/repairs` is asked to do."""

    kind: Literal["retry", "skip", "undo", "resolve"]
    by: str
    why: str
    target: str = ""
    stream: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    decision: str = ""
    tx: str = ""
    """The id of a staged transaction."""
    dry_run: bool = False


class RefusedRepair(msgspec.Struct, frozen=True):
    """A repair that a service refused, or about which it did not answer."""

    service: str
    target: str
    how: Literal["refused"]
    note: str


class Untold(msgspec.Struct, frozen=True):
    """Why it is unknown what a service would do with an answer."""

    service: str
    does: tuple[str, ...]


class Judgement(msgspec.Struct, frozen=True):
    """What the invariants say of a transaction. Every field is empty if a repair changes nothing."""

    hold: tuple[str, ...] | None = None
    breaks: tuple[str, ...] = ()
    """Violations, in sentences."""
    unknown: tuple[str, ...] = ()
    """Why it cannot be judged, in sentences."""

    def as_value(self) -> dict[str, Any]:
        """As plain values."""
        if self.unknown:
            return {"unknown": list(self.unknown)}
        return {} if self.hold is None else {"hold": list(self.hold), "break": list(self.breaks)}


class RepairOutcome(msgspec.Struct, frozen=True):
    """The result of one repair, or its plan."""

    said: Plan | RepairResult | RefusedRepair
    then: Plan | Untold | None = None
    """What the service that gets the answer would do with it."""
    judgement: Judgement | None = None
    """None if no invariants are judged."""

    @property
    def refused(self) -> bool:
        """True if it was not carried out."""
        return self.said.how == "refused"

    def as_value(self) -> dict[str, Any]:
        """As plain values: what the service said, with the plan of the answer and the judgement."""
        value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self.said))
        if self.then is not None:
            value["then"] = msgspec.json.decode(msgspec.json.encode(self.then))
        if self.judgement is not None:
            value["invariants"] = self.judgement.as_value()
        return value


def gather_targets(
    urls: Mapping[str, str], settings: Settings, lists: Sequence[str], filters: Mapping[str, Any], service: str
) -> tuple[list[RepairTarget], dict[str, str]]:
    """(every item of the lists, why by silent service). Raises ConfigInvalid."""
    found: list[RepairTarget] = []
    silent: dict[str, str] = {}
    for name in lists:
        listed = gather_items(urls, settings, name, filters, service)
        found += [_target(item) for item in listed.items]
        silent |= listed.silent
    return found, silent


def _target(item: ListedSaga | ListedWaiting) -> RepairTarget:
    return RepairTarget(item.service, item.target, item.stream if isinstance(item, ListedWaiting) else "")


def locate(
    urls: Mapping[str, str], settings: Settings, name: str, *, service: str = "", stream: str = ""
) -> list[RepairTarget]:
    """Every place where a message or a saga is: an event waits at each consumer that failed. Raises HoldfastError."""
    there = chosen(urls, service)
    silent: dict[str, str] = {}
    found: list[RepairTarget] = []
    for who, where in there.items():
        try:
            if "/" in name:
                if get(where, "/ops/trail", {"stream": name, "limit": 1}, settings, RecordList).records:
                    found.append(RepairTarget(who, name))
            else:
                query = {"message": name, "stream": stream, "all": 1}
                waiting = get(where, "/ops/parked", query, settings, WaitingList)
                found += [RepairTarget(who, name, message.stream) for message in waiting.items]
        except HoldfastError as error:
            silent[who] = str(error)
    if found:
        return found
    if not silent and (receiver := _receiver(there, settings, name)):
        return [RepairTarget(receiver, name)]
    more = f"; no answer from {', '.join(silent)}" if silent else ""
    raise HoldfastError(f"no service has {name[:200]} waiting, and none has a saga of that name{more}")


def _receiver(urls: Mapping[str, str], settings: Settings, name: str) -> str:
    """The service that a message was sent to, by its record: if it does not wait there, it is decided."""
    parsed = parse_record_id(name)
    if parsed is None or parsed[0] not in urls or parsed[1] < 1:
        return ""
    query = {"after": parsed[1] - 1, "limit": 1}
    records = get(urls[parsed[0]], "/ops/log", query, settings, LogPage).records
    to = records[0].destination if records and records[0].id == name else ""
    return to if to in urls else ""


def repair(urls: Mapping[str, str], settings: Settings, target: RepairTarget, order: RepairOrder) -> RepairOutcome:
    """Carry out a repair of one target, or get its plan. Never raises: a refusal is a result."""
    asked = msgspec.structs.replace(order, target=target.name, stream=target.stream)
    try:
        if not order.dry_run:
            return RepairOutcome(post(urls[target.service], "/ops/repairs", asked, settings, RepairResult))
        plan = post(urls[target.service], "/ops/repairs", asked, settings, Plan)
    except HoldfastError as error:
        return RepairOutcome(RefusedRepair(target.service, target.name, "refused", str(error)))
    return RepairOutcome(plan, _then(urls, settings, plan.answer) if plan.answer is not None else None)


def _then(urls: Mapping[str, str], settings: Settings, answer: AnswerGiven) -> Plan | Untold:
    """What the service that gets the answer would do with it, or why that is unknown."""
    if answer.service not in urls:
        return Untold(answer.service, (f"{answer.service} is not among the services asked",))
    try:
        return post(urls[answer.service], "/ops/plans", answer, settings, Plan)
    except HoldfastError as error:
        return Untold(answer.service, (str(error),))
