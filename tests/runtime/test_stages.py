"""Staged commit: held, voted on, committed or cancelled; visible to nobody before (G6)."""

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from holdfast import Rejection, Service, answer, pivot, step
from holdfast import undo as undoes
from holdfast.core.log.batch import Conflict
from holdfast.errors import Misuse
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from support.systems.deals import ask, until
from support.systems.trades import Move, Moved, Order, Trade, Traded, balances, desk, events, make, system


@virtual_time
async def test_all_of_it_or_none() -> None:
    """G6: voted yes by all it is there in every service; one no, and nothing is, nor any lock."""
    async with VirtualSystem(system()) as virtual:
        client = virtual.client
        await client.run(Move("a", 100))
        yes = await client.run(Trade("d1", (("a", -30), ("b", 30)), (("b", 5), ("a", -5)), ("tea", "mug")), key="k1")
        assert yes == Traded("d1")
        await virtual.settle()
        assert balances(virtual) == {"a": 65, "b": 35} and len(events(virtual, "shop")) == 2
        for number, bad in enumerate(
            (
                Trade("d2", (("a", -30), ("b", -99)), (), ("tea",)), Trade("d3", (("a", -30),), (), ("tea",), "no"),
                Trade("d4", (("a", -30),), (), ("tea", "mug"), "raises"),
            )
        ):  # fmt: skip
            outcome = await client.send(bad, key=f"bad{number}")
            assert outcome.answer.code == ("poor", "no", "failed")[number]
            again = await client.send(bad, key=f"bad{number}")
            assert (again.tx, again.answer) == (outcome.tx, outcome.answer)
        await virtual.settle()
        assert balances(virtual) == {"a": 65, "b": 35} and len(events(virtual, "shop")) == 2
        assert all(not node.dispatch.stages.held for node in virtual.nodes.values())
        assert await client.run(Move("a", -65)) == Moved("a", -65)


@virtual_time
async def test_nothing_shows_before_the_commit_point() -> None:
    """G6: while a transaction holds streams, its events are in no log and no state; plain commands on them wait in
    order, others go on; then each is decided on what was committed."""
    async with VirtualSystem(system()) as virtual:
        client = virtual.client
        await client.run(Move("a", 100))
        virtual.transport.cut.add("shop")
        trading = asyncio.ensure_future(client.send(Trade("d1", (("a", -30),), (), ("tea",))))
        await until(lambda: "Account/a" in virtual.nodes["bank"].dispatch.stages.held)
        plain = [asyncio.ensure_future(client.run(Move("a", -10 * n))) for n in (1, 2, 3)]
        assert await client.run(Move("other", 1)) == Moved("other", 1)
        await asyncio.sleep(2)
        assert balances(virtual)["a"] == 100 and not any(one.done() for one in [trading, *plain])
        virtual.transport.cut.clear()
        assert (await trading).answer == Traded("d1")
        await asyncio.gather(*plain)
        amounts = [
            msgspec.json.decode(one.data)["amount"] for one in events(virtual, "bank") if one.stream == "Account/a"
        ]
        assert amounts == [100, -30, -10, -20, -30]


@virtual_time
async def test_what_is_held_is_not_decided_upon() -> None:
    """G6: two transactions want what only one can have: the second is not decided on what the first has not committed,
    nor on what it may yet take; one of them gets it, the other is told no by what is then there."""
    async with VirtualSystem(system()) as virtual:
        client = virtual.client
        await client.run(Move("a", 50))
        virtual.transport.cut.add("shop")
        tasks = [
            asyncio.ensure_future(client.send(Trade(f"d{n}", (("a", -40),), (), ("tea",)), wait_seconds=60))
            for n in range(2)
        ]
        await asyncio.sleep(2)
        assert [len(held) for held in virtual.nodes["bank"].dispatch.stages.held.values()] == [1]
        virtual.transport.cut.clear()
        answers = [(await one).answer for one in tasks]
        assert sorted(type(one).__name__ for one in answers) == ["Rejection", "Traded"]
        assert {one.code for one in answers if isinstance(one, Rejection)} == {"poor"}
        await virtual.settle()
        assert balances(virtual) == {"a": 10}


