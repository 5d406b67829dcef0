"""The audit: does everything add up? Reads feeds, `/ops` and dashboards of the eight services, and nothing else.

Shares no code with the services: amounts are added up again from what was recorded. Each check says what it counted; a
check that counted nothing has shown nothing. To be run when the system has settled.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from marketplace import together
from marketplace.facts import Check, Evidence, Key, before, key_of, name_of, named, near, of_this_run, same

Shown = tuple[int, int, str, float]
"""A product as it is offered: seller, product, version, price."""
OPEN = ("INVOICED", "PAYMENT_PROCESSED", "READY_FOR_SHIPMENT", "IN_TRANSIT")
PAID = ("PAYMENT_PROCESSED", "READY_FOR_SHIPMENT", "IN_TRANSIT", "DELIVERED")
STEPS = ["INVOICED", "PAYMENT_PROCESSED", "READY_FOR_SHIPMENT", "IN_TRANSIT", "DELIVERED"]


def audit(found: Evidence) -> list[Check]:
    """Every check."""
    return [Check(name, *_run(check, found)) for name, check in CHECKS.items()]


def _run(check: Callable[[Evidence], Iterable[str | None]], found: Evidence) -> tuple[int, list[str]]:
    said = list(check(found))
    return len(said), [text for text in said if text]


def _orders(found: Evidence) -> dict[Key, dict[str, Any]]:
    return {key_of(key): state for key, state in found.state["Order"].items()}


def _sold(found: Evidence) -> tuple[Counter[Key], Counter[Key]]:
    units, lines = Counter[Key](), Counter[Key]()
    for order in _orders(found).values():
        if order["status"] in PAID:
            for item in order["items"]:
                units[item["seller_id"], item["product_id"]] += item["quantity"]
                lines[item["seller_id"], item["product_id"]] += 1
    return units, lines


def nothing_reserved(found: Evidence) -> Iterable[str | None]:
    """8a.1: no units are held when nothing is on its way."""
    for key, item in found.state["StockItem"].items():
        yield same(f"stock {key}: qty_reserved", item["qty_reserved"], 0)


def units_conserved(found: Evidence) -> Iterable[str | None]:
    """8a.2: what has left the stock is what was sold."""
    units, _ = _sold(found)
    begun = named(found.feeds["stock"], "stock_added", "stock_restarted")
    initial = {(event["seller_id"], event["product_id"]): event["qty_available"] for event in begun}
    for key, item in found.state["StockItem"].items():
        gone = initial[key_of(key)] - item["qty_available"]
        yield same(f"stock {key}: units gone", gone, units[key_of(key)])


def sales_counted(found: Evidence) -> Iterable[str | None]:
    """8a.3: a stock item counts the lines that were sold of it."""
    _, lines = _sold(found)
    for key, item in found.state["StockItem"].items():
        yield same(f"stock {key}: order_count", item["order_count"], lines[key_of(key)])


def payments_counted(found: Evidence) -> Iterable[str | None]:
    """8a.4: a customer counts the orders that were paid, and those that were not."""
    paid, failed = Counter[int](), Counter[int]()
    for (customer_id, _), order in _orders(found).items():
        paid[customer_id] += order["status"] in PAID
        failed[customer_id] += order["status"] == "PAYMENT_FAILED"
    for key, customer in found.state["Customer"].items():
        yield same(f"customer {key}: paid", customer["success_payment_count"], paid[int(key)])
        yield same(f"customer {key}: failed", customer["failed_payment_count"], failed[int(key)])


def paid_is_shipped(found: Evidence) -> Iterable[str | None]:
    """8a.5, 8b: a paid order has one shipment of all its lines and payments of its worth; no other has either."""
    shipments = {key_of(key): state for key, state in found.state["Shipment"].items()}
    payments = {key_of(key): state for key, state in found.state["Payment"].items()}
    orders = _orders(found)
    for key, order in orders.items():
        shipment, payment = shipments.get(key), payments.get(key)
        if order["status"] in PAID:
            if shipment is None or payment is None or payment["status"] != "succeeded":
                yield f"order {key}: paid, and not shipped"
                continue
            yield same(f"order {key}: packages", shipment["package_count"], order["count_items"])
            value = sum(line["value"] for line in payment["lines"])
            yield near(f"order {key}: paid", value, order["total_invoice"] + order["total_incentive"])
        else:
            charged = payment is not None and payment["status"] == "succeeded"
            yield f"order {key}: {order['status']}, and charged or shipped" if charged or shipment else None
    for key in (shipments.keys() | payments.keys()) - orders.keys():
        yield f"order {key}: not there, and charged or shipped"


def amounts_add_up(found: Evidence) -> Iterable[str | None]:
    """An order's amounts are those of its lines."""
    for key, order in _orders(found).items():
        items = order["items"]
        gross = sum(round(item["unit_price"] * item["quantity"], 2) for item in items)
        freight = sum(item["freight_value"] for item in items)
        off = sum(min(item["voucher"], round(item["unit_price"] * item["quantity"], 2)) for item in items)
        yield near(f"order {key}: total_invoice", order["total_invoice"], gross - off + freight)
        yield near(f"order {key}: total_items", order["total_items"], gross)


