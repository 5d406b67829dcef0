"""Judging repairs: which invariants would hold or break after one, and whether they do once it is done.

Before: what would come of it is foretold on copies (`runtime.ops.simulate`), from records asked of the services, and
the transaction is judged as it would be. Afterwards it is judged as it is. Invariants that fold over all transactions
are judged too where the logs are short enough to be read for it. Comes before `cli.verbs.repairs`; what cannot be told
is said.
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
from holdfast.core.explain.story import tell, trail_of
from holdfast.core.log.record import BEGUN, Record, parse_record_id
from holdfast.core.system import System
from holdfast.core.wire.frame import to_wire
from holdfast.errors import HoldfastError, NotFound
from holdfast.operator.audit import HttpAudit
from holdfast.operator.client import get
from holdfast.operator.why import gather
from holdfast.runtime.ops.simulate import Foretelling

FOLDED_RECORDS_MAX = 100_000
"""Records of all logs up to which they are read whole, for what is folded over all transactions."""
SETTLE_SECONDS = 10.0


class Repairs:
    """The invariants of a system, for repairs of it."""

    def __init__(self, system: System, urls: Mapping[str, str], settings: Settings) -> None:
        self._system, self._urls, self._settings = system, urls, settings
        self._streams: dict[tuple[str, str], list[Record]] = {}

    def foretold(self, result: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        """What the invariants would say after a repair that was planned. Never raises: what cannot be told is said."""
        if result["how"] != "apply":
            return {}
        try:
            rest = Foretelling(self._system, self._read, int(time.time() * 1e6))
            tx = self._play(rest, result, body)
            known = self._records(tx)
            open_ = [(name, one.stream) for name, one in known if one.type == BEGUN]
            unknown = [*rest.unknown, *rest.open_sagas(open_)]
            if unknown:
                return {"unknown": unknown}
            return self._said(self._what_if(tx, [*known, *rest.records]))
        except HoldfastError as error:
            return {"unknown": [str(error)]}

    def _play(self, rest: Foretelling, result: Mapping[str, Any], body: Mapping[str, Any]) -> str:
        """Play the repair and what follows; the transaction that it belongs to."""
        service, target = result["service"], result["target"]
        if "/" in target:
            verb: Any = body["decision"] if body["kind"] == "resolve" else body["kind"]
            rest.mend(service, target, verb, body["by"], body["why"])
            return self._read(service, target)[0].tx
        producer, record = self._message(target)
        answer = result.get("answer")
        if record.kind == "event":
            rest.unknown.append("what comes of an event that a consumer failed at")
        elif body["kind"] == "retry" and not answer:
            rest.unknown.append("; ".join(result["does"]))
        elif body["kind"] == "retry":
            data = msgspec.json.encode(body["data"]) if "data" in body else record.data
            rest.message(service, producer, to_wire(msgspec.structs.replace(record, data=data)))
        elif answer:
            data = msgspec.json.encode(answer["data"])
            rest.said(service, answer["type"], data, record)
            rest.answer(answer["service"], answer["stream"], answer["version"], answer["type"], data, record.tx)
        return record.tx

    def checked(self, results: list[dict[str, Any]]) -> None:
        """Judge, after repairs, the transactions that they belong to, when they have settled; noted in the results."""
        for result in results:
            if result["how"] != "applied":
                continue
            try:
                target = result["target"]
                at = self._read(result["service"], target)[0] if "/" in target else self._message(target)[1]
                if self._settled(at.tx):
                    result["invariants"] = self._said(self._what_if(at.tx, self._records(at.tx)))
                else:
                    result["invariants"] = {"unknown": ["it has not settled yet: holdfast audit judges it when it has"]}
            except HoldfastError as error:
                result["invariants"] = {"unknown": [str(error)]}

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

    def _said(self, violations: list[Violation]) -> dict[str, Any]:
        broken = {one.invariant for one in violations}
        lines = [f"{one.invariant}{f' {one.key}' if one.key else ''}: {one.says}" for one in violations]
        return {"hold": [name for name in self._system.invariants if name not in broken], "break": lines}

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
            raise NotFound(f"where is {service}? Its records are needed: give --url {service}=URL")
        key = (service, stream)
        if key not in self._streams:
            query = {"stream": stream, "limit": 10_000}
            answer = get(self._urls[service], "/ops/trail", query, self._settings, RecordList)
            self._streams[key] = [row.record() for row in answer.records]
        return self._streams[key]

    def _message(self, target: str) -> tuple[str, Record]:
        parsed = parse_record_id(target)
        if parsed is None or parsed[0] not in self._urls:
            raise NotFound(f"{target[:200]} is no message of a service that was named")
        query = {"after": parsed[1] - 1, "limit": 1}
        found = get(self._urls[parsed[0]], "/ops/log", query, self._settings, LogPage).records
        if not found or found[0].id != target:
            raise NotFound(f"there is no {target[:200]}")
        return parsed[0], found[0].record()


def lines_of(invariants: Mapping[str, Any], *, done: bool) -> list[str]:
    """What is said of invariants before a repair, or after it."""
    if not invariants:
        return []
    if why := invariants.get("unknown"):
        return [f"invariants: not foretold: {'; '.join(why)}" if not done else f"invariants: {'; '.join(why)}"]
    if broken := invariants["break"]:
        word = "does not hold" if done else "would not hold"
        return [f"{word}: {text}" for text in broken]
    return [f"invariants: {len(invariants['hold'])} {'hold' if done else 'would hold'}"]