@virtual_time
async def test_who_waits_at_the_edge_gets_a_turn_when_the_others_had_theirs() -> None:
    """G2: behind a lock a command from another service came first, then one from the edge: both go on, in that order,
    once the lock is gone."""
    async with VirtualSystem(system("bank", "shop", "desk", "office")) as virtual:
        client = virtual.client
        virtual.transport.cut.add("shop")
        trade = asyncio.ensure_future(client.send(Trade("d1", (("deposit", 1),), (), ("tea",))))
        await until(lambda: "Account/deposit" in virtual.nodes["bank"].dispatch.stages.held)
        order = asyncio.ensure_future(client.run(Order("o1", Trade("d2", ()))))
        await until(lambda: virtual.nodes["bank"].waiting.holds("Account/deposit"))
        plain = asyncio.ensure_future(client.run(Move("deposit", 100)))
        await asyncio.sleep(1)
        virtual.transport.cut.clear()
        await asyncio.gather(trade, order, plain)
        bodies = [msgspec.json.decode(one.data) for one in events(virtual, "bank")]
        assert [body["amount"] for body in bodies if body["account"] == "deposit"] == [1, 10, 100]


@pytest.mark.parametrize("seed", range(3))
def test_a_conflict_takes_back_what_was_held_and_let_go(seed: int) -> None:
    """G1: a batch that a store refuses leaves no lock, no second part and no message behind: it is decided again."""

    async def main() -> list[str]:
        async with VirtualSystem(system()) as virtual:
            rng = random.Random(seed)
            for name in ("bank", "shop"):
                refuse_some(virtual.stores[name], rng)
            trades = [
                Trade(
                    f"d{n}", ((rng.choice("ab"), -1),), ((rng.choice("ab"), 1),), ("tea",), rng.choice(("", "", "no"))
                )
                for n in range(12)
            ]
            answers = await scene(virtual, trades)
            return judged(virtual, answers, {one.deal: one for one in trades})

    assert run_virtual(main, seed=seed) == []


def refuse_some(store: Any, rng: random.Random) -> None:
    """Let a store say of some groups with locks in them that something has moved; it has not."""
    commit = store.commit

    async def refusing(batches: Any, **within: Any) -> Any:
        if any(row.kind in ("stage", "waiting") for batch in batches for row in batch.rows) and rng.random() < 0.4:
            await asyncio.sleep(0)
            return [Conflict("cursor", 0, 1) for _ in batches]
        return await commit(batches, **within)

    store.commit = refusing


@virtual_time
async def test_a_deadline_cancels_what_is_undecided() -> None:
    """G5, G6: a participant that does not answer in time cancels the transaction; its late vote changes nothing."""
    async with VirtualSystem(system()) as virtual:
        client = virtual.client
        await client.run(Move("a", 100))
        await virtual.crash("shop")
        outcome = await client.send(Trade("d1", (("a", -30),), (), ("tea",)))
        assert outcome.answer.code == "deadline"
        await asyncio.sleep(1)
        assert not virtual.nodes["bank"].dispatch.stages.held, "the bank is free though the shop is away"
        await virtual.start("shop")
        await virtual.settle()
        assert balances(virtual) == {"a": 100} and events(virtual, "shop") == []
        assert not virtual.nodes["shop"].dispatch.stages.held


@virtual_time
async def test_who_meets_gives_way_by_age() -> None:
    """G6: transactions that want the same accounts in opposite orders: none waits for ever, each is there whole or not
    at all, and money is neither made nor lost."""
    async with VirtualSystem(system()) as virtual:
        client = virtual.client
        names = ("a", "b", "c")
        for name in names:
            await client.run(Move(name, 1000))
        trades = [
            Trade(f"d{n}", ((names[n % 3], -1),), ((names[(n + 1 + n % 2) % 3], 1),), ("tea",)) for n in range(40)
        ]
        outcomes = await asyncio.gather(*(client.send(one, key=one.deal, wait_seconds=300) for one in trades))
        codes = Counter(one.answer.code if isinstance(one.answer, Rejection) else "yes" for one in outcomes)
        await virtual.settle()
        assert sum(balances(virtual).values()) == 3000
        assert set(codes) <= {"yes", "deadline"} and codes["yes"] >= 20, codes
        deals = Counter(msgspec.json.decode(one.data)["deal"] for one in events(virtual, "bank"))
        done = {one.deal for one, outcome in zip(trades, outcomes, strict=True) if outcome.answer == Traded(one.deal)}
        assert {deal for deal in deals if deal} == done and all(deals[deal] == 2 for deal in done)
        assert {msgspec.json.decode(one.data)["deal"] for one in events(virtual, "shop")} == done


