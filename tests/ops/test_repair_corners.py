"""Defects of ask and repair that a review found, each by its smallest case (G4, G5, G11)."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from cards.contracts import Bought, Charge, Charged
from holdfast import Client, Command, Contract, Event, Retry, Service, System, decide, evolve
from holdfast.cli.app import call
from holdfast.core.explain.status import WhyAnswer
from holdfast.core.explain.story import tell, trail_of
from holdfast.errors import Invalid
from holdfast.runtime.ops.plan import plan, plan_answer
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.why import parked, unsettled, why
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from shop.services import shop
from support.http_services import Far, site, until
from support.systems.payments import Provider, buy, office
from support.systems.sales import Booked, Faults, Sell, Sold, bodies, system, types

TOKEN, SECRET = "operate-operate", "a secret of the system, of some length"
TWICE = Retry(attempts_max=2, first_seconds=1, jitter=0)


def ask(kind: Any, target: str, **fields: Any) -> Ask:
    """A repair of somebody, for some reason."""
    return Ask(kind, target, "on call", "the handler is mended", **fields)


def sale(virtual: VirtualSystem, order: str, **fields: Any) -> "asyncio.Task[Any]":
    """A sale asked for at the desk, on its way."""
    return asyncio.get_running_loop().create_task(virtual.client.send(Sell(order, **fields), wait_seconds=3000))


@virtual_time
async def test_a_change_that_meets_a_call_charges_nobody_twice() -> None:
    """G5: a call's time comes while a person's changed payload is being flushed: the call and its probe have one key,
    and what the provider did is what the sale was told."""
    provider = Provider()
    provider.faults["o1"] = ["not done", "lost after"]
    async with office(provider) as virtual:
        sale, node, store = buy(virtual), virtual.nodes["wallet"], virtual.stores["wallet"]
        while not node.waiting.slots() or not node.waiting.slots()[0].message.error:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (slot,) = node.waiting.slots()
        assert not slot.running and not slot.message.unknown
        old = msgspec.json.decode(bytes(slot.message.record.data), type=Charge)
        changed = msgspec.Raw(msgspec.json.encode(msgspec.structs.replace(old, amount_cents=1)))
        store.flush_seconds = 1
        assert (await repair(node, ask("retry", slot.message.id, data=changed))).how == "applied"
        store.flush_seconds = 0.001
        answer = await sale
        await virtual.settle()
        assert len({key for _, _, key, number in provider.calls if number == 2}) == 1, provider.calls
        assert answer == Bought("o1", "seat o1", 1) and provider.count("charge", "o1") == 1


@virtual_time
async def test_why_of_a_key_shows_what_waits_there() -> None:
    """From the key of an aggregate, or its stream, what is parked on it is found, though others have ended there."""
    faults = Faults()
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        await sale(virtual, "o1")
        faults.broken.add("take:tea")
        sale(virtual, "o2")
        await asyncio.sleep(10)
        for id in ("tea", "Item/tea"):
            told, _ = await why(virtual.nodes["depot"], id=id)
            assert [one.parked > 0 for one in told.waiting] == [True], id


@virtual_time
async def test_a_deadline_that_was_met_blocks_nothing() -> None:
    """A step that was answered in time has no deadline any more: `why` names none that will not pass."""
    async with VirtualSystem(system(Faults(broken={"book:*"}), retry=TWICE, deadline=600)) as virtual:
        sale(virtual, "o1")
        await asyncio.sleep(10)
        (found,) = await unsettled(virtual.nodes["desk"])
        assert [one.name for one in found.timers] == ["deadline:book"]


@virtual_time
async def test_why_of_what_waits_behind_a_parked_message_leads_to_the_cure() -> None:
    """Whose message waits behind a parked one reads its cause, and the repairs that free both."""
    async with VirtualSystem(system(Faults(broken={"take:tea"}), retry=TWICE, deadline=0)) as virtual:
        sale(virtual, "o1")
        await asyncio.sleep(0.5)
        sale(virtual, "o2")
        await asyncio.sleep(10)
        node = virtual.nodes["depot"]
        first, second = (slot.message for slot in node.waiting.slots())
        told, _ = await why(node, tx=second.record.tx)
        answers = [WhyAnswer("depot", "team-depot", waiting=told.waiting)]
        story = tell("o2", answers, trail_of(answers), {}, told.now)
        assert story.title.endswith("waits for a person: a message before one of it is parked")
        (block,) = story.blocks
        assert f"waits behind {first.id}: {first.id} (take) is parked after 2 tries: Broken: take of tea" in block.what
        assert [one.command.split()[1:3] for one in story.repairs] == [["retry", first.id], ["skip", first.id]]


@virtual_time
async def test_a_retry_of_what_has_not_failed_changes_nothing() -> None:
    """A message that only waits behind another is not `applied` each time it is said, with a record each: `already`,
    in the plan too; and a plan needs who and why as its repair does."""
    async with VirtualSystem(system(Faults(broken={"take:tea"}), retry=TWICE, deadline=0)) as virtual:
        sale(virtual, "o1")
        await asyncio.sleep(0.5)
        sale(virtual, "o2")
        await asyncio.sleep(10)
        node = virtual.nodes["depot"]
        _, second = (slot.message for slot in node.waiting.slots())
        assert (await plan(node, ask("retry", second.id))).how == "already"
        assert (await repair(node, ask("retry", second.id))).how == "already"
        assert types(virtual, "depot", "repair") == []
        with pytest.raises(Invalid, match="why"):
            await plan(node, Ask("retry", second.id, "me", " "))


@virtual_time
async def test_a_plan_of_an_outcome_reads_its_data() -> None:
    """The plan of `resolve --done` refuses data that the repair would refuse, and names the answer, so that the saga
    that would get it is planned too; an answer of a type that the saga does not know is invalid there."""
    provider = Provider()
    provider.faults["o1"] = ["lost after"]
    async with office(provider, probe=False) as virtual:
        buy(virtual)
        await asyncio.sleep(2)
        node = virtual.nodes["wallet"]
        held = node.waiting.slots()[0].message
        for data in (None, msgspec.Raw(b'{"order_id": 7}')):
            with pytest.raises(Invalid, match="Charged"):
                await plan(node, ask("resolve", held.id, data=data, decision="done"))
        event = msgspec.Raw(msgspec.json.encode(Charged("o1", 700, "ch")))
        planned = await plan(node, ask("resolve", held.id, data=event, decision="done"))
        assert planned.events == ("wallet.charged.v1",) and planned.answer is not None
        after = await plan_answer(virtual.nodes["order"], planned.answer)
        assert after.how == "apply" and after.sends
        with pytest.raises(Invalid, match="nonsense"):
            await plan_answer(virtual.nodes["order"], msgspec.structs.replace(planned.answer, type="nonsense"))


def test_who_does_not_answer_has_not_said_that_nothing_is_left() -> None:
    """Where nobody who answered knows an id, the story does not say that nothing is left to happen."""
    answers = [WhyAnswer("depot")]
    title = tell("o1" * 50_000, answers, trail_of(answers), {"desk": "Unauthorized"}, 1).title
    assert "not known" in title and "nothing is left" not in title and len(title) < 400
    assert call(["why", "", "--url", "desk=http://127.0.0.1:1"]) == 2


echo = Contract("echo")


@echo.event
class Heard(Event):
    order: str


@echo.command(key="order")
class Hear(Command[Heard]):
    order: str


def listener(broken: set[str]) -> Service:
    """A service with two reactions to the same event."""
    service = Service(echo, owner="team-echo", retry=Retry(attempts_max=1))

    @service.aggregate
    class Ear:
        @decide(creates=True)
        def hear(self, command: Hear) -> Heard:
            return Heard(command.order)

        @evolve
        def has(self, event: Heard) -> None:
            pass

    @service.reaction
    def first(event: Booked) -> Hear:
        if "first" in broken:
            raise RuntimeError("first")
        return Hear(event.order)

    @service.reaction
    def second(event: Booked) -> Hear:
        if "second" in broken:
            raise RuntimeError("second")
        return Hear(event.order)

    return service


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line knows the secret and the operator's token."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_TOKEN", TOKEN)
    monkeypatch.setenv("HOLDFAST_SECRET", SECRET)


async def said(capsys: pytest.CaptureFixture[str], far: Far, *tokens: str) -> tuple[int, Any]:
    """Exit code and what a verb says, run beside the services."""
    capsys.readouterr()
    flags = [flag for name, url in far.urls.items() for flag in ("--url", f"{name}={url}")]
    code = await asyncio.to_thread(call, [*tokens, *flags, "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else out.err


@pytest.mark.usefixtures("trusted")
async def test_one_event_that_parks_at_two_consumers_is_repaired_at_each(capsys: pytest.CaptureFixture[str]) -> None:
    """G11: two reactions of a service fail at one event. In bulk or by its id both are tried again, though the first
    fails once more; what one of them is to leave out is said by its stream. A service that is away makes the exit 1."""
    broken = {"first", "second"}
    services = [*system(Faults()).services.values(), listener(broken)]
    async with Far(System(services, name="all"), SECRET, operator_token=TOKEN) as far:
        client, node = Client.http(far.urls), far.nodes["echo"]
        await client.run(Sell("o1"))
        await until(lambda: sum(bool(slot.message.parked) for slot in node.waiting.slots()) == 2)
        (first, held), (second, _) = [(slot.stream, slot.message) for slot in node.waiting.slots()]
        who = ("--by", "on call", "--why", "mended")
        code, text = await said(capsys, far, "skip", held.id, *who)
        assert code == 2 and first in text and second in text
        broken.discard("second")
        code, done = await said(capsys, far, "retry", "--parked", *who)
        assert code == 0 and [one["how"] for one in done["results"]] == ["applied"] * 2
        await until(lambda: [slot.stream for slot in node.waiting.slots() if slot.message.parked] == [first])
        code, done = await said(capsys, far, "skip", held.id, "--stream", first, *who)
        assert code == 0 and len(done["results"]) == 1 and node.waiting.slots() == []
        await far.down("till")
        code, done = await said(capsys, far, "retry", "--parked", *who)
        assert code == 1 and list(done["silent"]) == ["till"] and done["results"] == []
        await client.close()


@pytest.mark.parametrize("changed", [False, True])
def test_a_retry_outlives_a_crash(changed: bool) -> None:
    """G8, G11: what was said to be tried again is tried though its service dies before it could be: nobody has to say
    it a second time, changed or not."""

    async def run() -> None:
        faults = Faults(broken={"take:tea"})
        async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
            task = sale(virtual, "o1")
            await asyncio.sleep(10)
            (found,) = parked(virtual.nodes["depot"])
            faults.broken.clear()
            store = virtual.stores["depot"]
            store.crash_before.add(store.commits + 2 + changed)
            data = msgspec.Raw(b'{"item": "tea", "order": "o1-b"}') if changed else None
            done = await repair(virtual.nodes["depot"], ask("retry", found.message, data=data))
            assert done.how == "applied"
            assert (await task).answer == Sold("o1") and virtual.crashes == ["depot"]
            orders = [body["order"] for body in bodies(virtual.log("depot"), "depot.taken.v1")]
            assert orders == (["o1-b"] if changed else ["o1"])

    run_virtual(run)


@virtual_time
async def test_what_would_not_fail_waits_behind_a_parked_message_all_the_same() -> None:
    """A stream with a parked message takes nothing past it, also what its handler would take; nor after a restart."""
    async with VirtualSystem(system(Faults(broken={"take:tea"}), retry=TWICE, deadline=0)) as virtual:
        sale(virtual, "o1")
        await asyncio.sleep(10)
        second = sale(virtual, "o2", items=("cup",), post="tea")
        for _ in range(2):
            await asyncio.sleep(10)
            assert not second.done() and "posted" not in types(virtual, "depot")
            await virtual.restart("depot")
        (found,) = parked(virtual.nodes["depot"])
        await repair(virtual.nodes["depot"], ask("skip", found.message))
        assert (await second).answer == Sold("o2")


async def test_why_shows_nothing_sensitive() -> None:
    """The card of a checkout is in no answer of /ops/why, whatever it is asked by."""
    card = "4111222233334444"
    checkout = {
        "order_id": "o1", "customer_id": "c1", "card_number": card,
        "items": [{"sku": "tea", "quantity": 1, "price_cents": 300}],
    }  # fmt: skip
    async with site(shop) as at:
        done = await at.web.post("/order/commands/checkout", checkout, X_Correlation_Id="label")
        for service in shop.services:
            for asked in (f"tx={done.headers['holdfast-transaction']}", "id=label", "id=o1"):
                body = (await at.web.get(f"/{service}/ops/why?{asked}")).body.decode()
                assert card not in body and (service != "order" or '"***"' in body)
