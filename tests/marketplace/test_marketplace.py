"""The marketplace over its HTTP API: every transaction by its rules, each criterion, and a driven run that adds up."""

import asyncio
import copy
import os
import random
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from holdfast.runtime.ops.audit import audit
from marketplace.answers import TOLD, Reader, anomalies, boards_agree, consistent, told_is_so
from marketplace.bench import SWITCH
from marketplace.contracts.order import InvoiceIssued, OrderStatusChanged
from marketplace.contracts.seller import Arrival, ParcelsArrived
from marketplace.contracts.values import OrderItem
from marketplace.data import Size
from marketplace.driver import SERVICES, Api, Driver, ingest, measured, put_back, session
from marketplace.invariants import system
from marketplace.services.seller import Dashboard
from marketplace.workload import KINDS, Mix, Ranks, Workload
from support.http_services import Far, Site, Web, site

SIZE = Size(customers=20, products=30, products_per_seller=5, units_per_product=500, declined=0.2)
CARD, SECURITY = "4111222233334444", "security number 987"


def urls(at: Site) -> dict[str, str]:
    """Where each service is served."""
    return {name: f"{at.web.base}/{name}" for name in SERVICES}


async def small(web: Web) -> None:
    """One seller with three products, one customer."""
    await web.post("/seller/seller", {"id": 1, "name": "s", "company_name": "c"})
    customer = {"id": 1, "first_name": "a", "last_name": "b", "card_number": CARD, "card_security_number": SECURITY}
    await web.post("/customer/customer", customer)
    for number in (1, 2, 3):
        row = {
            "seller_id": 1, "product_id": number, "name": f"p{number}", "sku": "s", "category": "c",
            "description": "d", "price": 10.0 * number, "freight_value": 1.5,
        }  # fmt: skip
        assert (await web.post("/product/product", row)).status == 200
        stock = {"seller_id": 1, "product_id": number, "qty_available": 10}
        assert (await web.post("/stock/stock", stock)).status == 200


async def put(
    web: Web, product: int, quantity: int = 1, *, price: float = 0, voucher: float = 0, version: str = "0"
) -> int:
    """Put a line into the cart of customer 1; the status."""
    body = {
        "SellerId": 1, "ProductId": product, "ProductName": f"p{product}", "UnitPrice": price or 10.0 * product,
        "FreightValue": 1.5, "Quantity": quantity, "Voucher": voucher, "Version": version,
    }  # fmt: skip
    return (await web.ask("PATCH", "/cart/cart/1/add", body)).status


def buyer(tid: str, card: str = CARD, kind: str = "CREDIT_CARD") -> dict[str, Any]:
    """A checkout's body."""
    return {
        "CustomerId": 1, "FirstName": "a", "LastName": "b", "Street": "s", "Complement": "", "City": "c", "State": "x",
        "ZipCode": "1", "PaymentType": kind, "CardNumber": card, "CardHolderName": "a b", "CardExpiration": "1230",
        "CardSecurityNumber": SECURITY, "CardBrand": "VISA", "Installments": 3, "instanceId": tid,
    }  # fmt: skip


async def state(web: Web, service: str, kind: str, key: str) -> dict[str, Any]:
    """An aggregate's state."""
    return (await web.get(f"/{service}/ops/aggregates/{kind}/{key}")).json()["state"]


async def calm(at: Site) -> None:
    """Wait until nothing is left to do."""
    assert await Reader(urls(at), at.web.session).settled() == []


async def wrong(at: Site, driver: Driver | None, since: dict[str, int] | None = None) -> dict[str, list[str]]:
    """The invariants and checks that do not hold, or had nothing to look at, with what they say."""
    report = await audit(system, at.nodes)
    found = {name: [one.says for one in report.violations if one.invariant == name] for name in system.invariants}
    empty = [name for name, counted in report.counted.items() if not counted]
    if driver is not None:
        for name, counted, said in await Reader(urls(at), at.web.session).checks(driver.told(), since):
            found[name] = said
            empty += [] if counted else [name]
    assert not report.open
    return {name: said[:3] for name, said in found.items() if said} | {name: ["nothing there"] for name in empty}


