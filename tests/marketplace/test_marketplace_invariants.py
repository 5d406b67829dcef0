"""The marketplace's invariants: a run as it must be passes, each of them finds what is spoiled of it, and none says
anything wrong while the marketplace runs."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.core.audit.audit import Audit, Report
from holdfast.core.audit.cut import Seen, seen
from holdfast.core.audit.settled import Mark
from holdfast.errors import CommandError, StoreError
from holdfast.runtime.ops.audit import read_all
from holdfast.testing import VirtualSystem, run_virtual
from marketplace.contracts.product import UpdatePrice, UpdateProduct
from marketplace.contracts.shipment import UpdateDelivery
from marketplace.invariants import system
from support.systems.marketplace import buys, enter, row

FAR = 10**9


class History:
    """The events of a run, as an audit reads them; they can be changed."""

    def __init__(self, logs: dict[str, list[Seen]]) -> None:
        self.logs = {name: list(log) for name, log in logs.items()}

    def places(self, stored: str, **wanted: Any) -> list[int]:
        """Where the events of a name are that say so."""
        log = self.logs[stored.partition(".")[0]]
        return [
            n for n, one in enumerate(log)
            if one.type == f"{stored}.v1" and wanted.items() <= msgspec.json.decode(one.data).items()
        ]  # fmt: skip

    def lose(self, stored: str, place: int = 0, **wanted: Any) -> None:
        """Take one out."""
        del self.logs[stored.partition(".")[0]][self.places(stored, **wanted)[place]]

    def double(self, stored: str, place: int = 0, **wanted: Any) -> None:
        """One of them twice, one after the other."""
        log, at = self.logs[stored.partition(".")[0]], self.places(stored, **wanted)[place]
        log.insert(at, log[at])

    def swap(self, stored: str, one: int, other: int, **wanted: Any) -> None:
        """Two of them the other way round."""
        log, places = self.logs[stored.partition(".")[0]], self.places(stored, **wanted)
        log[places[one]], log[places[other]] = log[places[other]], log[places[one]]

    def change(self, stored: str, edit: Callable[[dict[str, Any]], Any], place: int = 0, *, tx: str = "") -> None:
        """One of them says something else, or is of another transaction."""
        log, at = self.logs[stored.partition(".")[0]], self.places(stored)[place]
        data = msgspec.json.decode(log[at].data)
        edit(data)
        log[at] = msgspec.structs.replace(log[at], data=msgspec.Raw(msgspec.json.encode(data)), tx=tx or log[at].tx)

    def report(self) -> Report:
        """What the invariants say of it."""
        found = Audit(system)
        reactions = [(name, one) for name, service in system.services.items() for one in service.reactions]
        for name, log in self.logs.items():
            cursors = {f"reaction:{one}:{peer}": FAR for owner, one in reactions if owner == name for peer in self.logs}
            records = [msgspec.structs.replace(one, position=n, cause=one.tx) for n, one in enumerate(log, 1)]
            found.take(name, records, len(records), head=len(records), mark=Mark(len(records), cursors))
        found.check()
        return found.report()


def event(service: str, position: int, name: str, says: dict[str, Any]) -> Seen:
    """An event by hand, in a transaction of its own."""
    tx, data = f"{service}{position}", msgspec.Raw(msgspec.json.encode(says))
    return Seen(position, "event", f"{service}.{name}.v1", tx, tx, 0, "", "", 0, "", False, data)


async def recorded() -> dict[str, list[Seen]]:
    """Checkouts of which one is declined, one is half refused and one wholly; prices, replacements, and deliveries, of
    which one comes in two parts. Events and answers alone."""
    async with VirtualSystem(system) as virtual:
        await enter(virtual, 3, 3)
        await virtual.ask(UpdatePrice(3, 1, 11.0, "0"))
        await virtual.ask(UpdatePrice(3, 2, 12.0, "0"))
        await virtual.settle()
        await buys(virtual, "c1", 1, (1, 1, 2), (2, 1, 1), (3, 1, 1), (3, 2, 1))
        await buys(virtual, "c2", 2, (2, 1, 3), card="0002")
        await virtual.settle()
        for tid in ("u1", "u2"):
            await virtual.ask(UpdateProduct(1, 2, row(1, 2, tid)), tid)
        await buys(virtual, "c3", 3, (2, 1, 1), (2, 2, 99))
        await buys(virtual, "c4", 3, (1, 2, 1))
        await buys(virtual, "c5", 1, (1, 1, 1))
        await virtual.settle()
        for tid in ("d1", "d2", "d3"):
            await virtual.ask(UpdateDelivery(tid), tid)
            await virtual.settle()
        await buys(virtual, "c6", 2, (3, 2, 1))
        await virtual.settle()
        assert (await virtual.audit()).passed
        return {
            name: [
                msgspec.structs.replace(seen(one), stream="", destination="")
                for one in virtual.log(name) if one.kind in ("event", "answer")
            ]
            for name in virtual.stores
        }  # fmt: skip


@pytest.fixture(scope="module")
def logs() -> dict[str, list[Seen]]:
    """Of one run."""
    return run_virtual(recorded)


def test_a_run_as_it_must_be_passes(logs: dict[str, list[Seen]]) -> None:
    """A recorded run has no violation, and every invariant has something to judge."""
    report = History(logs).report()
    assert report.violations == () and report.passed and not report.open


PAID, FAILED = "PAYMENT_PROCESSED", "PAYMENT_FAILED"
SPOILED: list[tuple[str, Callable[[History], None]]] = [
    ("ends_once", lambda h: h.lose("cart.checked_out")),
    ("ends_once", lambda h: h.double("cart.checked_out")),
    ("charged_once", lambda h: h.lose("payment.payment_confirmed")),
    ("charged_once", lambda h: h.double("payment.payment_confirmed")),
    ("charged_once", lambda h: h.change("payment.payment_confirmed", lambda e: e.update(vouchers=[]))),
    ("shipped_once", lambda h: h.lose("shipment.shipment_created", -1)),
    ("shipped_once", lambda h: h.change("shipment.shipment_created", lambda e: e["packages"][0].update(quantity=9))),
    ("amounts_add_up", lambda h: h.change("order.invoice_issued", lambda e: e.update(total_items=0.01))),
    ("nothing_held", lambda h: h.lose("stock.reserved")),
    ("nothing_held", lambda h: h.lose("stock.released")),
    ("nothing_held", lambda h: h.double("stock.released")),
    ("UnitsConserved", lambda h: h.lose("stock.stock_added")),
    ("CustomersCount", lambda h: h.lose("customer.counted", paid=1)),
    ("CustomersCount", lambda h: h.double("customer.counted", failed=1)),
    ("replaced_together", lambda h: h.change("stock.version_set", len, tx="another")),
    ("replaced_together", lambda h: h.lose("product.product_updated")),
    ("OneVersion", lambda h: h.swap("stock.version_set", 0, 1)),
    ("OneVersion", lambda h: h.lose("cart.replicated", -1)),
    ("OneVersion", lambda h: h.lose("cart.replicated", version="u1")),
    ("OneVersion", lambda h: h.change("cart.replicated", lambda e: e.update(price=0.5), -1)),
    ("delivered_together", lambda h: h.lose("seller.parcels_arrived")),
    ("delivered_together", lambda h: h.lose("shipment.delivery_updated")),
    ("delivered_together", lambda h: h.lose("shipment.delivery_concluded")),
    ("delivered_together", lambda h: h.double("shipment.delivery_started")),
    ("OrdersNumbered", lambda h: h.lose("order.order_numbered")),
    ("OrdersNumbered", lambda h: h.double("order.order_numbered")),
    ("OrdersNumbered", lambda h: h.swap("order.order_numbered", 0, -1, customer_id=1)),
    ("StatusesInOrder", lambda h: h.swap("order.order_status_changed", 0, 1)),
    ("CartsEmptied", lambda h: h.lose("cart.item_added")),
    ("CartsEmptied", lambda h: h.double("cart.item_added")),
    ("ShipmentsConclude", lambda h: h.change("shipment.packages_delivered", lambda e: e.update(concluded=False))),
    ("OldestFirst", lambda h: h.lose("shipment.enrolled")),
    ("OldestFirst", lambda h: h.swap("shipment.enrolled", 0, -1)),
    ("QuotesCausal", lambda h: h.change("cart.quoted", lambda e: e["items"][2].update(unit_price=10.0))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil"), SPOILED, ids=lambda one: one if isinstance(one, str) else "")
def test_each_invariant_finds_what_is_spoiled(
    logs: dict[str, list[Seen]], name: str, spoil: Callable[[History], None]
) -> None:
    """One event is lost, doubled, moved or changed: the invariant that is about it fails, no other, naming records."""
    history = History(logs)
    spoil(history)
    found = history.report().violations
    assert {one.invariant for one in found} == {name}
    assert all(one.records for one in found)


@pytest.mark.parametrize(
    ("shown", "kept", "wrong"),
    [((10, 10), [], False), ((15, 10), [], False), ((15, 15), [], False), ((10, 15), [], True), ((10, 15), [0], False)],
)
def test_the_causal_invariant_is_exact(shown: tuple[int, int], kept: list[int], *, wrong: bool) -> None:
    """Criterion 4: a later price beside one that was replaced before it is found; what is no anomaly is not, nor what a
    customer saw of another version (`kept`)."""
    item = {"product_name": "p", "freight_value": 1.0, "quantity": 1, "voucher": 0.0, "version": "0", "seller_id": 1}
    events = [("product_added", {"product": msgspec.structs.asdict(row(1, number))}) for number in (1, 2)]
    for number, price, applied in ((1, 15.0, True), (2, 15.0, True), (1, 99.0, False)):
        says = {"seller_id": 1, "product_id": number, "price": price, "version": "0", "applied": applied}
        events.append(("price_updated", says))
    items = [item | {"product_id": number, "unit_price": price} for number, price in enumerate(shown, 1)]
    quote = {"shelf": 0, "customer_id": 1, "tid": "t", "items": items, "kept": kept}
    product = [event("product", place, name, says) for place, (name, says) in enumerate(events, 1)]
    history = History({"product": product, "cart": [event("cart", 1, "quoted", quote)]})
    assert ("QuotesCausal" in {one.invariant for one in history.report().violations}) == wrong


def test_each_invariant_is_spoiled() -> None:
    """None is forgotten."""
    assert {name for name, _ in SPOILED} == set(system.invariants)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_wrong_while_it_runs(seed: int) -> None:
    """From the first seller entered to the last parcel, with crashes and losses, an audit that follows finds nothing
    wrong at any moment: what depends on an order does not take what is in flight for a violation."""
    rng, said, rounds = random.Random(seed), list[str](), 0

    async def follow(virtual: VirtualSystem) -> None:
        nonlocal rounds
        audit = Audit(system)
        while True:
            await asyncio.sleep(rng.random() / 20)
            if audit.stale:
                audit = Audit(system)
            try:
                await read_all(audit, dict(virtual.nodes))
            except (CommandError, StoreError):
                continue  # it has just crashed
            rounds += 1
            said.extend(f"{one.invariant} {one.key}: {one.says}" for one in audit.report().violations)

    async def main() -> None:
        async with VirtualSystem(system, loss=0.02) as virtual:
            following = asyncio.ensure_future(follow(virtual))
            await enter(virtual, 4, 4)

            async def shopper(customer: int) -> None:
                for number in range(3):
                    lines = [(seller, rng.randint(1, 2), rng.randint(1, 4)) for seller in rng.sample(range(1, 5), 3)]
                    await buys(virtual, f"c{customer}.{number}", customer, *lines, card=rng.choice(["1", "0002"]))

            async def seller(number: int) -> None:
                for change in range(3):
                    await asyncio.sleep(rng.random())
                    await virtual.ask(UpdatePrice(number, 1, 11.0 + change, "0"))
                    tid = f"{number}.{change}"
                    await virtual.ask(UpdateProduct(number, 2, row(number, 2, f"u{tid}")), f"u{tid}")
                    await virtual.ask(UpdateDelivery(f"d{tid}"), f"d{tid}")

            async def crashes() -> None:
                for _ in range(4):
                    await asyncio.sleep(rng.random())
                    virtual.crash_soon(rng.choice(sorted(virtual.nodes)))

            await asyncio.gather(*map(shopper, range(1, 5)), *map(seller, range(1, 5)), crashes())
            await virtual.settle()
            following.cancel()
            report = await virtual.audit()
            assert report.violations == () and not report.open and rounds > 40

    run_virtual(main, seed=seed)
    assert said == []
