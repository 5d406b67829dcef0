"""What operators are answered: each answer is of its declared type, to the last field, and shows nothing sensitive.

Asked of services with something of everything in them: sagas that wait, are stuck, undone and done, messages that are
parked and wait behind one, a stage that is held with one that waits for it, an effect of unknown outcome.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec
import pytest

from holdfast import (
    Attempt,
    Client,
    Command,
    Contract,
    Event,
    Rejected,
    Retry,
    Sensitive,
    Service,
    System,
    answer,
    decide,
    evolve,
    pivot,
    step,
    undo,
)
from holdfast.core.explain.overview import (
    AggregateList,
    AggregateStatus,
    LogPage,
    ProgressStatus,
    RecordList,
    SagaDetail,
    SagaEntries,
    SagaList,
    StageList,
    ViewRebuild,
    WaitingList,
)
from holdfast.core.explain.plan import PeerRestored, Plan, StageResolved, StandingPlan, StoreRestored
from holdfast.core.explain.status import WhyAnswer
from holdfast.core.log.record import ANSWERED, BEGUN, Record
from holdfast.core.saga.stage import HELD
from holdfast.errors import Pending
from holdfast.runtime.ops.audit import Reading
from holdfast.runtime.ops.repair import RETRIED, RepairResult
from holdfast.web import masking
from support.http_services import Far, Reply, Web, until

SECRET, TOKEN = "4111222233334444", "operate-operate"
QUICK = Retry(attempts_max=2, first_seconds=0.01, last_seconds=0.01, jitter=0)
T = TypeVar("T")
desk, depot, away = Contract("desk"), Contract("depot"), Contract("away")


@depot.event
class Kept(Event):
    box: str
    card: Sensitive[str]


@depot.command(key="box")
class Keep(Command[Kept]):
    box: str
    card: Sensitive[str]


@depot.event
class Called(Event):
    line: str
    card: Sensitive[str]


@depot.command(key="line")
class Call(Command[Called]):
    line: str
    card: Sensitive[str]


@away.event
class Placed(Event):
    place: str
    card: Sensitive[str]


@away.command(key="place")
class Put(Command[Placed]):
    place: str
    card: Sensitive[str]


@desk.event
class Served(Event):
    order: str
    card: Sensitive[str]


@desk.command(key="order")
class Serve(Command[Served]):
    """Keep the card in a box before the pivot, at it and after it, then call; each where it is named."""

    order: str
    card: Sensitive[str]
    first: str = ""
    box: str = "fine"
    last: str = ""
    line: str = ""


@desk.event
class Swapped(Event):
    order: str


@desk.command(key="order")
class Swap(Command[Swapped]):
    order: str
    card: Sensitive[str]


def depot_service() -> Service:
    """Boxes, of which some are broken and some refuse, and lines that are always cut off."""
    service = Service(depot, owner="team-depot", retry=QUICK)

    @service.aggregate
    class Box:
        card: Sensitive[str] = ""

        @decide(creates=True)
        def keep(self, command: Keep) -> Kept:
            if command.box == "broken":
                raise RuntimeError("a bug")
            if command.box == "refuses":
                raise Rejected("refused", "this box takes nothing", card=command.card)
            return Kept(command.box, command.card)

        @evolve
        def kept(self, event: Kept) -> None:
            self.card = event.card

    @service.effect(seconds=1)
    async def call(command: Call, attempt: Attempt) -> Called:
        raise ConnectionError("cut off")

    @service.view
    class Cards:
        card: Sensitive[str] = ""

        @evolve(key=lambda event: event.box)
        def kept(self, event: Kept) -> None:
            self.card = event.card

    return service


def away_service() -> Service:
    """A participant that is not there when it is needed."""
    service = Service(away, owner="team-away")

    @service.aggregate
    class Place:
        @decide(creates=True)
        def put(self, command: Put) -> Placed:
            return Placed(command.place, command.card)

        @evolve
        def placed(self, event: Placed) -> None:
            pass

    return service


def desk_service() -> Service:
    """An ordinary saga and a staged one."""
    service = Service(desk, owner="team-desk", retry=QUICK)

    @service.saga
    class Serving:
        serve: Serve

        @step
        def before(self) -> Keep | None:
            return Keep(self.serve.first, self.serve.card) if self.serve.first else None

        @undo(before)
        def take_out(self, kept: Kept) -> Keep:
            return Keep(kept.box, "")

        @pivot
        def keep(self) -> Keep:
            return Keep(self.serve.box, self.serve.card)

        @step
        def after(self) -> Keep | None:
            return Keep(self.serve.last, self.serve.card) if self.serve.last else None

        @step
        def call(self) -> Call | None:
            return Call(self.serve.line, self.serve.card) if self.serve.line else None

        @answer
        def served(self) -> Served:
            return Served(self.serve.order, self.serve.card)

    @service.saga(staged=True, deadline_seconds=600)
    class Swapping:
        swap: Swap

        @step
        def keep(self) -> Keep:
            return Keep("held", self.swap.card)

        @step
        def put(self) -> Put:
            return Put("there", self.swap.card)

        @answer
        def swapped(self) -> Swapped:
            return Swapped(self.swap.order)

    return service


async def begin(client: Client, command: Any) -> None:
    """Ask for something whose end nobody waits for."""
    with contextlib.suppress(Pending):
        await client.send(command, correlation=f"web-{command.order}", wait_seconds=0.05)


@contextlib.asynccontextmanager
async def everything() -> AsyncGenerator[dict[str, Web]]:
    """Services with something of everything in them, by name."""
    services = System([desk_service(), depot_service(), away_service()], name="status")
    async with Far(services, operator_token=TOKEN) as far, aiohttp.ClientSession() as session:
        client = Client.http(far.urls)
        await client.send(Serve("done", SECRET), correlation="web-done")
        await client.send(Serve("undone", SECRET, first="refuses"), correlation="web-undone")
        await begin(client, Serve("stuck", SECRET, last="refuses"))
        await begin(client, Serve("parked", SECRET, box="broken"))
        await until(lambda: far.nodes["depot"].waiting.parked("Box/broken"))
        await begin(client, Serve("behind", SECRET, box="broken"))
        await begin(client, Serve("unknown", SECRET, line="cut"))
        await far.down("away")
        await begin(client, Swap("held", SECRET))
        await until(lambda: bool(far.nodes["depot"].dispatch.stages.held))
        await begin(client, Serve("locked", SECRET, box="held"))
        await client.close()
        sagas = far.nodes["desk"].dispatch.sagas
        await until(lambda: len(far.nodes["depot"].waiting.slots()) == 4 and bool(sagas.stuck), seconds=30)
        waits = far.nodes["depot"].waiting
        await until(lambda: any(slot.message.unknown and slot.message.parked for slot in waits.slots()))
        yield {name: Web(url, session) for name, url in far.urls.items() if name in far.nodes}


async def asked(web: Web, path: str, body: Any = None) -> Reply:
    """What an operator is answered."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return await web.ask("POST" if body is not None else "GET", path, body, headers=headers)