async def test_a_checkout_by_its_rules() -> None:
    """Amounts, vouchers, invoice number, payments, packages, statuses and the dashboard of one order (section 3)."""
    async with site(system) as at:
        await small(at.web)
        assert await put(at.web, 1, 0) == 409, "no units"
        (await at.web.post("/cart/cart/1/checkout", buyer("t0"))).problem(409)
        assert await put(at.web, 1, 2, voucher=3.0) == 200
        assert await put(at.web, 2, 1, voucher=99.0) == 200
        assert await put(at.web, 3, 11) == 200, "more than there is: stock will say no"
        done = await at.web.post("/cart/cart/1/checkout", buyer("t1"))
        assert done.json()["order_id"] == 1 and done.json()["total_invoice"] == 20.0
        again = await at.web.post("/cart/cart/1/checkout", buyer("t1"))
        assert again.json() == done.json(), "the same tid is the same transaction"
        await calm(at)
        order = await state(at.web, "order", "Order", "1/1")
        assert (order["total_items"], order["total_incentive"], order["total_amount"], order["total_freight"]) == (
            40.0, 23.0, 17.0, 3.0,
        )  # fmt: skip
        assert order["count_items"] == 2 and order["invoice_number"].startswith("1-20")
        assert [entry["status"] for entry in order["history"]] == [
            "INVOICED",
            "PAYMENT_PROCESSED",
            "READY_FOR_SHIPMENT",
        ]
        payment = await state(at.web, "payment", "Payment", "1/1")
        assert [(line["payment_sequential"], line["type"], line["value"]) for line in payment["lines"]] == [
            (1, "CREDIT_CARD", 20.0), (2, "VOUCHER", 3.0), (3, "VOUCHER", 20.0),
        ]  # fmt: skip
        assert payment["lines"][0]["installments"] == 3 and payment["cards"][0]["card_number"] == "***"
        shipment = await state(at.web, "shipment", "Shipment", "1/1")
        assert shipment["status"] == "approved" and shipment["package_count"] == 2
        item = await state(at.web, "stock", "StockItem", "1/1")
        assert (item["qty_available"], item["qty_reserved"], item["order_count"]) == (8, 0, 1)
        board = (await at.web.get("/seller/seller/dashboard/1")).json()
        assert board["sellerView"]["total_invoice"] == 20.0 and board["sellerView"]["count_orders"] == 1
        assert {entry["order_status"] for entry in board["orderEntries"]} == {"READY_FOR_SHIPMENT"}
        cart = (await at.web.get("/cart/cart/1/history/t1")).json()
        assert [line["ProductId"] for line in cart] == [1, 2, 3]
        assert await put(at.web, 1) == 200, "the cart is open again"
        assert (await at.web.ask("PATCH", "/cart/cart/1/seal")).status == 200
        (await at.web.post("/cart/cart/1/checkout", buyer("t2"))).problem(409)


async def test_nothing_in_stock_and_a_declined_card_leave_nothing() -> None:
    """Criterion 3: refused by stock or by payment, everything is as it was: units, numbers, charges, shipments."""
    async with site(system) as at:
        await small(at.web)
        await put(at.web, 1, 11)
        no = (await at.web.post("/cart/cart/1/checkout", buyer("t1"))).problem(409)
        assert (no["code"], no["facts"]) == ("not_accepted", {"source": "stock"})
        await put(at.web, 2, 3)
        no = (await at.web.post("/cart/cart/1/checkout", buyer("t2", card="4000000000000002"))).problem(409)
        assert (no["code"], no["facts"]) == ("payment_failed", {"source": "payment"})
        await put(at.web, 2, 3)
        assert (await at.web.post("/cart/cart/1/checkout", buyer("t3", kind="BOLETO"))).json()["order_id"] == 2
        await calm(at)
        assert (await state(at.web, "order", "Order", "1/1"))["status"] == "PAYMENT_FAILED"
        (await at.web.get("/shipment/ops/aggregates/Shipment/1/1")).problem(404)
        for product, left in ((1, 10), (2, 7)):
            item = await state(at.web, "stock", "StockItem", f"1/{product}")
            assert (item["qty_available"], item["qty_reserved"]) == (left, 0)
        customer = await state(at.web, "customer", "Customer", "1")
        assert (customer["success_payment_count"], customer["failed_payment_count"]) == (1, 1)
        board = (await at.web.get("/seller/seller/dashboard/1")).json()
        assert board["sellerView"]["count_orders"] == 1, "a failed order is on no dashboard"
        payment = await state(at.web, "payment", "Payment", "1/2")
        assert payment["cards"] == [] and payment["lines"][0]["installments"] == 1


