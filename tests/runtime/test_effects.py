"""Effects in virtual time: whatever breaks where, nobody is charged twice and nobody's call is forgotten (G5).

The office and the messages are those of examples/cards; the wallet's provider is that of
support/systems/payments.py, which charges every request that reaches it: what keeps a card from being charged twice is
what is tested.
"""

import asyncio
from typing import Any

import msgspec
import pytest

from cards.contracts import Bought, Charge, Charged
from holdfast import Rejected, Rejection
from holdfast.core.log.batch import Batch, Row
from holdfast.errors import Contradicted, KeyReused, Pending
from holdfast.runtime.ops.repair import Ask, RepairResult, repair
from holdfast.runtime.ops.why import parked
from holdfast.stores.memory import MemoryStore
from holdfast.testing import Fault, Schedule, VirtualSystem, replay, run_virtual, virtual_time
from support import scenarios
from support.systems.payments import Provider, buy, judge, notes, office, resolve_all


@virtual_time
async def test_a_call_that_answers_is_the_outcome() -> None:
    """Done: the event is the answer, the attempt was durable before the call left, nobody is asked anything else; and
    a no of the provider is a no of the step, which gives the seat back and refunds nothing."""
    provider = Provider()
    provider.declines.add("o2")
    async with office(provider) as virtual:
        assert await buy(virtual) == Bought("o1", "seat o1", 700)
        assert provider.seen == [["holdfast.effect.attempted"]] and notes(virtual) == ["attempted"]
        assert [(kind, order, number) for kind, order, _, number in provider.calls] == [("charge", "o1", 1)]
        assert len(provider.calls[0][2]) == 32
        no = await buy(virtual, "o2")
        assert isinstance(no, Rejection) and no.code == "declined"
        await virtual.settle()
        judge(virtual, provider, {"o1": None, "o2": no} | {"o1": Bought("o1", "seat o1", 700)})
        assert provider.calls[0][2] != provider.calls[1][2], "two messages, one key"


@virtual_time
async def test_what_certainly_has_not_happened_is_made_again() -> None:
    """NotDone: the same call, the same key, the next number, after a delay; the probe is not needed."""
    provider = Provider()
    provider.faults["o1"] = ["not done"] * 3
    async with office(provider) as virtual:
        answer = await buy(virtual)
        assert isinstance(answer, Bought)
        assert provider.numbers("charge", "o1") == [1, 2, 3, 4] and provider.numbers("probe", "o1") == []
        judge(virtual, provider, {"o1": answer})


@pytest.mark.parametrize(
    ("faults", "probe_faults", "declined", "charges", "probes", "noted"),
    [
        (["lost after"], [], False, [1], [1], ["attempted", "unknown", "probed done"]),
        (["lost after"], [], True, [1], [1], ["attempted", "unknown", "probed refused"]),
        (["lost before"], [], False, [1, 2], [1],
         ["attempted", "unknown", "probed not done", "attempted"]),
        (["lost before", "lost after"], [], False, [1, 2], [1, 2],
         ["attempted", "unknown", "probed not done", "attempted", "unknown", "probed done"]),
        (["lost after"], ["lost", "lost"], False, [1], [1, 1, 1], ["attempted", "unknown", "probed done"]),
        (["2.6"], [], False, [1], [1, 1], ["attempted", "unknown", "probed done"]),
    ],
    ids=["done", "refused", "nothing", "nothing, then done", "the probe fails first", "it takes too long"],
)  # fmt: skip
def test_what_is_unknown_is_asked_about(
    faults: list[str], probe_faults: list[str], declined: bool, charges: list[int], probes: list[int], noted: list[str]
) -> None:
    """A call that ends in neither yes nor no, or takes too long, is unknown: its probe is asked, as often as it takes,
    before anything is made again; and each of that is on record, part of the sale's trail."""

    async def run() -> None:
        provider = Provider()
        provider.faults["o1"], provider.probe_faults["o1"] = faults.copy(), probe_faults.copy()
        provider.declines.update(["o1"] if declined else [])
        async with office(provider) as virtual:
            answer = await buy(virtual)
            assert isinstance(answer, Bought) == (not declined)
            assert provider.numbers("charge", "o1") == charges and provider.numbers("probe", "o1") == probes
            assert notes(virtual) == noted
            await virtual.settle()
            judge(virtual, provider, {"o1": answer})
            assert len({record.tx for record in virtual.log("wallet") if record.tx}) == 1

    run_virtual(run)


