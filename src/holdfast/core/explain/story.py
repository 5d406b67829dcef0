"""The story of an id: what every service knows of it, told in causal order, in plain sentences, with what comes next.

`tell` takes what each service answered to `/ops/why` and makes of it what happened, where it stands, what should have
come next, what blocks it and whose that is, and the repairs that there are. Pure, in time linear in the records but for
their sorting. Comes after `core.explain.trail`, before whoever shows it. A record of a kind unknown here is told by its
type.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.core.declare.effect import ATTEMPTED, PROBED, UNKNOWN
from holdfast.core.log.record import CALL_OFF, REJECTED, Record, record_id
from holdfast.core.saga.stage import CANCEL, CONFIRM, DONE, HELD

SAGA = "holdfast.saga."


class Line(msgspec.Struct, frozen=True):
    """One thing that happened."""

    at: int
    """Microseconds since 1970-01-01 UTC, by the clock of its service."""
    service: str
    id: str
    text: str
    depth: int
    """How many causes there are before it."""


class Block(msgspec.Struct, frozen=True):
    """One thing that keeps it from going on, and who can do something about it."""

    service: str
    owner: str
    what: str
    since: int = 0


class Repair(msgspec.Struct, frozen=True):
    """One repair that is possible: what to type, and what it would do."""

    command: str
    does: str


class Story(msgspec.Struct, frozen=True):
    """All that there is to say of one id."""

    title: str
    settled: bool
    happened: tuple[Line, ...]
    stands: tuple[str, ...]
    next: tuple[str, ...]
    blocks: tuple[Block, ...]
    repairs: tuple[Repair, ...]


class Part(msgspec.Struct):
    """What one service knows: its answer to `/ops/why`, the records decoded."""

    service: str
    owner: str = ""
    named: str = ""
    transactions: list[str] = []
    more: bool = False
    complete: bool = True
    records: list[Record] = []
    sagas: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    peers: dict[str, dict[str, Any]] = {}
    store: str = ""


def tell(
    id: str, parts: Sequence[Part], silent: Mapping[str, str], now: int, owners: Mapping[str, str] | None = None
) -> Story:
    """The story of an id. `silent`: the services that did not answer, and why; `now` in µs since 1970-01-01 UTC;
    `owners`: whose services are that cannot say so themselves."""
    owners = {**(owners or {}), **{part.service: part.owner for part in parts if part.owner}}
    blocks = _blocks(parts, silent, owners, now)
    open_ = [saga for part in parts for saga in part.sagas]
    waits = [one for part in parts for one in part.waiting]
    title, settled = _title(id, parts, open_, waits, silent)
    return Story(
        title, settled, tuple(_happened(parts)), tuple(_stands(open_, waits, now)),
        tuple(f"{saga['id']}: {', then '.join(saga['next'])}" for saga in open_ if saga["next"]),
        tuple(blocks), tuple(_repairs([*open_, *waits, *(one["first"] for one in waits if one.get("first"))])),
    )  # fmt: skip


def ago(since: int, now: int) -> str:
    """How long ago, in words."""
    seconds = max(0.0, (now - since) / 1e6)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _title(
    id: str, parts: Sequence[Part], open_: list[dict[str, Any]], waits: list[dict[str, Any]], silent: Mapping[str, str]
) -> tuple[str, bool]:
    """One sentence: what it is and how it stands; whether nothing is left to happen."""
    named = dict.fromkeys(part.named for part in parts if part.named and part.named != "transaction") or {
        "transaction": 0
    }
    what = f"{next(iter(named))} {id}"
    if any(saga["status"] == "stuck" for saga in open_):
        return f"{what} is stuck: it needs a person", False
    if any(one["parked"] for one in waits):
        return f"{what} waits for a person: a message of it is parked", False
    if any(one.get("first") and one["first"]["parked"] for one in waits):
        return f"{what} waits for a person: a message before one of it is parked", False
    if open_ or waits or any(part.held for part in parts):
        return f"{what} has not ended", False
    if silent and not any(part.transactions or part.records for part in parts):
        return f"{id[:200]} is not known to any service that answered; {', '.join(silent)} did not answer", False
    if silent:
        return f"{what}: nothing is left to happen, as far as was asked; {', '.join(silent)} did not answer", False
    ends = [record for part in parts for record in part.records if record.headers.outcome]
    if len(ends) == 1 and ends[0].type == REJECTED:
        return f"{what} was rejected: {_code(ends[0])}", True
    return f"{what} is settled: nothing is left to happen", True


def _happened(parts: Sequence[Part]) -> list[Line]:
    """Every record as a line: a cause always before what it caused, else by time."""
    by_id = {record_id(part.service, r.position): (part.service, r) for part in parts for r in part.records}
    caused: dict[str, list[str]] = {}
    roots: list[str] = []
    for identity, (_, record) in by_id.items():
        if record.cause in by_id and record.cause != identity:
            caused.setdefault(record.cause, []).append(identity)
        else:
            roots.append(identity)
    lines: list[Line] = []
    ready = [(by_id[one][1].at, *_order(by_id[one]), one, 0) for one in roots]
    heapq.heapify(ready)
    seen: set[str] = set()
    while ready:
        at, _, _, identity, depth = heapq.heappop(ready)
        if identity in seen:
            continue
        seen.add(identity)
        service, record = by_id[identity]
        if text := sentence(service, record):
            lines.append(Line(at, service, identity, text, depth))
        for child in caused.get(identity, ()):
            heapq.heappush(ready, (max(at, by_id[child][1].at), *_order(by_id[child]), child, depth + 1))
    return lines


def _order(found: tuple[str, Record]) -> tuple[str, int]:
    return found[0], found[1].position


def sentence(service: str, record: Record) -> str:
    """What a record says, as a sentence; empty for what another record says as well."""
    if record.kind == "command":
        return _command(service, record)
    if record.kind == "event":
        told = f", which answers {record.destination}" if record.destination else ""
        told = ", which answers the caller" if record.headers.outcome else told
        on = f" on {record.stream}" if record.stream else ""
        return f"{service} recorded {_name(record.type)}{on}{told}{_data(record)}"
    if record.type == REJECTED:
        whom = record.destination or ("the caller" if record.headers.outcome else "nobody who waits")
        if _code(record) == "cancelled":
            return f"{service} answered {whom}: cancelled, it was never decided"
        return f"{service} said no to {whom}: {_code(record)}"
    if record.kind == "effect":
        return _effect(service, record)
    if record.kind == "repair":
        return _repair(service, record)
    return _saga(service, record)


def _command(service: str, record: Record) -> str:
    who, key = record.destination or "nobody", f" {record.headers.key}" if record.headers.key else ""
    if record.type == CALL_OFF:
        return f"{service} called {record.headers.step} off at {who}"
    if record.type in (CONFIRM, CANCEL):
        return f"{service} told {who} that the transaction is {'committed' if record.type == CONFIRM else 'cancelled'}"
    if record.headers.edge:
        return f"a caller asked {service} for {_name(record.type)}{key}"
    asked = f"{service} asked {who} for {_name(record.type)}{key}"
    if record.headers.undoes:
        return f"{asked}, to undo {record.headers.step}"
    again = f", attempt {record.headers.attempt + 1}" if record.headers.attempt else ""
    return f"{asked} (step {record.headers.step}{again})" if record.headers.step else f"{asked}, in reaction"


def _effect(service: str, record: Record) -> str:
    body = _body(record)
    if record.type == ATTEMPTED:
        return f"{service} made attempt {body.get('attempt')} at {record.stream}"
    if record.type == UNKNOWN:
        return f"{service} does not know what became of attempt {body.get('attempt')}: {body.get('error')}"
    if record.type == PROBED:
        return f"{service} asked what became of attempt {body.get('attempt')}: {body.get('found')}"
    return f"{service}: {record.type}"


def _repair(service: str, record: Record) -> str:
    body = _body(record)
    verbs = {
        "retried": f"had {body.get('message')} tried again" + (", changed" if "data" in body else ""),
        "skipped": f"had {body.get('message')} skipped",
        "outcome": f"said that {body.get('message')} was {body.get('outcome')}",
        "resolved": f"had the transaction {'committed' if body.get('commit') else 'cancelled'} here",
        "saga": f"told {record.stream}: {body.get('verb')}",
        "restored": f"declared the store of {service} restored",
        "peer_restored": f"accepted that {body.get('peer')} was restored",
    }
    what = verbs.get(record.type.rpartition(".")[2], record.type)
    return f"{body.get('by', 'somebody')}, at {service}, {what}: {body.get('why', 'no reason given')}"


def _saga(service: str, record: Record) -> str:
    body, name = _body(record), record.stream.partition("/")[0]
    cause = body.get("cause")
    code = cause.get("code") if isinstance(cause, dict) else cause  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    told = {
        "begun": f"{service} began {name}{_data(record, body.get('message'))}",
        "skipped": f"{name} had nothing to ask in step {record.headers.step}",
        "overdue": f"{name} had no answer to {record.headers.step} by its deadline: it is unknown from here on",
        "undoing": f"{name} turned back{f' at {record.headers.step}' if record.headers.step else ''}: {code}",
        "stuck": f"{name} is stuck{f' at {record.headers.step}' if record.headers.step else ''}: {code}",
        "completed": f"{name} ended, all done", "undone": f"{name} ended, all taken back: {body.get('code')}",
        "committed": f"{name} was committed: all had said yes", "settled": f"{name} ended: all have carried it out",
        "cancelled": f"{name} was cancelled: {code}", "again": f"{name} began attempt {body.get('attempt', 0) + 1}",
        "answered": "",
    }  # fmt: skip
    if record.type == HELD:
        return f"{service} holds {body.get('type')} for the transaction"
    if record.type == DONE:
        return f"{service} has carried out the decision" if body else ""
    return told.get(record.type.removeprefix(SAGA), f"{service}: {record.type}")


def _stands(open_: list[dict[str, Any]], waits: list[dict[str, Any]], now: int) -> list[str]:
    found: list[str] = []
    for saga in open_:
        why = f": {saga['stuck'] or saga['cause']}" if saga["stuck"] or saga["cause"] else ""
        found.append(f"{saga['id']} is {saga['status']}{why}, since {ago(saga['since'], now)}")
        for one in saga["waits"]:
            late = ", overdue" if one["overdue"] else ""
            what = f"the undo of {one['step']}" if one["undo"] else one["step"]
            found.append(f"it waits for {one['service']} to answer {what}{late}, asked {ago(one['since'], now)} ago")
    for one in waits:
        how = "parked" if one["parked"] else "tried again" if one["error"] else "waiting"
        found.append(f"{one['message']} ({_name(one['type'])}) is {how} on {one['stream']}")
    return found


def _blocks(parts: Sequence[Part], silent: Mapping[str, str], owners: Mapping[str, str], now: int) -> list[Block]:
    found = [Block(name, owners.get(name, ""), f"{name} does not answer: {why}") for name, why in silent.items()]
    for part in parts:
        found += [Block(part.service, part.owner, _waits(one, now), one["since"]) for one in part.waiting]
        for hold in part.held:
            text = f"{hold['stream']} is held for the transaction, which {hold['coordinator']} decides"
            found.append(Block(part.service, part.owner, text, hold["since"]))
        for saga in part.sagas:
            if saga["stuck"]:
                found.append(Block(part.service, part.owner, f"{saga['id']} is stuck: {saga['stuck']}", saga["since"]))
            for timer in saga["timers"]:
                left = (timer["due"] - now) / 1e6
                if left > 0:
                    found.append(Block(part.service, part.owner, f"{_timer(timer['name'])} in {left:.1f} s"))
            for peer in sorted({one["service"] for one in saga["waits"]}):
                failure = part.peers.get(peer, {}).get("failure", "")
                if failure and peer not in silent:
                    text = f"{part.service} cannot reach {peer}: {failure}"
                    found.append(Block(peer, owners.get(peer, ""), text))
        if part.store:
            found.append(Block(part.service, part.owner, f"its store takes no commits: {part.store}"))
    return found


def _waits(one: Mapping[str, Any], now: int) -> str:
    what = f"{one['message']} ({_name(one['type'])})"
    where = f" in {one['where']}" if one["where"] else ""
    if one["unknown"] and one["parked"]:
        return f"what became of {what} is unknown, and nobody can be asked by itself: {one['error']}"
    if one["parked"]:
        return f"{what} is parked after {one['attempts']} tries: {one['error']}{where} [{one['fingerprint']}]"
    if one["behind"]:
        first = f": {_waits(one['first'], now)}" if one.get("first") else ""
        return f"{what} waits behind {one['behind']}{first}"
    if one["locked"]:
        return f"{what} waits for transaction {one['locked']}, which holds {one['stream']}"
    if one["error"]:
        left = max(0.0, (one["next_at"] - now) / 1e6)
        return f"{what} failed {one['attempts']} times, tried again in {left:.1f} s: {one['error']}{where}"
    return f"{what} is being carried out"


def _timer(name: str) -> str:
    what, _, rest = name.partition(":")
    return {"deadline": f"the deadline of {rest} passes", "retry": "what was rejected is asked again",
            "stage": "it is cancelled if not decided", "again": "it is tried again"}.get(what, name)  # fmt: skip


def _repairs(items: list[dict[str, Any]]) -> list[Repair]:
    found: dict[str, Repair] = {}
    for item in items:
        for action in item["actions"]:
            what = " ".join(filter(None, (action["verb"], action["target"], action.get("flags", ""))))
            command = f"holdfast {what} --by YOU --why REASON"
            found.setdefault(command, Repair(command, action["does"]))
    return list(found.values())


def _name(stored: str) -> str:
    return stored.removesuffix(".v1").partition(".")[2] if not stored.startswith("holdfast.") else stored


def _data(record: Record, value: Any = None) -> str:
    """The fields of a message, in short."""
    body = value if value is not None else _body(record)
    if not isinstance(body, dict) or not body:
        return ""
    rows: dict[str, Any] = body  # pyright: ignore[reportUnknownVariableType]
    text = ", ".join(f"{name} {_short(item)}" for name, item in rows.items())
    return f": {text}" if len(text) <= 100 else f": {text[:99]}…"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _code(record: Record) -> str:
    return str(_body(record).get("code", ""))


def _body(record: Record) -> dict[str, Any]:
    try:
        return msgspec.json.decode(record.data, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