async def test_deliveries_oldest_first() -> None:
    """Criterion 6: an update delivers a seller's oldest shipment; in transit comes before delivered, everywhere."""
    async with site(system) as at:
        await small(at.web)
        for number in (1, 2):
            await put(at.web, number)
            await at.web.post("/cart/cart/1/checkout", buyer(f"t{number}"))
        await calm(at)
        first = await at.web.ask("PATCH", "/shipment/shipment/d1")
        assert first.json() == {"tid": "d1", "packages": 1}
        assert (await at.web.ask("PATCH", "/shipment/shipment/d1")).json() == first.json()
        await calm(at)
        orders = [await state(at.web, "order", "Order", f"1/{number}") for number in (1, 2)]
        assert [order["status"] for order in orders] == ["DELIVERED", "READY_FOR_SHIPMENT"]
        assert [entry["status"] for entry in orders[0]["history"]][-2:] == ["IN_TRANSIT", "DELIVERED"]
        assert orders[0]["delivered_customer_date"]
        assert (await state(at.web, "shipment", "Shipment", "1/1"))["status"] == "concluded"
        assert (await state(at.web, "customer", "Customer", "1"))["delivery_count"] == 1
        board = (await at.web.get("/seller/seller/dashboard/1")).json()
        assert [entry["order_id"] for entry in board["orderEntries"]] == [2]
        assert (await at.web.ask("PATCH", "/shipment/shipment/d2")).json()["packages"] == 1
        assert (await at.web.ask("PATCH", "/shipment/shipment/d3")).json()["packages"] == 0


async def test_prices_and_versions() -> None:
    """Criterion 5: a new price of the same version is charged; a replaced product cannot be bought in its old one."""
    async with site(system) as at:
        await small(at.web)
        await put(at.web, 1)
        price = {"sellerId": 1, "productId": 1, "price": 12.0, "version": "0", "instanceId": "p1"}
        assert (await at.web.ask("PATCH", "/product/product", price)).json()["applied"]
        late = {**price, "version": "gone", "price": 99.0, "instanceId": "p2"}
        assert not (await at.web.ask("PATCH", "/product/product", late)).json()["applied"]
        await calm(at)
        assert (await at.web.post("/cart/cart/1/checkout", buyer("t1"))).json()["total_invoice"] == 13.5
        await put(at.web, 2)
        row = {
            "seller_id": 1, "product_id": 2, "name": "new", "sku": "s", "category": "c", "description": "d",
            "price": 25.0, "freight_value": 1.5, "version": "u1",
        }  # fmt: skip
        for _ in range(2):
            assert (await at.web.ask("PUT", "/product/product", row)).json()["version"] == "u1"
        assert (await state(at.web, "stock", "StockItem", "1/2"))["version"] == "u1"
        (await at.web.post("/cart/cart/1/checkout", buyer("t2"))).problem(409)
        await put(at.web, 2, version="u1", price=25.0)
        assert (await at.web.post("/cart/cart/1/checkout", buyer("t3"))).json()["total_invoice"] == 26.5
        nowhere = {**row, "seller_id": 9, "version": "u2"}
        assert (await at.web.ask("PUT", "/product/product", nowhere)).status == 409


async def test_an_update_that_stock_refuses_is_undone() -> None:
    """Criterion 3: a product without stock keeps its old version: both change or neither."""
    async with site(system) as at:
        await small(at.web)
        row = {
            "seller_id": 1, "product_id": 8, "name": "p", "sku": "s", "category": "c", "description": "d", "price": 5.0,
            "freight_value": 1.0,
        }  # fmt: skip
        await at.web.post("/product/product", row)
        (await at.web.ask("PUT", "/product/product", {**row, "price": 6.0, "version": "u1"})).problem(409)
        product = await state(at.web, "product", "Product", "1/8")
        assert (product["price"], product["version"]) == (5.0, "0")