def versions_agree(found: Evidence) -> Iterable[str | None]:
    """8a.6: product, stock and the cart's replica know one version and one price."""
    known = {
        key_of(key): one for replica in found.state["Replica"].values() for key, one in replica["products"].items()
    }
    for key, product in found.state["Product"].items():
        stock, replica = found.state["StockItem"].get(key), known.get(key_of(key))
        if stock is None or replica is None:
            yield f"product {key}: no stock, or not known to the cart"
            continue
        yield same(f"product {key}: version in stock", stock["version"], product["version"])
        seen, real = (replica["version"], replica["price"]), (product["version"], product["price"])
        yield same(f"product {key}: in the cart's replica", seen, real)


def orders_numbered(found: Evidence) -> Iterable[str | None]:
    """8a.7: a customer's orders are 1 to n."""
    numbers: defaultdict[int, list[int]] = defaultdict(list)
    for customer_id, order_id in _orders(found):
        numbers[customer_id].append(order_id)
    for customer_id, ids in numbers.items():
        yield same(f"customer {customer_id}: orders", sorted(ids), list(range(1, len(ids) + 1)))


def deliveries_counted(found: Evidence) -> Iterable[str | None]:
    """8a.8: a customer counts the parcels that arrived."""
    arrived = Counter[int]()
    for key, shipment in found.state["Shipment"].items():
        arrived[key_of(key)[0]] += sum(one["status"] == "delivered" for one in shipment["packages"])
    for key, customer in found.state["Customer"].items():
        yield same(f"customer {key}: delivery_count", customer["delivery_count"], arrived[int(key)])


def dashboards_agree(found: Evidence) -> Iterable[str | None]:
    """8a.9, criterion 7: a dashboard's totals are those of its entries, and these the open lines of the orders."""
    lines: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for (customer_id, order_id), order in _orders(found).items():
        if order["status"] in OPEN:
            for item in order["items"]:
                amount = round(item["total_amount"] + item["freight_value"], 2)
                lines[item["seller_id"]][f"{customer_id}/{order_id}/{item['order_item_id']}"] = amount
    for seller_id, board in found.dashboards.items():
        yield from consistent(seller_id, board)
        entries = {entry["natural_key"]: entry["total_invoice"] for entry in board["orderEntries"]}
        yield same(f"dashboard {seller_id}: entries", entries, lines[seller_id])


def consistent(seller_id: int, board: Mapping[str, Any]) -> Iterable[str | None]:
    """Criterion 7: what one answer says agrees with itself, at any time."""
    view, entries = board["sellerView"], board["orderEntries"]
    total = sum(entry["total_invoice"] for entry in entries)
    orders = {(entry["customer_id"], entry["order_id"]) for entry in entries}
    yield near(f"dashboard {seller_id}: total_invoice", view["total_invoice"], total)
    yield same(f"dashboard {seller_id}: count_items", view["count_items"], len(entries))
    yield same(f"dashboard {seller_id}: count_orders", view["count_orders"], len(orders))


def told_is_so(found: Evidence) -> Iterable[str | None]:
    """8a.10: each checkout ended once, as its customer was told."""
    ended = Counter(event["tid"] for event in named(of_this_run(found, "cart"), "checked_out"))
    told = found.told.get("CUSTOMER_SESSION", {})
    for tid, status in told.items():
        if status in ("SUCCESS", "NOT_ACCEPTED"):
            yield same(f"checkout {tid}: told {status}, ended", ended[tid], int(status == "SUCCESS"))
    for tid in ended.keys() - told.keys():
        yield f"checkout {tid}: nobody asked for it"


def charged_once(found: Evidence) -> Iterable[str | None]:
    """8b: no invoice is charged twice."""
    charged = Counter(event["invoice_number"] for event in named(of_this_run(found, "payment"), "payment_confirmed"))
    for number, times in charged.items():
        yield same(f"invoice {number}: charged", times, 1)


def statuses_in_order(found: Evidence) -> Iterable[str | None]:
    """Criterion 6: payment before shipment, in transit before delivered, for every order."""
    for key, order in _orders(found).items():
        seen = [entry["status"] for entry in order["history"]]
        if seen == ["INVOICED", "PAYMENT_FAILED"]:
            yield None
        else:
            yield same(f"order {key}: history", seen, STEPS[: len(seen)])


def nothing_waits(found: Evidence) -> Iterable[str | None]:
    """A cart that was checked out is empty and open again; a shipment is concluded when all of it has arrived."""
    for key, cart in found.state["Cart"].items():
        yield same(f"cart {key}: status", cart["status"], "OPEN")
    for key, shipment in found.state["Shipment"].items():
        arrived = sum(one["status"] == "delivered" for one in shipment["packages"])
        status = (
            "concluded" if arrived == shipment["package_count"] else "delivery_in_progress" if arrived else "approved"
        )
        yield same(f"shipment {key}: status", shipment["status"], status)


