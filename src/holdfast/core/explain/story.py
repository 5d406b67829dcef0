"""The story of an id: what every service knows about it, in causal order and plain sentences, with what comes next.

`tell` takes the answer of each service (`core.explain.status.WhyAnswer`) and the trail of its records. From these it
tells what happened, what the status is, what should come next, what blocks it and which team has to act, and the
repairs that are possible. Pure; the time is linear in the records except for sorting. Comes after `core.explain.trail`,
before the command line and the web. A record of an unknown kind is told by its type.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.core.declare.effect import ATTEMPTED, PROBED, UNKNOWN
from holdfast.core.explain.status import SagaStatus, StepStatus, WaitingStatus, WhyAnswer
from holdfast.core.explain.trail import Trail, build, walk
from holdfast.core.log.record import CANCEL_COMMAND, REJECTED, SAGA, Record, body_of
from holdfast.core.saga.stage import CANCEL, CONFIRM, DONE, HELD


class StoryLine(msgspec.Struct, frozen=True):
    """One event of the story."""

    at: int
    """Microseconds since 1970-01-01 UTC, by the clock of its service."""
    service: str
    id: str
    text: str
    depth: int
    """How many causes it has before it."""


class Block(msgspec.Struct, frozen=True):
    """One reason why it does not go on, and the team that can act."""

    service: str
    owner: str
    what: str
    since: int = 0


class PossibleRepair(msgspec.Struct, frozen=True):
    """One possible repair: the command to type, and what it would do."""

    command: str
    does: str


class Story(msgspec.Struct, frozen=True):
    """The whole story of one id."""

    title: str
    settled: bool
    happened: tuple[StoryLine, ...]
    stands: tuple[str, ...]
    next: tuple[str, ...]
    blocks: tuple[Block, ...]
    repairs: tuple[PossibleRepair, ...]


def trail_of(answers: Iterable[WhyAnswer]) -> Trail:
    """The trail of the records in the services' answers."""
    return build({answer.service: [row.record() for row in answer.records] for answer in answers})


def tell(
    id: str,
    answers: Sequence[WhyAnswer],
    trail: Trail,
    silent: Mapping[str, str],
    now: int,
    owners: Mapping[str, str] | None = None,
) -> Story:
    """The story of an id. `trail`: the trail of these answers (`trail_of`); `silent`: the services that did not
    answer, and why; `now` in µs since 1970-01-01 UTC; `owners`: the teams of services that did not answer."""
    owners = {**(owners or {}), **{answer.service: answer.owner for answer in answers if answer.owner}}
    title, settled = _title(id, answers, trail, silent)
    sagas = [saga for answer in answers for saga in answer.sagas]
    return Story(
        title=title,
        settled=settled,
        happened=tuple(_happened(trail)),
        stands=tuple(_stands(answers, now)),
        next=tuple(f"{saga.id}: {', then '.join(saga.next)}" for saga in sagas if saga.next),
        blocks=tuple(_blocks(answers, silent, owners, now)),
        repairs=tuple(_repairs(answers)),
    )


def ago(since: int, now: int) -> str:
    """How long ago, in words."""
    seconds = max(0.0, (now - since) / 1e6)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _title(id: str, answers: Sequence[WhyAnswer], trail: Trail, silent: Mapping[str, str]) -> tuple[str, bool]:
    """A sentence with the kind of the id and its status, and whether nothing is left to happen."""
    named = (answer.named for answer in answers if answer.named not in ("", "transaction"))
    what = f"{next(named, 'transaction')} {id}"
    sagas = [saga for answer in answers for saga in answer.sagas]
    waits = [message for answer in answers for message in answer.waiting]
    if any(saga.status == "stuck" for saga in sagas):
        return f"{what} is stuck: it needs a person", False
    if any(message.parked for message in waits):
        return f"{what} waits for a person: a message of it is parked", False
    if any(message.first is not None and message.first.parked for message in waits):
        return f"{what} waits for a person: a message before one of it is parked", False
    if sagas or waits or any(answer.held for answer in answers):
        return f"{what} has not ended", False
    if silent and not any(answer.transactions or answer.records for answer in answers):
        return f"{id[:200]} is not known to any service that answered; {', '.join(silent)} did not answer", False
    if silent:
        return f"{what}: nothing is left to happen, as far as was asked; {', '.join(silent)} did not answer", False
    ends = [item.record for item, _ in walk(trail) if item.record.headers.outcome]
    if len(ends) == 1 and ends[0].type == REJECTED:
        return f"{what} was rejected: {_code(ends[0])}", True
    return f"{what} is settled: nothing is left to happen", True