async def test_the_security_number_is_nowhere() -> None:
    """A card's number is masked wherever a person looks; its security number is in no record at all."""
    async with site(system) as at:
        await small(at.web)
        await put(at.web, 1)
        await at.web.post("/cart/cart/1/checkout", buyer("t1"))
        await calm(at)
        stored = found = 0
        for name, node in at.nodes.items():
            for record in (await node.store.read(0, 1000)).records:
                assert SECURITY.encode() not in record.data, (name, record)
                stored += CARD.encode() in record.data
            text = (await at.web.get(f"/{name}/ops/log?limit=1000")).body.decode()
            assert CARD not in text
            found += "***" in text
        assert stored and found


async def test_each_service_alone() -> None:
    """Criteria 1, 2: with the seven others down a service starts and does what is its own; later it catches up."""
    own: dict[str, tuple[str, str, Any]] = {
        "cart": ("PATCH", "/cart/7/seal", None),
        "product": ("POST", "/product", {
            "seller_id": 1, "product_id": 1, "name": "p", "sku": "s", "category": "c", "description": "d",
            "price": 10.0, "freight_value": 1.5,
        }),
        "stock": ("POST", "/stock", {"seller_id": 1, "product_id": 1, "qty_available": 5}),
        "order": ("GET", "/ops/aggregates/Order", None),
        "payment": ("GET", "/ops/aggregates/Payment", None),
        "shipment": ("PATCH", "/shipment/alone", None),
        "seller": ("POST", "/seller", {"id": 1, "name": "s", "company_name": "c"}),
        "customer": ("POST", "/customer", {"id": 1, "first_name": "a", "last_name": "b"}),
    }  # fmt: skip
    far = Far(system)
    async with session() as http:
        for name, (method, path, body) in own.items():
            await far.up(name)
            async with asyncio.timeout(5):
                reply = await Web(far.urls[name], http).ask(method, path, body)
            assert reply.status == 200, (name, reply.body)
            await far.down(name)
        await far.up("cart")
        web = Web(far.urls["cart"], http)
        line = {
            "SellerId": 1, "ProductId": 1, "ProductName": "p", "UnitPrice": 10.0, "FreightValue": 1.5, "Quantity": 1,
        }  # fmt: skip
        assert (await web.ask("PATCH", "/cart/1/add", line)).status == 200
        late = await web.post("/cart/1/checkout", buyer("t1"), Prefer="wait=0.2")
        late.problem(504, "Pending")
        for name in SERVICES[1:]:
            await far.up(name)
        done = await web.post("/cart/1/checkout", buyer("t1"), Prefer="wait=20")
        assert done.json()["total_invoice"] == 11.5
        assert await Reader(far.urls, http).settled() == []
        board = await Web(far.urls["seller"], http).get("/seller/dashboard/1")
        assert board.json()["sellerView"]["count_items"] == 1
        for name in SERVICES:
            await far.down(name)


@pytest.mark.parametrize("seed", [2, 3])
async def test_a_driven_run_adds_up(seed: int) -> None:
    """The whole mix at once, with declined cards and stock that runs out: every check counts and holds, and every
    dashboard that is read meanwhile agrees with itself (criterion 7)."""
    async with site(system) as at, session() as http:
        api = Api(urls(at), http)
        rows = await ingest(api, SIZE, 1)
        await calm(at)
        driver = Driver(api, rows, SIZE, Mix(seller_zipf=float(seed == 3)), seed=seed)
        running = asyncio.ensure_future(driver.run(3, 16))
        read = 0
        while not running.done():
            board = (await at.web.get(f"/seller/seller/dashboard/{read % SIZE.sellers + 1}")).json()
            assert [text for text in consistent(0, board) if text] == []
            read += 1
            await asyncio.sleep(0.01)
        await running
        await calm(at)
        assert await Reader(urls(at), http).published_anomalies({}) >= 0
        figures: dict[str, Any] = measured(driver, epoch_seconds=1)
        assert sum(epoch["transactions"] for epoch in figures["epochs"]) == figures["transactions"]
        assert len(figures["epochs"]) >= 3 and sum(figures["aborts"].values()) > 0
        assert {source.split(" by ")[1] for source in figures["aborts"]} <= {"stock", "payment", "cart", "product"}
        assert figures["errors"] == 0, figures
        assert await wrong(at, driver) == {}
        assert all(figures["kinds"][kind]["count"] > 0 for kind in KINDS) and read > 20
        assert figures["kinds"]["CUSTOMER_SESSION"]["NOT_ACCEPTED"] > 0