@pytest.mark.parametrize("decision", ["done", "refused"])
def test_what_cannot_be_asked_waits_for_a_person(decision: str) -> None:
    """Without a probe, and not idempotent, an unknown call is parked at once and in view; neither a restart nor a retry
    makes it again; a person who has looked says what became of it, and the sale ends accordingly."""

    async def run() -> None:
        provider = Provider()
        provider.faults["o1"] = ["lost after" if decision == "done" else "lost before"]
        async with office(provider, probe=False) as virtual:
            sale = buy(virtual)
            await asyncio.sleep(3)
            others = [await buy(virtual, f"x{n}") for n in range(3)]
            assert all(isinstance(one, Bought) for one in others)
            for restarted in (False, True):
                if restarted:
                    await virtual.restart("wallet")
                (found,) = parked(virtual.nodes["wallet"])
                assert found.unknown and found.owner == "team-money" and found.type == "wallet.charge.v1"
                assert "unknown, and there is no probe" in found.error
                assert [action.flags for action in found.actions] == ["--done --data EVENT", "--refused"]
                await repair(virtual.nodes["wallet"], Ask("retry", found.message, "on call", "try"))
                await asyncio.sleep(100)
            assert provider.numbers("charge", "o1") == [1] and not sale.done()
            event = Charged("o1", 700, provider.calls[0][2])
            data = msgspec.Raw(msgspec.json.encode(event)) if decision == "done" else None
            ask = Ask("resolve", found.message, "on call", "looked it up", data, decision)
            assert (await repair(virtual.nodes["wallet"], ask)).how == "applied"
            answer = await sale
            await virtual.settle()
            assert provider.numbers("charge", "o1") == [1]
            judge(virtual, provider, {"o1": answer})

    run_virtual(run)


@virtual_time
async def test_nothing_is_called_after_a_person_has_spoken() -> None:
    """A call's time comes while a person's word on it is being flushed: the word counts, and nobody is called."""
    provider = Provider()
    provider.faults["o1"], provider.probe_faults["o1"] = ["lost before"], ["lost"] * 3
    async with office(provider) as virtual:
        sale, node, store = buy(virtual), virtual.nodes["wallet"], virtual.stores["wallet"]
        while len(provider.numbers("probe", "o1")) < 3:  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        (slot,) = node.waiting.slots()
        assert slot.message.unknown and not slot.running
        calls, store.flush_seconds = len(provider.calls), 2
        assert (
            await repair(node, Ask("resolve", slot.message.id, "on call", "looked", None, "refused"))
        ).how == "applied"
        store.flush_seconds = 0.001
        answer = await sale
        await virtual.restart("wallet")
        await asyncio.sleep(10)
        assert provider.calls[calls:] == []
        judge(virtual, provider, {"o1": answer})


async def failed_flush(virtual: VirtualSystem, *, during: str) -> None:
    """The wallet's next flush fails, made by a sale of that order; what waits there is read from the store again."""
    store, node = virtual.stores["wallet"], virtual.nodes["wallet"]
    store.failing = True
    sale = buy(virtual, during)
    while not node.writer.shut:  # noqa: ASYNC110 - asked, not told
        await asyncio.sleep(0.001)
    store.failing = False
    while node.writer.shut:  # noqa: ASYNC110 - asked, not told
        await asyncio.sleep(0.001)
    assert isinstance(await sale, Bought)


@virtual_time
async def test_nothing_is_called_on_what_was_not_flushed() -> None:
    """G5: an attempt whose flush failed was not made. While the service reads again what waits nobody is called: a call
    that was made then had been cancelled in between and answered so, and the card was charged for nothing.
    (Found by the explorer: a refused commit, a clock that jumps, and latencies drawn by chance.)"""
    provider = Provider()
    async with office(provider) as virtual:
        store = virtual.stores["wallet"]
        sale = buy(virtual)
        while not store.commits:  # noqa: ASYNC110 - the charge waits; its attempt is flushed next
            await asyncio.sleep(0.0001)
        store.failing = True
        await asyncio.sleep(0.01)
        assert virtual.nodes["wallet"].writer.shut
        store.failing = False
        answer = await sale
        assert isinstance(answer, Bought) and notes(virtual) == ["attempted"]
        assert [(kind, number) for kind, _, _, number in provider.calls] == [("charge", 1)]
        judge(virtual, provider, {"o1": answer})


def test_what_the_explorer_found_of_calls_and_failed_flushes() -> None:
    """The schedule that found it."""
    faults = (Fault("clock_ahead", "order", 3), Fault("refuse", "wallet", 2))
    assert replay(scenarios.cards, scenarios.in_cards, Schedule(faults, 1472852157, jitter=True)).hit