def _happened(trail: Trail) -> Iterator[StoryLine]:
    """Every record as a line: a cause always before its effects, else by time."""
    for item, depth in walk(trail):
        if text := sentence(item.service, item.record):
            yield StoryLine(item.record.at, item.service, item.id, text, depth)


def sentence(service: str, record: Record) -> str:
    """A record as a sentence; empty if another record says the same."""
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
    if record.type == CANCEL_COMMAND:
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
    body = body_of(record)
    if record.type == ATTEMPTED:
        return f"{service} made attempt {body.get('attempt')} at {record.stream}"
    if record.type == UNKNOWN:
        return f"{service} does not know what became of attempt {body.get('attempt')}: {body.get('error')}"
    if record.type == PROBED:
        return f"{service} asked what became of attempt {body.get('attempt')}: {body.get('found')}"
    return f"{service}: {record.type}"


def _repair(service: str, record: Record) -> str:
    body = body_of(record)
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
    body, name = body_of(record), record.stream.partition("/")[0]
    cause = body.get("cause")
    code = cause.get("code") if isinstance(cause, dict) else cause  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    told = {
        "begun": f"{service} began {name}{_data(record, body.get('message'))}",
        "skipped": f"{name} had nothing to ask in step {record.headers.step}",
        "overdue": f"{name} had no answer to {record.headers.step} by its deadline: it is unknown from here on",
        "undoing": f"{name} turned back{f' at {record.headers.step}' if record.headers.step else ''}: {code}",
        "stuck": f"{name} is stuck{f' at {record.headers.step}' if record.headers.step else ''}: {code}",
        "completed": f"{name} ended, all done",
        "undone": f"{name} ended, all taken back: {body.get('code')}",
        "committed": f"{name} was committed: all had said yes",
        "settled": f"{name} ended: all have carried it out",
        "cancelled": f"{name} was cancelled: {code}",
        "again": f"{name} began attempt {body.get('attempt', 0) + 1}",
        "answered": "",
    }
    if record.type == HELD:
        return f"{service} holds {body.get('type')} for the transaction"
    if record.type == DONE:
        return f"{service} has carried out the decision" if body else ""
    return told.get(record.type.removeprefix(SAGA), f"{service}: {record.type}")


def _stands(answers: Sequence[WhyAnswer], now: int) -> Iterator[str]:
    for saga in (saga for answer in answers for saga in answer.sagas):
        cause = saga.stuck or saga.cause
        why = f": {cause}" if cause else ""
        yield f"{saga.id} is {saga.status}{why}, since {ago(saga.since, now)}"
        for step in saga.waits:
            yield _awaited(step, now)
    for message in (message for answer in answers for message in answer.waiting):
        how = "parked" if message.parked else "tried again" if message.error else "waiting"
        yield f"{message.message} ({_name(message.type)}) is {how} on {message.stream}"


def _awaited(step: StepStatus, now: int) -> str:
    """What a saga waits for."""
    late = ", overdue" if step.overdue else ""
    what = f"the undo of {step.step}" if step.undo else step.step
    return f"it waits for {step.service} to answer {what}{late}, asked {ago(step.since, now)} ago"