def strictly(kind: type[T], body: bytes) -> T:
    """An answer as its type; nothing is left over, and nothing was left to a default that the service did not say."""
    value = msgspec.json.decode(body, type=kind)
    again, said = msgspec.json.decode(msgspec.json.encode(value)), msgspec.json.decode(body)
    for one in (again, said):
        if "mark" in one:  # a set, in any order
            one["mark"]["waiting"].sort()
    assert again == said
    return value


class Question(NamedTuple):
    """What is asked of a service, and what is answered."""

    service: str
    path: str
    kind: type[Any]
    payload: bool
    """The answer has payloads of messages, or states."""
    body: Any = None


async def questions(services: dict[str, Web]) -> list[Question]:
    """Every kind of answer that an operator gets, by what is there to be asked about."""
    logs = {name: strictly(LogPage, (await asked(web, "/ops/log?limit=1000")).body) for name, web in services.items()}
    sagas = {one.correlation: one for one in logs["desk"].records if one.type == "holdfast.saga.begun"}
    parked = strictly(WaitingList, (await asked(services["depot"], "/ops/parked")).body)
    (broken,) = [one.message for one in parked.items if not one.unknown]
    (unknown,) = [one.message for one in parked.items if one.unknown]
    held = sagas["web-held"]
    word = {"by": "on call", "why": "it was looked into", "dry_run": True}
    done = {"kind": "resolve", "target": unknown, "decision": "done", "data": {"line": "cut", "card": SECRET}, **word}
    cancel = {"kind": "resolve", "tx": held.tx, "decision": "cancel", **word}
    told = await asked(services["depot"], "/ops/repairs", done)
    assert strictly(Plan, told.body).answer is not None
    given = {**told.json()["answer"], "data": {"line": "cut", "card": SECRET}}
    found = [
        Question(name, f"{path}{query}", kind, payload)
        for name in services
        for path, query, kind, payload in (
            ("/ops/log", "?limit=1000", LogPage, True),
            ("/ops/log", "?brief=1&limit=1000", Reading, True),
            ("/ops/trail", "?correlation=web-parked", RecordList, name == "desk"),
            ("/ops/progress", "", ProgressStatus, False),
            ("/ops/sagas", "", SagaEntries, False),
            ("/ops/stages", "", StageList, False),
            ("/ops/stages", f"?tx={held.tx}", StageList, False),
            ("/ops/why", "?id=web-parked", WhyAnswer, name == "desk"),
            ("/ops/why", f"?tx={held.tx}", WhyAnswer, True),
            ("/ops/stuck", "", SagaList, False),
            ("/ops/parked", "", WaitingList, False),
            ("/ops/parked", "?all=1", WaitingList, False),
            ("/ops/unsettled", "", SagaList, False),
        )
    ]
    found += [Question("desk", f"/ops/sagas/{one.stream}", SagaDetail, True) for one in sagas.values()]
    return [
        *found,
        Question("depot", "/ops/aggregates/Box", AggregateList, True),
        Question("depot", "/ops/aggregates/Box/fine", AggregateStatus, True),
        Question("depot", "/ops/views/Cards/rebuild", ViewRebuild, False, {}),
        Question("depot", "/ops/repairs", Plan, False, {"kind": "skip", "target": broken, **word}),
        Question("depot", "/ops/repairs", Plan, True, done),
        Question("desk", "/ops/repairs", Plan, False, {"kind": "retry", "target": sagas["web-stuck"].stream, **word}),
        Question("desk", "/ops/repairs", StandingPlan, False, cancel),
        Question("desk", "/ops/plans", Plan, False, given),
    ]


