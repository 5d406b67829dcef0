"""Judging repairs: which invariants would hold or break after one, and whether they hold once it is done.

Before: what would follow is simulated on copies (`runtime.ops.simulate`), from records asked of the services, and
the transaction is judged as it would be. Afterwards it is judged as it is. Invariants that fold over all transactions
are judged too if the logs are short enough to be read whole. Comes after `operator.repair`, before `cli.repairs`. It
says so if a judgement is not possible.
"""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.config import Settings
from holdfast.core.audit.audit import Audit
from holdfast.core.audit.cut import seen
from holdfast.core.audit.invariant import Violation
from holdfast.core.audit.settled import Open
from holdfast.core.explain.overview import LogPage, ProgressStatus, RecordList
from holdfast.core.explain.plan import Plan, RepairResult
from holdfast.core.explain.story import tell, trail_of
from holdfast.core.log.record import BEGUN, Record, parse_record_id
from holdfast.core.system import System
from holdfast.core.wire.frame import to_wire
from holdfast.errors import HoldfastError, NotFound
from holdfast.operator.audit import HttpAudit
from holdfast.operator.client import get
from holdfast.operator.repair import Judgement, RepairOrder, RepairOutcome
from holdfast.operator.why import gather
from holdfast.runtime.ops.simulate import Simulation

FOLDED_RECORDS_MAX = 100_000
"""The most records for which all logs are read whole, to judge invariants that fold over all transactions."""
SETTLE_SECONDS = 10.0


class RepairJudge:
    """Judges repairs of a system by its invariants."""

    def __init__(self, system: System, urls: Mapping[str, str], settings: Settings) -> None:
        self._system, self._urls, self._settings = system, urls, settings
        self._streams: dict[tuple[str, str], list[Record]] = {}

    def judged_before(self, result: RepairOutcome, order: RepairOrder) -> RepairOutcome:
        """A plan, with what the invariants would say after it. Never raises: an unknown is part of the judgement."""
        plan = result.said
        if not isinstance(plan, Plan):
            return result
        judgement = Judgement() if plan.how != "apply" else self._simulated(plan, order)
        return msgspec.structs.replace(result, judgement=judgement)

    def _simulated(self, plan: Plan, order: RepairOrder) -> Judgement:
        try:
            rest = Simulation(self._system, self._read, int(time.time() * 1e6))
            tx = self._play(rest, plan, order)
            known = self._records(tx)
            begun = [(name, record.stream) for name, record in known if record.type == BEGUN]
            if unknown := [*rest.unknown, *rest.open_sagas(begun)]:
                return Judgement(unknown=tuple(unknown))
            return self._judgement(self._what_if(tx, [*known, *rest.records]))
        except HoldfastError as error:
            return Judgement(unknown=(str(error),))

    def _play(self, rest: Simulation, plan: Plan, order: RepairOrder) -> str:
        """Simulate the repair and what follows; the transaction that it belongs to."""
        service, target, answer = plan.service, plan.target, plan.answer
        if "/" in target:
            verb: Any = order.decision if order.kind == "resolve" else order.kind
            rest.repair(service, target, verb, order.by, order.why)
            return self._read(service, target)[0].tx
        producer, record = self._message(target)
        if record.kind == "event":
            rest.unknown.append("what follows when a consumer takes an event that it failed at")
        elif order.kind == "retry" and answer is None:
            rest.unknown.append("; ".join(plan.does))
        elif order.kind == "retry":
            data = record.data if order.data is msgspec.UNSET else bytes(order.data)
            rest.message(service, producer, to_wire(msgspec.structs.replace(record, data=data)))
        elif answer is not None:
            data = bytes(answer.data)
            rest.said(service, answer.type, data, record)
            rest.answer(answer.service, answer.stream, answer.version, answer.type, data, record.tx)
        return record.tx

    def judged_after(self, result: RepairOutcome) -> RepairOutcome:
        """A repair that was carried out, with what the invariants say of its transaction when that has settled."""
        done = result.said
        if not isinstance(done, RepairResult) or done.how != "applied":
            return result
        try:
            is_saga = "/" in done.target
            first = self._read(done.service, done.target)[0] if is_saga else self._message(done.target)[1]
            if self._settled(first.tx):
                judgement = self._judgement(self._what_if(first.tx, self._records(first.tx)))
            else:
                judgement = Judgement(unknown=("it has not settled yet: holdfast audit judges it when it has",))
        except HoldfastError as error:
            judgement = Judgement(unknown=(str(error),))
        return msgspec.structs.replace(result, judgement=judgement)

    def _settled(self, tx: str) -> bool:
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            found = gather(self._urls, tx, self._settings)
            story = tell(tx, found.answers, trail_of(found.answers), found.silent, found.now)
            if story.settled and not found.silent:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.3)

    def _what_if(self, tx: str, records: list[tuple[str, Record]]) -> list[Violation]:
        found = Open(tx, next((one.correlation for _, one in records), ""), min(one.at for _, one in records))
        found.records = [(name, seen(one)) for name, one in records if one.kind in ("event", "answer")]
        heads = sum(get(url, "/ops/progress", {}, self._settings, ProgressStatus).head for url in self._urls.values())
        audit = Audit(self._system)
        if heads <= FOLDED_RECORDS_MAX:
            whole = HttpAudit(self._system, self._urls, self._settings)
            whole.round()
            audit = whole.audit
        return audit.what_if(found)

    def _judgement(self, violations: list[Violation]) -> Judgement:
        broken = {one.invariant for one in violations}
        lines = (f"{one.invariant}{f' {one.key}' if one.key else ''}: {one.says}" for one in violations)
        return Judgement(tuple(name for name in self._system.invariants if name not in broken), tuple(lines))

    def _records(self, tx: str) -> list[tuple[str, Record]]:
        """All records of a transaction, by time."""
        found = [
            (name, row.record())
            for name, url in self._urls.items()
            for row in get(url, "/ops/trail", {"tx": tx, "limit": 10_000}, self._settings, RecordList).records
        ]
        return sorted(found, key=lambda one: (one[1].at, one[0], one[1].position))

    def _read(self, service: str, stream: str) -> list[Record]:
        if service not in self._urls:
            raise NotFound(f"the records of {service} are needed, and it has no URL: give --url {service}=URL")
        key = (service, stream)
        if key not in self._streams:
            query = {"stream": stream, "limit": 10_000}
            answer = get(self._urls[service], "/ops/trail", query, self._settings, RecordList)
            self._streams[key] = [row.record() for row in answer.records]
        return self._streams[key]

    def _message(self, target: str) -> tuple[str, Record]:
        parsed = parse_record_id(target)
        if parsed is None or parsed[0] not in self._urls:
            raise NotFound(f"{target[:200]} is not a message of a service that was named")
        query = {"after": parsed[1] - 1, "limit": 1}
        found = get(self._urls[parsed[0]], "/ops/log", query, self._settings, LogPage).records
        if not found or found[0].id != target:
            raise NotFound(f"there is no message {target[:200]}")
        return parsed[0], found[0].record()