def _blocks(
    answers: Sequence[WhyAnswer], silent: Mapping[str, str], owners: Mapping[str, str], now: int
) -> Iterator[Block]:
    """The reasons why it does not go on, service by service."""
    for name, why in silent.items():
        yield Block(name, owners.get(name, ""), f"{name} does not answer: {why}")
    for answer in answers:
        service, owner = answer.service, answer.owner
        for message in answer.waiting:
            yield Block(service, owner, _waits(message, now), message.since)
        for hold in answer.held:
            text = f"{hold.stream} is held for the transaction, which {hold.coordinator} decides"
            yield Block(service, owner, text, hold.since)
        for saga in answer.sagas:
            for what, since in _of_saga(saga, now):
                yield Block(service, owner, what, since)
            for peer in sorted({step.service for step in saga.waits} - silent.keys()):
                if peer in answer.peers and (failure := answer.peers[peer].failure):
                    yield Block(peer, owners.get(peer, ""), f"{service} cannot reach {peer}: {failure}")
        if answer.store:
            yield Block(service, owner, f"its store takes no commits: {answer.store}")


def _of_saga(saga: SagaStatus, now: int) -> Iterator[tuple[str, int]]:
    """(reason, since when) why a saga does not go on, in its own service."""
    if saga.stuck:
        yield f"{saga.id} is stuck: {saga.stuck}", saga.since
    for timer in saga.timers:
        left = (timer.due - now) / 1e6
        if left > 0:
            yield f"{_timer(timer.name)} in {left:.1f} s", 0


def _waits(message: WaitingStatus, now: int) -> str:
    """Why a message waits."""
    what = f"{message.message} ({_name(message.type)})"
    where = f" in {message.where}" if message.where else ""
    if message.unknown and message.parked:
        return f"what became of {what} is unknown, and nobody can be asked by itself: {message.error}"
    if message.parked:
        return f"{what} is parked after {message.attempts} tries: {message.error}{where} [{message.fingerprint}]"
    if message.behind:
        first = f": {_waits(message.first, now)}" if message.first is not None else ""
        return f"{what} waits behind {message.behind}{first}"
    if message.locked:
        return f"{what} waits for transaction {message.locked}, which holds {message.stream}"
    if message.error:
        left = max(0.0, (message.next_at - now) / 1e6)
        return f"{what} failed {message.attempts} times, tried again in {left:.1f} s: {message.error}{where}"
    return f"{what} is being carried out"


def _timer(name: str) -> str:
    what, _, rest = name.partition(":")
    told = {
        "deadline": f"the deadline of {rest} passes",
        "retry": "what was rejected is asked again",
        "stage": "it is cancelled if not decided",
        "again": "it is tried again",
    }
    return told.get(what, name)


def _repairs(answers: Sequence[WhyAnswer]) -> Iterable[PossibleRepair]:
    """The possible repairs of sagas, of waiting messages and of the messages before them; each once."""
    waits = [message for answer in answers for message in answer.waiting]
    items: list[SagaStatus | WaitingStatus] = [saga for answer in answers for saga in answer.sagas]
    items += [*waits, *(message.first for message in waits if message.first is not None)]
    found: dict[str, PossibleRepair] = {}
    for action in (action for item in items for action in item.actions):
        command = f"holdfast {action.typed} --by YOU --why REASON"
        found.setdefault(command, PossibleRepair(command, action.does))
    return found.values()


def _name(stored: str) -> str:
    return stored.removesuffix(".v1").partition(".")[2] if not stored.startswith("holdfast.") else stored


def _data(record: Record, value: Any = None) -> str:
    """The fields of a message, in short."""
    body = value if value is not None else body_of(record)
    if not isinstance(body, dict) or not body:
        return ""
    rows: dict[str, Any] = body  # pyright: ignore[reportUnknownVariableType]
    text = ", ".join(f"{name} {_short(item)}" for name, item in rows.items())
    return f": {text}" if len(text) <= 100 else f": {text[:99]}…"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _code(record: Record) -> str:
    return str(body_of(record).get("code", ""))