@virtual_time
async def test_who_gave_way_is_tried_again_though_the_disk_is_slow() -> None:
    """G6: a flush takes longer than the pause before the next attempt: its timer comes due before its row is in the
    store, and is not lost by that."""
    async with VirtualSystem(system(), flush_seconds=0.1) as virtual:
        client = virtual.client
        moves = (("a", 1), ("b", 1))
        answers = await asyncio.gather(*(client.run(Trade(f"d{n}", moves), wait_seconds=60) for n in range(4)))
        assert answers == [Traded(f"d{n}") for n in range(4)]
        await virtual.settle()
        assert any(record.type == "holdfast.saga.again" for record in virtual.log("desk"))
        assert balances(virtual) == {"a": 4, "b": 4}


def test_what_cannot_be_staged_is_refused() -> None:
    """A pivot, an undo, a partial group, a step's deadline, a command that no aggregate decides: each by name."""
    for wrong in ("pivot", "undo", "partial", "deadline"):
        desks = Service(desk)
        with pytest.raises(Misuse, match=wrong):

            @desks.saga(staged=True)
            class Bad:
                trade: Trade

                if wrong == "pivot":

                    @pivot
                    def go(self) -> Move:
                        return Move("a", 1)
                else:

                    @step(partial=wrong == "partial", deadline_seconds=wrong == "deadline")
                    def go(self) -> Move:
                        return Move("a", 1)

                    if wrong == "undo":

                        @undoes(go)
                        def back(self, moved: Moved) -> Move:
                            return Move("a", -1)

                @answer
                def done(self) -> Traded:
                    return Traded("")


def test_types() -> None:
    """Every message of these tests has a decider."""
    found: dict[str, Any] = make()
    for service in found.values():
        service.check()


def judged(virtual: VirtualSystem, answers: dict[str, Any], trades: dict[str, Trade]) -> list[str]:
    """What the logs say that may not be: a trade answered yes is there whole and once, any other not at all."""
    wrong: list[str] = []
    found: dict[str, Counter[str]] = {}
    for name in ("bank", "shop"):
        for record in events(virtual, name):
            body = msgspec.json.decode(record.data)
            what = f"{body['account']}:{body['amount']}" if name == "bank" else body["sku"]
            found.setdefault(body["deal"], Counter())[what] += 1
    for deal, trade in trades.items():
        whole = Counter(f"{account}:{amount}" for account, amount in (*trade.moves, *trade.then))
        whole.update(trade.lists)
        expected = whole if isinstance(answers[deal], Traded) else Counter[str]()
        if found.get(deal, Counter()) != expected:
            wrong.append(f"{deal} was answered {answers[deal]!r}, and there is {found.get(deal)}")
    for name, node in virtual.nodes.items():
        wrong += [f"{name} still holds {stream}" for stream in node.dispatch.stages.held]
        wrong += [
            f"{name}: {row} is stored" for row in virtual.stores[name]._rows if row[0] in ("stage", "waiting", "saga")
        ]
    return wrong


SCENES = {
    "yes": [Trade("d1", (("a", -30), ("b", 30)), (("a", -5),), ("tea", "mug"))],
    "no": [Trade("d1", (("a", -30), ("b", -99)), (), ("tea",)), Trade("d2", (("a", -1),), (), ("tea",), "no")],
    "meet": [
        Trade("d1", (("a", -1),), (("b", 1),), ("tea",)), Trade("d2", (("b", -1),), (("a", 1),), ("tea",)),
        Trade("d3", (("a", -2), ("b", 2)), (), ()),
    ],
}  # fmt: skip