async def test_a_marketplace_is_put_back() -> None:
    """The bench switch: `reset` keeps products and customers, stock is full and everything is of version "0" again, a
    second run adds up by itself; `cleanup` empties everything, and the same data can be entered again."""
    size = Size(customers=20, products=20, products_per_seller=5, units_per_product=10_000, declined=0.2)
    async with site(system) as at, session() as http:
        api = Api(urls(at), http)
        for round_ in ("first", "again"):
            rows = await ingest(api, size, 1)
            await calm(at)
            reader = Reader(urls(at), http)
            for how in ("reset", "cleanup"):
                since = await reader.heads()
                driver = Driver(api, rows, size, Mix(upto=(60, 65, 75, 85, 100)), seed=4)
                await driver.run(1, 8)
                await calm(at)
                assert await wrong(at, driver, since) == {}, (round_, how)
                await put_back(api, how)
                await calm(at)
                assert await wrong(at, None) == {}, (round_, how)
                for service, kind in (("order", "Order"), ("payment", "Payment"), ("shipment", "Shipment")):
                    assert await reader.aggregates(service, kind) == {}, (round_, how)
                boards = await reader.checks({}, await reader.heads())
                assert [one for *_, said in boards for one in said] == [], (round_, how)
                kept = how == "reset"
                left = {
                    kind: await reader.aggregates(service, kind)
                    for service, kind in (("stock", "StockItem"), ("product", "Product"), ("customer", "Customer"),
                                          ("seller", "Seller"), ("cart", "Replica"))
                }  # fmt: skip
                counts = {kind: len(found) for kind, found in left.items() if kind != "Replica"}
                assert counts == {
                    "StockItem": 20 * kept, "Product": 20 * kept, "Customer": 20 * kept, "Seller": 4 * kept,
                }  # fmt: skip
                items = left["StockItem"].values()
                assert {(one["qty_available"], one["qty_reserved"], one["version"]) for one in items} <= {
                    (10_000, 0, "0")
                }
                names = ("success_payment_count", "failed_payment_count", "delivery_count")
                assert not any(one[name] for one in left["Customer"].values() for name in names)
                assert sum(len(shelf["products"]) for shelf in left["Replica"].values()) == 20 * kept


def test_a_parcel_may_be_known_before_its_order() -> None:
    """A dashboard is fed by two logs: a parcel that arrived before its order is known there is not forgotten, and what
    belongs to an order that was closed meanwhile is not kept."""
    line = OrderItem(1, 1, 1, "p", 1, 10.0, 1, 1.0, 10.0, 10.0, 0.0, "")
    order = InvoiceIssued(1, 1, "t", "n", "", 10.0, 1.0, 0.0, 11.0, 10.0, (line,))
    for concluded in (False, True):
        row = Dashboard()
        row.entries, row.early = {}, {}
        row.delivered(ParcelsArrived("d", (Arrival(1, 1, 1, 1, 1, "p", "today", concluded),)), "1")
        assert bool(row.early) == (not concluded)
        row.invoiced(order, "1")
        assert row.entries["1/1"][0].delivery_date == ("" if concluded else "today")
        row.changed(OrderStatusChanged(1, 1, "DELIVERED", "", (1,)))
        assert row.entries == row.early == {}


def test_without_the_switch_nothing_is_put_back() -> None:
    """`/reset` and `/cleanup` are routes only where the switch is on."""
    code = "from marketplace.system import system; print([r.path for s in system.services.values() for r in s.routes])"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), SWITCH: "0"}
    found = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout
    assert "/product" in found and "/reset" not in found and "/cleanup" not in found