@virtual_time
async def test_a_call_in_the_air_stays_so_when_what_waits_is_read_again() -> None:
    """After a failed flush nobody decides on a call before it has ended: a person's word on it is refused as before,
    and its outcome counts."""
    provider = Provider()
    provider.faults["o1"] = ["9"]
    async with office(provider, seconds=20) as virtual:
        sale = buy(virtual)
        await asyncio.sleep(0.5)
        await failed_flush(virtual, during="o2")
        (found,) = parked(virtual.nodes["wallet"], everything=True)
        with pytest.raises(Contradicted, match="being carried out"):
            await repair(virtual.nodes["wallet"], Ask("resolve", found.message, "on call", "no", None, "refused"))
        answer = await sale
        assert provider.numbers("charge", "o1") == [1] and provider.numbers("probe", "o1") == []
        await virtual.settle()
        judge(virtual, provider, {"o1": answer})


@virtual_time
async def test_a_call_whose_message_is_gone_brings_it_not_back(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever took a message away while its call was in the air: where the call fails nothing waits again."""
    provider = Provider()
    provider.faults["o1"] = ["lost before"]
    async with office(provider) as virtual:
        sale, node = buy(virtual), virtual.nodes["wallet"]
        while not provider.calls:  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.001)
        (slot,) = node.waiting.slots()
        await MemoryStore.commit(virtual.stores["wallet"], [Batch(rows=(Row("waiting", slot.key, None),))])
        node.waiting.remove(slot)
        await asyncio.sleep(2)
        assert await node.store.scan("waiting") == [] and "unexpected error" not in caplog.text
        sale.cancel()


@virtual_time
async def test_a_retry_does_not_bring_back_what_is_resolved() -> None:
    """Of a resolve and a retry that come within one flush the first counts; after a restart nothing waits any more."""
    provider = Provider()
    provider.faults["o1"] = ["lost before"]
    async with office(provider, probe=False) as virtual:
        sale, node = buy(virtual), virtual.nodes["wallet"]
        await asyncio.sleep(3)
        (found,) = parked(node)
        words = [Ask(kind, found.message, "on call", "looked", None, "refused") for kind in ("resolve", "retry")]
        said = await asyncio.gather(*(repair(node, word) for word in words), return_exceptions=True)
        assert [type(one) for one in said] == [RepairResult, Contradicted]
        answer = await sale
        await virtual.restart("wallet")
        assert parked(virtual.nodes["wallet"], everything=True) == []
        judge(virtual, provider, {"o1": answer})


@virtual_time
async def test_what_is_idempotent_is_made_again_with_its_key() -> None:
    """Idempotent, without a probe: an unknown call is made again, with the key that it had; a provider that honours
    keys charges once."""
    provider = Provider(keys=True)
    provider.faults["o1"] = ["lost after", "lost before", "3"]
    async with office(provider, probe=False, idempotent=True) as virtual:
        answer = await buy(virtual)
        await virtual.settle()
        assert len(provider.numbers("charge", "o1")) >= 4
        judge(virtual, provider, {"o1": answer})


HOW: dict[str, tuple[int, dict[str, Any]]] = {
    "probe, no keys": (5, {"keys": False, "probe": True}),
    "keys, no probe": (7, {"keys": True, "probe": False, "idempotent": True}),
    "neither": (0, {"keys": False, "probe": False}),
}
"""How the wallet and its provider are made -> how many of ten sales are good at least."""
FAULTS = {"o1": "lost after", "o2": "lost before", "o3": "lost after", "o4": "2.5", "o5": "6", "o6": "not done"}


async def day(who: str, number: int, after: bool, *, keys: bool, **how: Any) -> tuple[bool, int]:
    """Ten sales, one with each fault, `who` crashing at that commit; judged. Whether it did, and the good sales."""
    provider = Provider(keys=keys)
    provider.faults |= {order: [fault] for order, fault in FAULTS.items()}
    provider.declines.add("o3")
    async with office(provider, **how) as virtual:
        (virtual.stores[who].crash_after if after else virtual.stores[who].crash_before).add(number)
        sales: dict[str, asyncio.Task[Any]] = {}
        for n in range(10):
            sales[f"o{n}"] = buy(virtual, f"o{n}")
            await asyncio.sleep(virtual.random.random() * 0.1)
        await asyncio.wait(sales.values(), timeout=40)
        if not any([how["probe"], how.get("idempotent")]):
            assert not any(sales[order].done() for order in ("o1", "o2", "o5")), "who knew?"
            await resolve_all(virtual, provider)
        answers = {order: await asyncio.wait_for(sale, 100) for order, sale in sales.items()}
        await virtual.settle()
        judge(virtual, provider, answers)
        return bool(virtual.crashes), sum(isinstance(one, Bought) for one in answers.values())


@pytest.mark.parametrize("who", ["order", "wallet"])
@pytest.mark.parametrize("how", list(HOW))
def test_a_crash_at_any_commit_charges_nobody_twice(how: str, who: str) -> None:
    """G5: whoever crashes, before or after whichever commit, while answers and requests are lost and calls take too
    long: each card is charged once or not at all, what was charged in vain is given back, every sale ends, and what
    nobody can know waits in view."""
    least, made = HOW[how]
    for after in (False, True):
        number, crashed = -1, True
        while crashed:
            number += 2  # before and after every other commit: between any two commits once
            crashed, good = run_virtual(lambda: day(who, number, after, **made), seed=number)  # noqa: B023 - at once
            assert good >= least
        assert number > 40, "crashed at so few commits?"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cancel_that_meets_a_call_waits_for_its_outcome(restarted: bool) -> None:
    """A sale cancelled while its call is in the air is not answered before that is known: then the charge is given
    back, once; a restart meanwhile changes nothing of it."""

    async def run() -> None:
        provider = Provider()
        provider.faults["o1"] = ["9"]
        async with office(provider, seconds=20) as virtual:
            sale = buy(virtual)
            await asyncio.sleep(6)
            if restarted:
                await virtual.restart("wallet")
            await asyncio.sleep(2)
            assert not sale.done() and provider.lines == []
            answer = await sale
            await virtual.settle()
            assert answer.code == "deadline" and [kind for kind, _, _ in provider.lines] == ["charge", "refund"]
            judge(virtual, provider, {"o1": answer})

    run_virtual(run)


@virtual_time
async def test_a_cancel_before_the_attempt_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A charge that has not been tried when its sale is cancelled is answered cancelled, and is never made."""
    monkeypatch.setattr("holdfast.runtime.execute.effects.CALLS_MAX", 1)
    provider = Provider()
    provider.faults["o1"] = ["8"]
    async with office(provider, seconds=20) as virtual:
        first = buy(virtual)
        await asyncio.sleep(0.5)
        second = buy(virtual, "o2")
        answers = {"o1": await first, "o2": await second}
        assert answers["o2"].code == "deadline"
        await virtual.settle()
        assert provider.numbers("charge", "o2") == [] and provider.count("refund", "o1") == 1
        judge(virtual, provider, answers)


@pytest.mark.parametrize("faults", [["not done"] * 99, ["lost before"]], ids=["the provider is down", "unknown"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_cancel_is_heard_when_nothing_was_done(faults: list[str], restarted: bool) -> None:
    """A sale cancelled while its charge has certainly not happened, or it is not known whether, is answered cancelled
    as soon as it is known that nothing was done: it is not charged first, to be given back."""

    async def run() -> None:
        provider = Provider()
        provider.faults["o1"], provider.probe_faults["o1"] = faults.copy(), ["lost"] * 10
        async with office(provider) as virtual:
            sale = buy(virtual)
            if restarted:
                await asyncio.sleep(5.2)
                await virtual.restart("wallet")
            answer = await asyncio.wait_for(sale, 15)
            await virtual.settle()
            assert answer.code == "deadline" and provider.lines == []
            judge(virtual, provider, {"o1": answer})

    run_virtual(run)


@virtual_time
async def test_a_caller_waits_asks_again_and_hears_the_outcome() -> None:
    """From the edge: who asks for an effect waits for its outcome, gets `Pending` when it is not known in time, and
    with the same key hears the one outcome, whether meanwhile, later, or after a crash; another content is refused."""
    provider = Provider()
    provider.faults |= {"o1": ["1.5"], "o2": ["lost after"]}
    provider.declines.add("o3")
    async with office(provider) as virtual:
        charge = Charge("o1", 700, "4111")
        with pytest.raises(Pending):
            await virtual.client.run(charge, key="k1", wait_seconds=0.5)
        again = await asyncio.gather(*(virtual.client.run(charge, key="k1") for _ in range(3)))
        (line,) = provider.lines
        assert again == [Charged("o1", 700, line[1])] * 3
        assert (await virtual.client.run(Charge("o2", 700, "4111"), key="k2")).order_id == "o2"
        with pytest.raises(Rejected, match="declined"):
            await virtual.client.run(Charge("o3", 700, "4111"), key="k3")
        await virtual.restart("wallet")
        assert await virtual.client.run(charge, key="k1") == again[0]
        with pytest.raises(Rejected, match="declined"):
            await virtual.client.run(Charge("o3", 700, "4111"), key="k3")
        with pytest.raises(KeyReused, match="amount_cents"):
            await virtual.client.run(Charge("o1", 800, "4111"), key="k1")
        assert [order for kind, order, _, _ in provider.calls if kind == "charge"] == ["o1", "o2", "o3"]


@virtual_time
async def test_one_stream_keeps_its_order_and_others_flow() -> None:
    """Commands of one key are carried out one after another in the order they came, also past one whose outcome is not
    known; those of other keys do not wait for them."""
    provider = Provider()
    provider.faults["o1"] = ["1.8", "lost after"]
    async with office(provider) as virtual:
        run, began = virtual.client.run, asyncio.get_running_loop().time()
        mine = [asyncio.ensure_future(run(Charge("o1", n, "4111"), key=f"k{n}")) for n in range(4)]
        await asyncio.gather(*(run(Charge(f"x{n}", 1, "4111")) for n in range(30)))
        assert asyncio.get_running_loop().time() - began < 0.5 and not any(one.done() for one in mine)
        assert [(await one).amount_cents for one in mine] == [0, 1, 2, 3]
        keys = [key for kind, order, key, _ in provider.calls if order == "o1"]
        assert len(set(keys)) == 4 and keys == [keys[0], keys[1], keys[1], keys[3], keys[4]], "one overtook another"
        assert provider.count("charge", "o1") == 4


@virtual_time
async def test_calls_at_a_time_are_bounded() -> None:
    """However many effects there are to carry out, 64 calls are in the air at most; all are made."""
    provider = Provider()
    provider.seconds = 0.3
    async with office(provider) as virtual:
        sales = {f"o{n}": buy(virtual, f"o{n}") for n in range(200)}
        answers = {order: await sale for order, sale in sales.items()}
        assert provider.at_once == 64 and all(isinstance(one, Bought) for one in answers.values())
        judge(virtual, provider, answers)


@virtual_time
async def test_an_outcome_that_cannot_be_written_is_asked_for() -> None:
    """A store that takes no commits when the answer comes: the outcome is unknown, is asked for when the store is back,
    and the call is not made again."""
    provider = Provider()
    provider.faults["o1"] = ["1"]
    async with office(provider) as virtual:
        sale = buy(virtual)
        await asyncio.sleep(0.5)
        virtual.stores["wallet"].failing = True
        await asyncio.sleep(2)
        virtual.stores["wallet"].failing = False
        answer = await sale
        assert isinstance(answer, Bought) and provider.numbers("charge", "o1") == [1]
        judge(virtual, provider, {"o1": answer})


@virtual_time
async def test_a_call_that_is_cancelled_from_within_is_unknown() -> None:
    """A call whose own library cancels it (a pool that closes) is unknown like any that fails: its stream goes on."""
    provider = Provider()
    provider.faults["o1"] = ["cancelled"]
    async with office(provider) as virtual:
        answer = await asyncio.wait_for(buy(virtual), 30)
        assert notes(virtual) == ["attempted", "unknown", "probed not done", "attempted"]
        judge(virtual, provider, {"o1": answer})


@pytest.mark.parametrize("seconds", ["3", "12"])
def test_a_service_that_stops_leaves_no_call_behind(seconds: str) -> None:
    """A service that is stopped lets its calls end, for 5 s; what takes longer is cut off, and asked about when the
    service is back."""

    async def run() -> None:
        provider = Provider()
        provider.faults["o1"] = [seconds]
        async with office(provider, seconds=20) as virtual:
            sale = buy(virtual)
            await asyncio.sleep(0.5)
            tasks = asyncio.all_tasks()
            node = virtual.nodes.pop("wallet")
            del virtual.transport.peers["wallet"]
            await node.close()
            calls = [task for task in tasks if "Effects._run" in str(task.get_coro())]
            assert calls and all(task.done() for task in calls)
            await virtual.start("wallet")
            answer = await sale
            await virtual.settle()
            assert provider.numbers("charge", "o1") == [1]
            assert bool(provider.numbers("probe", "o1")) == (seconds == "12")
            judge(virtual, provider, {"o1": answer})

    run_virtual(run)