async def something_of_everything(services: dict[str, Web]) -> None:
    """See that no list is empty: a saga that is stuck, one that waits, what is parked, waits behind it, is of unknown
    outcome, is locked, and what holds it."""
    get = {name: lambda path, web=web: asked(web, path) for name, web in services.items()}
    stuck = strictly(SagaList, (await get["desk"]("/ops/stuck")).body)
    (saga,) = stuck.items
    assert (saga.owner, saga.step, saga.correlation) == ("team-desk", "after", "web-stuck")
    assert saga.blocked_by == saga.stuck and stuck.totals == {saga.stuck: 1}
    assert {action.verb for action in saga.actions} >= {"retry", "skip"} and saga.counted_from == saga.begun
    waits = {one.correlation: one for one in strictly(SagaList, (await get["desk"]("/ops/unsettled")).body).items}
    assert set(waits) == {f"web-{name}" for name in ("stuck", "parked", "behind", "unknown", "held", "locked")}
    assert waits["web-unknown"].blocked_by == "waits for call of depot"
    assert waits["web-parked"].next == ("after", "call", "answer served")
    assert waits["web-held"].next == ("commit", "answer swapped")
    there = strictly(WaitingList, (await get["depot"]("/ops/parked?all=1")).body).items
    waiting = {one.correlation: one for one in there}
    assert set(waiting) == {f"web-{name}" for name in ("parked", "behind", "unknown", "locked")}
    assert waiting["web-behind"].first is not None and waiting["web-behind"].first.parked
    assert waiting["web-behind"].behind == waiting["web-parked"].message == waiting["web-parked"].target
    assert waiting["web-unknown"].unknown and waiting["web-locked"].locked == waits["web-held"].tx
    (hold,) = strictly(StageList, (await get["depot"]("/ops/stages")).body).held
    assert (hold.coordinator, [one.producer for one in hold.waiting]) == ("desk", ["desk"])
    told = strictly(WhyAnswer, (await get["depot"](f"/ops/why?tx={hold.tx}")).body)
    assert [one.waiting for one in told.held] == [1] and told.records
    assert "away" in strictly(WhyAnswer, (await get["desk"](f"/ops/why?tx={hold.tx}")).body).peers
    progress = strictly(ProgressStatus, (await get["depot"]("/ops/progress")).body)
    assert len(progress.waiting) == 4 and progress.exchange["desk"].received and progress.feeds
    begun = strictly(LogPage, (await get["desk"]("/ops/log?limit=1000")).body).records
    (undone,) = [one.stream for one in begun if one.correlation == "web-undone" and one.version == 1]
    detail = strictly(SagaDetail, (await get["desk"](f"/ops/sagas/{undone}")).body)
    assert detail.cause is not None and (detail.cause.code, detail.cause.facts) == ("refused", {"card": "***"})