async def test_what_callers_were_told_and_shown_can_be_wrong() -> None:
    """8a.9, 8a.10: each part of a dashboard, and of what callers were told, is looked at: changed, it is found."""
    async with site(system) as at:
        await small(at.web)
        await put(at.web, 1, 2)
        await put(at.web, 2)
        await at.web.post("/cart/cart/1/checkout", buyer("t1"))
        await calm(at)
        reader = Reader(urls(at), at.web.session)
        orders, shipments = await reader.aggregates("order", "Order"), await reader.aggregates("shipment", "Shipment")
        board = (await at.web.get("/seller/seller/dashboard/1")).json()
        assert [text for text in boards_agree({1: board}, orders, shipments) if text] == []
        changes: list[Any] = [
            lambda b, o, s: b["sellerView"].update(total_invoice=0.01),
            lambda b, o, s: b["sellerView"].update(count_items=1),
            lambda b, o, s: b["sellerView"].update(count_orders=2),
            lambda b, o, s: b["orderEntries"].pop(),
            lambda b, o, s: b["orderEntries"][0].update(total_invoice=0.01),
            lambda b, o, s: b["orderEntries"][0].update(delivery_status="delivered"),
            lambda b, o, s: o["1/1"].update(status="DELIVERED"),
            lambda b, o, s: o.update({"1/2": o["1/1"]}),
            lambda b, o, s: s["1/1"]["packages"][0].update(delivery_date="today"),
        ]
        for number, change in enumerate(changes):
            spoiled = copy.deepcopy((board, orders, shipments))
            change(*spoiled)
            assert any(boards_agree({1: spoiled[0]}, *spoiled[1:])), number
    for kind in TOLD:
        for said, times in (("SUCCESS", 0), ("SUCCESS", 2), ("NOT_ACCEPTED", 1), ("", 1)):
            told = {kind: {"t": said} if said else {}}
            assert any(told_is_so(told, {kind: Counter({"t": times})})), (kind, said, times)
        for said, times in (("SUCCESS", 1), ("NOT_ACCEPTED", 0), ("ERROR", 0), ("ERROR", 1)):
            assert not any(told_is_so({kind: {"t": said}}, {kind: Counter(["t"] * times)})), (kind, said, times)


@pytest.mark.parametrize(
    ("updates", "cart", "count"),
    [
        ([("Y", "0", 15), ("Y", "0", 10), ("X", "0", 15), ("X", "0", 10)], [("X", "0", 10), ("Y", "0", 10)], 1),
        ([("Y", "0", 15), ("Y", "0", 10), ("X", "1", 15), ("X", "0", 10)], [("X", "0", 10), ("Y", "0", 10)], 0),
        ([("Y", "0", 15), ("Y", "0", 10), ("X", "0", 15), ("X", "0", 10)], [("X", "1", 10), ("Y", "0", 10)], 0),
        ([("Y", "0", 15), ("Y", "0", 10), ("X", "0", 15), ("X", "0", 10)], [("X", "0", 15), ("Y", "0", 10)], 0),
        (
            [("Y", "0", 15), ("Y", "0", 10), ("X", "0", 20), ("X", "0", 15), ("X", "0", 10)],
            [("X", "0", 10), ("Y", "0", 10)], 2,
        ),
        (
            [("X", "0", 15), ("Y", "0", 15), ("Y", "0", 10), ("X", "0", 10), ("Z", "0", 1)],
            [("X", "0", 15), ("Y", "0", 15)], 1,
        ),
    ],
)  # fmt: skip
def test_the_published_anomaly_count(updates: Any, cart: Any, count: int) -> None:
    """8c: the published vectors, the one that counts what is no anomaly among them."""
    assert anomalies(updates, cart) == count


def test_the_mix_is_the_published_one() -> None:
    """Shares of 31, 5, 3, 2 and 60 in 101; Zipf prefers the first; the same seed draws the same."""
    load = Workload(Mix(), 10, 10, random.Random(1))
    drawn = [load.kind() for _ in range(20_000)]
    for kind, share in zip(KINDS, (31, 5, 3, 2, 60), strict=True):
        assert abs(drawn.count(kind) / len(drawn) - share / 101) < 0.02
    ranks = Ranks(100, 1.0, random.Random(1))
    found = [ranks.draw() for _ in range(10_000)]
    assert set(found) <= set(range(1, 101)) and found.count(1) > 5 * found.count(10) > 0
    again = Workload(Mix(), 10, 10, random.Random(1))
    assert [again.kind() for _ in range(100)] == drawn[:100]