async def scene(virtual: VirtualSystem, trades: list[Trade]) -> dict[str, Any]:
    """The answers of these trades, asked side by side."""
    await ask(virtual, Move("a", 100), "a")
    await ask(virtual, Move("b", 50), "b")
    outcomes = await asyncio.gather(*(ask(virtual, one, one.deal) for one in trades))
    await virtual.settle()
    return {one.deal: outcome.answer for one, outcome in zip(trades, outcomes, strict=True)}


@pytest.mark.parametrize("name", SCENES)
def test_a_crash_at_any_commit_leaves_all_or_none(name: str) -> None:
    """G6: whoever crashes, before or after whichever commit: the decision stands, each service has all or none."""
    trades = SCENES[name]

    async def count() -> dict[str, int]:
        async with VirtualSystem(system()) as virtual:
            await scene(virtual, trades)
            return {name: store.commits for name, store in virtual.stores.items()}

    runs = 0
    for service, commits in run_virtual(count).items():
        for number in range(1, commits + 1):
            for after in (False, True):

                async def main(service: str = service, number: int = number, after: bool = after) -> list[str]:
                    async with VirtualSystem(system()) as virtual:  # as when it was counted, up to the crash
                        store = virtual.stores[service]
                        (store.crash_after if after else store.crash_before).add(number)
                        answers = await scene(virtual, trades)
                        assert virtual.crashes == [service]
                        return judged(virtual, answers, {one.deal: one for one in trades})

                assert run_virtual(main) == [], f"{service} {'after' if after else 'before'} {number}"
                runs += 1
    assert runs > 20


def many(seed: int, count: int) -> tuple[int, Counter[str]]:
    """Trades of all kinds at once over few accounts, random crashes and losses: (crashes, answers by kind)."""

    async def main() -> tuple[int, Counter[str]]:
        async with VirtualSystem(system(), loss=0.05, snapshot_every=5, streams_in_memory_max=4) as virtual:
            rng = random.Random(seed)
            names = ("a", "b", "c", "d")
            for name in names:
                await ask(virtual, Move(name, 1000), name)
            trades: dict[str, Trade] = {}
            for number in range(count):
                one, two, three = rng.sample(names, 3)
                moves = ((one, -rng.randrange(9)), (two, rng.randrange(9)))
                then = ((three, 1),) if rng.random() < 0.5 else ()
                how = rng.choice(("", "", "", "no", "raises"))
                trades[f"d{number}"] = Trade(f"d{number}", moves, then, ("tea",) if rng.random() < 0.6 else (), how)

            async def later(trade: Trade) -> Any:
                await asyncio.sleep(rng.random() * 6)
                return (await ask(virtual, trade, trade.deal, seconds=600)).answer

            async def plain(number: int) -> None:
                await asyncio.sleep(rng.random() * 6)
                await ask(virtual, Move(rng.choice(names), 1, f"plain{number}"), f"plain{number}", seconds=600)

            async def crashes() -> None:
                for _ in range(12):
                    await asyncio.sleep(rng.random())
                    store = virtual.stores[rng.choice(sorted(virtual.stores))]
                    (store.crash_before if rng.random() < 0.5 else store.crash_after).add(store.commits + 1)

            answers, _, _ = await asyncio.gather(
                asyncio.gather(*map(later, trades.values())), asyncio.gather(*map(plain, range(count // 2))), crashes()
            )
            await virtual.settle()
            await asyncio.sleep(30)  # until the last deadline has passed
            by_deal = dict(zip(trades, answers, strict=True))
            assert judged(virtual, by_deal, trades) == []
            assert [len(node.timers) for node in virtual.nodes.values()] == [0, 0, 0]
            kinds = Counter(one.code if isinstance(one, Rejection) else "yes" for one in answers)
            return len(virtual.crashes), kinds

    return run_virtual(main, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_many_transactions_survive_random_crashes(seed: int) -> None:
    """G6: forty staged transactions that meet on four accounts, plain commands between them, crashes and losses."""
    crashes, kinds = many(seed, 40)
    assert crashes >= 6 and kinds["yes"] >= 5, kinds


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_transactions_survive_many_random_crashes(seed: int) -> None:
    """The same, two hundred times."""
    assert many(seed, 40)[0] >= 4
