"""The marketplace's staged transactions in virtual time: replacements and delivery updates are whole, or nowhere,
whoever is away or crashes, and with many of them at once; judged meanwhile, nothing is wrong at any moment."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest

from holdfast import Command, Rejection
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from marketplace.answers import TOLD, told_is_so
from marketplace.contracts.cart import AddItem, CheckedOut, Checkout
from marketplace.contracts.customer import AddCustomer
from marketplace.contracts.product import AddProduct, PriceUpdated, ProductUpdated, UpdatePrice, UpdateProduct
from marketplace.contracts.seller import AddSeller
from marketplace.contracts.shipment import DeliveryUpdated, UpdateDelivery
from marketplace.contracts.stock import AddStock, Reserve, Reserved
from marketplace.contracts.values import Buyer, CartItem, CustomerRow, ProductRow, SellerRow
from marketplace.invariants import system
from support.systems.deals import ask, until

SELLERS, PRODUCTS, CUSTOMERS = 24, 2, 8


def row(seller: int, product: int, version: str = "0", price: float = 10.0) -> ProductRow:
    """A product."""
    return ProductRow(seller, product, f"p{product}", "s", "c", "d", price, 1.5, version=version)


def replaced(version: str, seller: int = 1, product: int = 1) -> UpdateProduct:
    """A replacement of a product."""
    return UpdateProduct(seller, product, row(seller, product, version))


async def begin(virtual: VirtualSystem) -> None:
    """Sellers with their products and stock, and customers."""
    for seller in range(1, SELLERS + 1):
        await virtual.client.run(AddSeller(seller, SellerRow(seller)))
        for product in range(1, PRODUCTS + 1):
            await virtual.client.run(AddProduct(seller, product, row(seller, product)))
            await virtual.client.run(AddStock(seller, product, 1000))
    for customer in range(1, CUSTOMERS + 1):
        await virtual.client.run(AddCustomer(customer, CustomerRow(customer, "a", "b")))
    await virtual.settle()


async def buys(virtual: VirtualSystem, tid: str, customer: int, *sellers: int, version: str = "0") -> Any:
    """A customer buys a first product of each of these sellers; what the checkout was answered."""
    for seller in sellers:
        item = CartItem(seller, 1, "p1", 10.0, 1.5, 1, 0.0, version)
        await ask(virtual, AddItem(customer, item), f"{tid}/{seller}")
    buyer = Buyer(customer, "a", "b", "s", "", "c", "x", "1", "BOLETO", "", "", "", "", 0)
    return (await ask(virtual, Checkout(customer, tid, buyer), tid, seconds=600)).answer


async def bought(virtual: VirtualSystem, *orders: tuple[int, ...]) -> None:
    """Orders, one after the other: a customer and sellers each; all are ready for delivery."""
    for customer, *sellers in orders:
        tid = f"c{names(virtual, 'cart')['checked_out']}"
        assert isinstance(await buys(virtual, tid, customer, *sellers), CheckedOut)
        await virtual.settle()


def names(virtual: VirtualSystem, service: str) -> Counter[str]:
    """How many events of each name a log holds."""
    return Counter(record.type.split(".")[1] for record in virtual.log(service) if record.kind == "event")


def arrived(virtual: VirtualSystem) -> list[str]:
    """The services whose logs say that parcels have arrived."""
    orders = b"".join(one.data for one in virtual.log("order") if "status_changed" in one.type)
    counts = [json.loads(one.data)["delivered"] for one in virtual.log("customer") if "counted" in one.type]
    found = ["shipment"] * bool(names(virtual, "shipment")["packages_delivered"])
    found += ["seller"] * bool(names(virtual, "seller")["parcels_arrived"])
    return [*found, *["order"] * (b"IN_TRANSIT" in orders), *["customer"] * any(counts)]


def version_of(virtual: VirtualSystem, service: str, stream: str) -> str:
    """The version that is committed."""
    return virtual.nodes[service].streams[stream].state.version


def heard(answer: Any) -> str:
    """How a caller takes an answer."""
    return "NOT_ACCEPTED" if isinstance(answer, Rejection) else "SUCCESS"


async def wrong(virtual: VirtualSystem, *, products: Any = None, deliveries: Any = None) -> list[str]:
    """What the invariants find, and where it is not as callers were told of the staged transactions, by id."""
    ended = {
        kind: Counter(json.loads(one.data)[name] for one in virtual.log(service) if one.type == stored)
        for kind, (service, stored, name) in TOLD.items() if kind != "CUSTOMER_SESSION"
    }  # fmt: skip
    told = {"UPDATE_PRODUCT": products or {}, "UPDATE_DELIVERY": deliveries or {}}
    report = await virtual.audit()
    said = [text for text in told_is_so(told, ended) if text] + ["open"] * report.open
    return said + [f"{one.invariant}: {one.says}" for one in report.violations]


def nothing_held(virtual: VirtualSystem) -> bool:
    """No lock is left, and nothing that was picked is on its way."""
    seen = names(virtual, "shipment")
    picked = [one for one in virtual.log("shipment") if "oldest_picked" in one.type and b'"due":[]' not in one.data]
    locks = [stream for node in virtual.nodes.values() for stream in node.dispatch.stages.held]
    return seen["let_go"] + seen["put_back"] == len(picked) and not locks


@virtual_time
async def test_a_replacement_shows_nowhere_before_it_shows_everywhere() -> None:
    """Criterion 3, G6: while stock has no vote, product has its old version; a price for it waits, and is late."""
    async with VirtualSystem(system) as virtual:
        await begin(virtual)
        virtual.transport.cut.add("stock")
        replacing = asyncio.ensure_future(virtual.client.send(replaced("u1"), key="u1"))
        await until(lambda: "Product/1/1" in virtual.nodes["product"].dispatch.stages.held)
        pricing = asyncio.ensure_future(virtual.client.run(UpdatePrice(1, 1, 99.0, "0")))
        other = await virtual.client.run(UpdatePrice(1, 2, 11.0, "0"))
        assert other.applied, "another product is nobody's concern"
        await asyncio.sleep(3)
        assert (
            version_of(virtual, "product", "Product/1/1") == "0" and not names(virtual, "product")["product_replaced"]
        )
        assert not replacing.done() and not pricing.done()
        virtual.transport.cut.clear()
        assert (await replacing).answer == ProductUpdated(1, 1, "u1")
        assert await pricing == PriceUpdated(1, 1, 99.0, "0", False)
        await virtual.settle()
        assert version_of(virtual, "product", "Product/1/1") == version_of(virtual, "stock", "StockItem/1/1") == "u1"
        assert await wrong(virtual, products={"u1": "SUCCESS"}) == []


@pytest.mark.parametrize("away", [(), ("stock",)])
def test_a_checkout_meanwhile_waits_for_the_decision(away: tuple[str, ...]) -> None:
    """Criterion 5: units of a product that is being replaced are reserved after the decision: refused in the old
    version where it was replaced, sold where it was not (stock's vote did not get through)."""

    async def main() -> None:
        async with VirtualSystem(system) as virtual:
            await begin(virtual)
            replacing = asyncio.ensure_future(virtual.client.send(replaced("u1"), key="u1", wait_seconds=60))
            await until(lambda: "StockItem/1/1" in virtual.nodes["stock"].dispatch.stages.held)
            virtual.transport.cut.update(("product", *away))
            buying = asyncio.ensure_future(buys(virtual, "c1", 1, 1))
            reserving = asyncio.ensure_future(virtual.client.send(Reserve(1, 1, 1, "0"), wait_seconds=60))
            await asyncio.sleep(3)
            assert not buying.done() and not reserving.done() and not names(virtual, "stock")["reserved"]
            await asyncio.sleep(20 if away else 0)
            virtual.transport.cut.clear()
            outcome, answer, direct = (await replacing).answer, await buying, (await reserving).answer
            await virtual.settle()
            if away:
                assert outcome.code == "deadline" and isinstance(answer, CheckedOut) and direct == Reserved(1, 1, 1)
            else:
                assert outcome == ProductUpdated(1, 1, "u1") and answer.code == "not_accepted"
                assert direct.code == "unavailable"
            assert names(virtual, "stock")["version_set"] == names(virtual, "product")["product_replaced"] == (not away)

    run_virtual(main)


@virtual_time
async def test_a_replacement_that_is_not_decided_in_time_has_not_happened() -> None:
    """G5, G6: with stock away a replacement ends `deadline`, once and for all; product is free, and the next works."""
    async with VirtualSystem(system) as virtual:
        await begin(virtual)
        await virtual.crash("stock")
        outcome = await virtual.client.send(replaced("u1"), key="u1", wait_seconds=60)
        assert outcome.answer.code == "deadline"
        assert await virtual.client.run(UpdatePrice(1, 1, 11.0, "0")) == PriceUpdated(1, 1, 11.0, "0", True)
        await virtual.start("stock")
        await virtual.settle()
        assert (await virtual.client.send(replaced("u1"), key="u1")).answer == outcome.answer
        assert (await virtual.client.send(replaced("u2"), key="u2")).answer == ProductUpdated(1, 1, "u2")
        await virtual.settle()
        assert version_of(virtual, "stock", "StockItem/1/1") == "u2" and nothing_held(virtual)
        assert await wrong(virtual, products={"u1": "NOT_ACCEPTED", "u2": "SUCCESS"}) == []


@virtual_time
async def test_replacements_of_one_product_come_in_one_order() -> None:
    """Criterion 5: many replacements of one product at once: each is in both services or in neither, in one order."""
    async with VirtualSystem(system) as virtual:
        await begin(virtual)
        tids = [f"u{number}" for number in range(12)]
        outcomes = await asyncio.gather(*(ask(virtual, replaced(tid), tid, seconds=600) for tid in tids))
        await virtual.settle()
        said = {tid: heard(one.answer) for tid, one in zip(tids, outcomes, strict=True)}
        assert "SUCCESS" in said.values() and nothing_held(virtual)
        assert {one.answer.code for one in outcomes if isinstance(one.answer, Rejection)} <= {"deadline"}
        assert await wrong(virtual, products=said) == []


@pytest.mark.parametrize("away", ["customer", "seller", "order"])
def test_a_delivery_that_one_service_misses_has_happened_nowhere(away: str) -> None:
    """Criterion 3, G6: with one service away nothing of a delivery is in any log; after its deadline the parcels wait
    again, before all others; nothing overtakes them meanwhile."""

    async def main() -> None:
        async with VirtualSystem(system) as virtual:
            await begin(virtual)
            await bought(virtual, (1, 1, 2), (2, 1, 3), (3, 4), (4, 2))
            await virtual.crash(away)
            first = asyncio.ensure_future(virtual.client.send(UpdateDelivery("d1"), key="d1", wait_seconds=60))
            await asyncio.sleep(5)
            assert not first.done() and arrived(virtual) == []
            second = (await virtual.client.send(UpdateDelivery("d2"), key="d2")).answer
            assert second == DeliveryUpdated("d2", 0), "what waits comes after what is on its way"
            assert (await first).answer.code == "deadline"
            assert arrived(virtual) == []
            await virtual.start(away)
            await virtual.settle()
            assert (await virtual.client.send(UpdateDelivery("d1"), key="d1")).answer.code == "deadline"
            for tid, parcels in (("d3", 4), ("d4", 2), ("d5", 0)):
                assert await virtual.client.run(UpdateDelivery(tid), key=tid) == DeliveryUpdated(tid, parcels)
                await virtual.settle()
            assert arrived(virtual) == ["shipment", "seller", "order", "customer"] and nothing_held(virtual)
            said = {"d1": "NOT_ACCEPTED", **dict.fromkeys(("d2", "d3", "d4", "d5"), "SUCCESS")}
            assert await wrong(virtual, deliveries=said) == []

    run_virtual(main)


@virtual_time
async def test_many_deliveries_at_once_neither_fail_nor_meet() -> None:
    """Criterion 6: sixty updates at once over two dozen orders that share sellers and customers: none is refused, none
    gives way, each seller's parcels arrive once and the oldest first."""
    async with VirtualSystem(system) as virtual:
        await begin(virtual)
        rng = random.Random(5)
        orders = [(n % CUSTOMERS + 1, *rng.sample(range(1, SELLERS + 1), rng.randint(1, 6))) for n in range(24)]
        await bought(virtual, *orders)
        said: dict[str, str] = {}
        parcels = 0

        async def update(tid: str) -> None:
            nonlocal parcels
            await asyncio.sleep(rng.random() / 5)
            answer = (await ask(virtual, UpdateDelivery(tid), tid)).answer
            said[tid] = heard(answer)
            parcels += answer.packages

        await asyncio.gather(*(update(f"d{number}") for number in range(60)))
        await virtual.settle()
        assert set(said.values()) == {"SUCCESS"} and nothing_held(virtual)
        rejections = [one for name in virtual.stores for one in virtual.log(name) if one.type == "holdfast.rejected"]
        assert rejections == [], "nobody met anybody"
        assert parcels == sum(len(sellers) for _, *sellers in orders)
        assert await wrong(virtual, deliveries=said) == []


STAGED: dict[str, tuple[Command[Any], tuple[str, ...]]] = {
    "replacement": (replaced("x"), ("product", "stock")),
    "delivery": (UpdateDelivery("x"), ("shipment", "customer", "seller", "order")),
}


async def crashed(name: str, service: str, number: int, *, after: bool) -> tuple[list[str], dict[str, int]]:
    """One transaction, with a service that crashes at the so-manieth of its commits: (what is wrong, commits)."""
    command, services = STAGED[name]
    async with VirtualSystem(system) as virtual:
        await begin(virtual)
        await bought(virtual, (1, 1, 2), (2, 1, 3))
        before = {one: virtual.stores[one].commits for one in services}
        if service:
            store = virtual.stores[service]
            (store.crash_after if after else store.crash_before).add(store.commits + number)
        answer = (await ask(virtual, command, "x")).answer
        await virtual.settle()
        assert nothing_held(virtual) and len(virtual.crashes) == bool(service)
        said = {"x": heard(answer)}
        found = await wrong(virtual, **{"products" if name == "replacement" else "deliveries": said})
        commits = {one: virtual.stores[one].commits - before[one] for one in services}
        return [f"{name}, {service}@{number}: {text}" for text in found], commits


@pytest.mark.parametrize("name", STAGED)
def test_a_crash_at_any_commit_leaves_all_or_nothing(name: str) -> None:
    """Criterion 3, G6: whoever crashes before or after whichever commit of the transaction: it is whole, or nowhere."""
    found, commits = run_virtual(lambda: crashed(name, "", 0, after=False))
    assert found == [] and min(commits.values()) >= 2
    for service, count in commits.items():
        for number in range(1, count + 1):
            for after in (False, True):
                found, _ = run_virtual(lambda s=service, n=number, a=after: crashed(name, s, n, after=a), seed=number)
                assert found == []


@pytest.mark.parametrize("seed", range(6))
def test_all_at_once_with_crashes_adds_up(seed: int) -> None:
    """Criteria 3, 5, 6: checkouts, replacements and deliveries at once, with losses and ten random crashes."""

    async def main() -> None:
        async with VirtualSystem(system, loss=0.02) as virtual:
            await begin(virtual)
            rng, products, deliveries = random.Random(seed), dict[str, str](), dict[str, str]()

            async def told(said: dict[str, str], tid: str, command: Command[Any]) -> None:
                await asyncio.sleep(rng.random() * 8)
                answer = (await ask(virtual, command, tid, seconds=600)).answer
                said[tid] = heard(answer)

            async def buyer(customer: int) -> None:
                for number in range(4):
                    await asyncio.sleep(rng.random() * 2)
                    await buys(virtual, f"c{customer}.{number}", customer, *rng.sample(range(1, SELLERS + 1), 3))

            async def crashes() -> None:
                for _ in range(10):
                    await asyncio.sleep(rng.random())
                    store = virtual.stores[rng.choice(sorted(virtual.stores))]
                    (store.crash_before if rng.random() < 0.5 else store.crash_after).add(store.commits + 1)

            replacements = (replaced(f"u{n}", rng.randint(1, 2), rng.randint(1, 2)) for n in range(12))
            await asyncio.gather(
                *map(buyer, range(1, CUSTOMERS + 1)), crashes(),
                *(told(deliveries, f"d{n}", UpdateDelivery(f"d{n}")) for n in range(40)),
                *(told(products, one.product.version, one) for one in replacements),
            )  # fmt: skip
            await virtual.settle()
            assert await wrong(virtual, products=products, deliveries=deliveries) == [] and nothing_held(virtual)
            assert len(virtual.crashes) >= 5 and "SUCCESS" in products.values()
            assert names(virtual, "seller")["parcels_arrived"] >= 3

    run_virtual(main, seed=seed)