def _change(now: dict[Key, Shown], event: dict[str, Any]) -> tuple[Shown | None, Shown | None]:
    """Take a product's event into what is offered now: (before, after) where it changes anything."""
    name, body = name_of(event), event["data"]
    if name in ("product_added", "product_replaced"):
        body = body["product"]
    elif name != "product_removed" and not (name == "price_updated" and body["applied"]):
        return None, None
    key = (body["seller_id"], body["product_id"])
    if name == "product_removed":
        return now.pop(key, None), None
    old, now[key] = now.get(key), (*key, body["version"], body["price"])
    return old, now[key]


def causal(found: Evidence) -> Iterable[str | None]:
    """Criterion 4, exactly: the prices of a seller that a quote shows were all current at one moment of the product
    service's log. So none is later than a change that is missing beside it.

    Lines of another version than the cart service knows are no quote of its: they stand as their customer saw them.
    """
    spans = _spans(found)
    for quoted in named(of_this_run(found, "cart"), "quoted"):
        sellers: defaultdict[int, list[Shown]] = defaultdict(list)
        for place, i in enumerate(quoted["items"]):
            if place not in quoted["kept"]:
                sellers[i["seller_id"]].append((i["seller_id"], i["product_id"], i["version"], i["unit_price"]))
        for lines in (items for items in sellers.values() if len(items) > 1):
            moments = spans[lines[0]]
            for line in lines[1:]:
                both = [(max(a, c), min(b, d)) for a, b in moments for c, d in spans[line]]
                moments = [(begin, end) for begin, end in both if begin < end]
            yield None if moments else f"quote of {quoted['tid']}: {lines} were never current together"


def _spans(found: Evidence) -> defaultdict[Shown, list[tuple[float, float]]]:
    """When each price was current, from and up to which place in the product service's feed; -1: before this run."""
    now: dict[Key, Shown] = {}
    for event in before(found, "product"):
        _change(now, event)
    spans: defaultdict[Shown, list[tuple[float, float]]] = defaultdict(list)
    since: dict[Key, float] = dict.fromkeys(now, -1)
    for place, event in enumerate(of_this_run(found, "product")):
        old, new = _change(now, event)
        if old != new:
            if old is not None:
                spans[old].append((since.pop(old[:2]), place))
            if new is not None:
                since[new[:2]] = place
    for key, shown in now.items():
        spans[shown].append((since[key], float("inf")))
    return spans


def anomalies(updates: list[tuple[int, str, float]], cart: list[tuple[int, str, float]]) -> int:
    """8c: the published count for one seller. `updates` newest first and `cart`: (product, version, price)."""
    found: set[tuple[int, int]] = set()
    count = 0
    for index in range(1, len(cart)):
        pivot = next((n for n, update in enumerate(updates) if update == cart[index]), None)
        if pivot is None:
            continue
        for earlier in range(index):
            product, version, price = cart[earlier]
            for position in range(pivot + 1, len(updates) - 1):
                if updates[position][:2] == (product, version):
                    if updates[position][2] == price:
                        break
                    found.add((earlier, position))
        count += len(found)
    return count


def published_anomalies(found: Evidence) -> int:
    """8c: the published count over all carts and sellers; a figure, not a verdict: it also counts what is none."""
    updates: defaultdict[int, list[tuple[int, str, float]]] = defaultdict(list)
    for event in found.feeds["product"]:
        body = event["data"]
        if event["type"].split(".")[1] != "price_updated" or body["applied"]:
            row = body.get("product", body)
            if "price" in row:
                updates[row["seller_id"]].insert(0, (row["product_id"], row["version"], row["price"]))
    count = 0
    for quoted in named(of_this_run(found, "cart"), "quoted"):
        carts: defaultdict[int, list[tuple[int, str, float]]] = defaultdict(list)
        for item in quoted["items"]:
            carts[item["seller_id"]].append((item["product_id"], item["version"], item["unit_price"]))
        count += sum(anomalies(updates[seller], cart) for seller, cart in carts.items() if len(cart) > 1)
    return count


CHECKS: dict[str, Callable[[Evidence], Iterable[str | None]]] = {
    "nothing is reserved any more": nothing_reserved,
    "units gone are units sold": units_conserved,
    "stock counts its sales": sales_counted,
    "customers count their payments": payments_counted,
    "paid is shipped, shipped is paid": paid_is_shipped,
    "amounts add up": amounts_add_up,
    "product, stock and cart know one version": versions_agree,
    "orders are numbered 1 to n": orders_numbered,
    "customers count their parcels": deliveries_counted,
    "dashboards agree with the orders": dashboards_agree,
    "what customers were told is so": told_is_so,
    "no invoice is charged twice": charged_once,
    "statuses come in order": statuses_in_order,
    "carts and shipments have come to rest": nothing_waits,
    "no quote shows a later price beside an outdated one": causal,
    **together.CHECKS,
}
