"""The trail: from records of all services to one tree, and what has not happened yet (G7)."""

import asyncio
import itertools
from typing import Any

from holdfast import Client, start
from holdfast.core.explain.trail import Item as Node
from holdfast.core.explain.trail import Trail, build
from holdfast.core.explain.tree import render
from holdfast.core.log.record import Record
from shop.contracts import Checkout, Item, Restock
from shop.services import order_service, shop

SAGAS: dict[str, Any] = {"order": order_service.sagas}


async def records_of(card: str) -> dict[str, list[Record]]:
    """Every service's records of one checkout."""
    async with start(shop, store="memory:") as running:
        client = Client.of(running)
        await client.run(Restock("tea", 5))
        outcome = await client.send(Checkout("o1", "c1", (Item("tea", 2, 300),), card), correlation="c-1")
        await asyncio.sleep(0.05)
        return {name: await node.records_of(tx=outcome.tx) for name, node in running.nodes.items()}


def walk(items: tuple[Node, ...]) -> list[Node]:
    """Every item of the tree."""
    return [found for item in items for found in (item, *walk(item.children))]


def upto(records: dict[str, list[Record]], order: int) -> Trail:
    """The trail as it was when order's log ended at the position of its `order`th record."""
    log = records["order"][:order]
    known = {f"order@{record.position}" for record in log}
    others = {
        name: [record for record in found if record.cause in known]
        for name, found in records.items()
        if name != "order"
    }
    return build({"order": log, **others}, SAGAS)


async def test_a_settled_transaction_is_one_tree() -> None:
    """All records of a checkout hang under one root by their causes, each once; nothing is unfinished."""
    records = await records_of("4242")
    trail = build(records, SAGAS)
    items = walk(trail.roots)
    assert len({item.id for item in items}) == len(items) == trail.counted == sum(map(len, records.values()))
    assert trail.unfinished == () and len(trail.transactions) == 1
    assert all(child.record.cause == item.id for item in items for child in item.children)
    assert {item.service for item in items} == set(shop.services)
    assert {item.record.cause for item in trail.roots} == {trail.transactions[0]}
    assert "settled" in render(trail) and "stock.reserved.v1" in render(trail)


async def test_an_undone_transaction_is_settled() -> None:
    """A saga that was undone has ended: nothing of it is unfinished (G4)."""
    trail = build(await records_of("0002"), SAGAS)
    assert trail.unfinished == ()


async def test_what_is_open_and_what_comes_next() -> None:
    """Cut anywhere before its end, the trail names the open saga; what comes next shrinks step by step."""
    records = await records_of("4242")
    left: list[tuple[str, ...]] = []
    for cut in range(1, len(records["order"])):
        trail = upto(records, cut)
        open_ = [found for found in trail.unfinished if found.what == "saga"]
        if any(record.type == "order.checked_out.v1" for record in records["order"][:cut]):
            continue
        assert len(open_) == 1 and open_[0].why.startswith("CheckoutSaga/")
        left.append(open_[0].next)
        assert "unfinished:" in render(trail)
    assert left[0] == ("place", "reserve", "charge", "confirm (the pivot)", "ship", "answer done")
    assert left[-1] == ("answer done",)
    assert all(len(after) <= len(before) for before, after in itertools.pairwise(left))


async def test_commands_without_outcome_are_named() -> None:
    """A command its receiver has not handled is unfinished there; a receiver that was not asked is said to be."""
    records = await records_of("4242")
    command = next(record for record in records["order"] if record.destination == "stock")
    log = [record for record in records["order"] if record.position <= command.position]
    (found,) = [f for f in build({"order": log}).unfinished if f.what == "command" and f.service == "stock"]
    assert "was not asked" in found.why and found.id == f"order@{command.position}"
    asked = build({"order": log, "stock": []}).unfinished
    assert any(f.what == "command" and f.service == "stock" and "has not handled" in f.why for f in asked)


async def test_an_answer_not_taken_is_named() -> None:
    """An answer that its receiver has not taken yet is unfinished, at the receiver."""
    records = await records_of("4242")
    answer = next(record for record in records["stock"] if record.destination == "order")
    log = [record for record in records["order"] if record.cause != f"stock@{answer.position}"]
    assert any(f.what == "answer" and f.service == "order" for f in build({**records, "order": log}).unfinished)


async def test_undoing_says_what_is_undone_next() -> None:
    """While a saga is being undone, what comes next are the undos left, last step first."""
    records = await records_of("0002")
    place = next(n for n, r in enumerate(records["order"]) if r.type == "holdfast.saga.undoing")
    (found,) = [f for f in upto(records, place + 1).unfinished if f.what == "saga"]
    assert found.why.startswith("CheckoutSaga/") and ": undoing" in found.why
    assert found.next == ("undo of reserve", "undo of place")


def test_causes_in_a_circle_and_absent_ones_are_shown() -> None:
    """Whatever comes over the wire, each record stands in the tree once: nothing is dropped, nothing loops."""

    def record(position: int, cause: str) -> Record:
        return Record(position, "event", "a.b.v1", b"{}", "t", cause, position)

    trail = build({"a": [record(1, "a@2"), record(2, "a@1"), record(3, "z@9"), record(4, "a@4"), record(5, "a@3")]})
    assert sorted(item.id for item in walk(trail.roots)) == [f"a@{n}" for n in range(1, 6)]
    assert build({}).roots == () and build({"a": []}).counted == 0


def test_a_long_chain_needs_no_recursion() -> None:
    """Five thousand records, each caused by the one before, make a tree and its text."""
    chain = [Record(n, "event", "a.b.v1", b"{}", "t", f"a@{n - 1}", n) for n in range(1, 5001)]
    trail = build({"a": chain})
    assert trail.counted == 5000 and len(render(trail).splitlines()) >= 5000