async def what_repairs_answer(services: dict[str, Web]) -> None:
    """Repair what can be repaired: each answer is of its type."""
    (held,) = strictly(StageList, (await asked(services["depot"], "/ops/stages")).body).held
    parked = strictly(WaitingList, (await asked(services["depot"], "/ops/parked")).body).items
    (broken,) = [one.message for one in parked if not one.unknown]
    word = {"by": "on call", "why": "it was looked into"}

    async def said(service: str, type_: type[T], /, **body: Any) -> T:
        reply = await asked(services[service], "/ops/repairs", word | body)
        assert reply.status == 200, reply.body
        return strictly(type_, reply.body)

    assert (await said("depot", RepairResult, kind="retry", target=broken)).how == "applied"
    cancelled = await said("desk", StageResolved, kind="resolve", tx=held.tx, decision="cancel")
    assert (cancelled.kind, cancelled.service, cancelled.how) == ("resolve", "desk", "decided")
    assert (await said("desk", PeerRestored, kind="peer_restored", peer="away")).peer == "away"
    assert (await said("desk", StoreRestored, kind="restored", cursors={"depot": 1})).kind == "restored"


async def test_every_answer_is_of_its_type_and_hides_what_is_sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    """G10: each answer under `/ops` decodes as its declared type with nothing left over, and the card is in none of
    them; it would be in each that has payloads, were they not masked."""
    async with everything() as services:
        await something_of_everything(services)
        found = await questions(services)
        for question in found:
            reply = await asked(services[question.service], question.path, question.body)
            assert reply.status in (200, 202), (question, reply.body)
            strictly(question.kind, reply.body)
            assert SECRET not in reply.body.decode(), question
            assert not question.payload or '"***"' in reply.body.decode(), question
        monkeypatch.setattr(masking, "masked", lambda plan, value: value)
        monkeypatch.setattr(masking.Masking, "_by_name", lambda self, value: value)
        for question in found:
            reply = await asked(services[question.service], question.path, question.body)
            assert (SECRET in reply.body.decode()) == question.payload, question
        monkeypatch.undo()
        await what_repairs_answer(services)


@pytest.mark.parametrize("stored", [BEGUN, ANSWERED, HELD, RETRIED])
def test_a_message_in_a_record_of_holdfasts_own_is_masked_by_its_type(stored: str) -> None:
    """A saga's begin, an answer, a vote and a changed payload hold a message: its sensitive fields are `***`, what else
    the record says is shown; a message of a type that is not known here is hidden whole."""
    field, mask = masking.MESSAGE_IN[stored], masking.Masking(depot_service())

    def shown(type: str) -> Any:
        body = {"type": type, "by": "on call", field: {"box": "fine", "card": SECRET}}
        return mask.record("depot", Record(1, "saga", stored, msgspec.json.encode(body), "t", "t", 1)).data

    assert shown("depot.kept.v1") == {"type": "depot.kept.v1", "by": "on call", field: {"box": "fine", "card": "***"}}
    assert shown("other.kept.v1") == {"type": "other.kept.v1", "by": "on call", field: "***"}
