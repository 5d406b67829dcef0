"""Checks of what must be there together: replacements and delivery updates, each whole in all services or in none.

Reads feeds and dashboards alone: what belongs together has one transaction on its records. `audit` runs these with the
others. (Criteria 3 and 5 of the benchmark.)
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from marketplace.facts import Evidence, Key, key_of, name_of, named, of_this_run, same

Parcel = tuple[int, int, int]
"""Customer, order, package."""
DELIVERED = ("IN_TRANSIT", "DELIVERED")
"""What a delivery makes of an order."""


def replaced_together(found: Evidence) -> Iterable[str | None]:
    """Criterion 3: a replacement is in product and in stock once each, with one version, or in neither."""
    product: defaultdict[str, list[tuple[Key, str]]] = defaultdict(list)
    stock: defaultdict[str, list[tuple[Key, str]]] = defaultdict(list)
    for tx, body in _by_transaction(found, "product", "product_replaced"):
        row = body["product"]
        if row["version"] != "0":  # put back to its beginning
            product[tx].append(((row["seller_id"], row["product_id"]), row["version"]))
    for tx, body in _by_transaction(found, "stock", "version_set"):
        stock[tx].append(((body["seller_id"], body["product_id"]), body["version"]))
    for tx in product.keys() | stock.keys():
        wrong = same(f"replacement {tx}: in product and stock", product[tx], stock[tx])
        yield wrong or same(f"replacement {tx}: times", len(product[tx]), 1)


def replaced_in_order(found: Evidence) -> Iterable[str | None]:
    """Criterion 5: product and stock go through the same versions of a product in the same order."""
    product: defaultdict[Key, list[str]] = defaultdict(list)
    stock: defaultdict[Key, list[str]] = defaultdict(list)
    for event in found.feeds["product"]:
        name, body = name_of(event), event["data"]
        row = body.get("product", body)
        if name in ("product_added", "product_replaced", "product_removed"):
            product[row["seller_id"], row["product_id"]].append(row.get("version", "gone"))
    for event in found.feeds["stock"]:
        name, body = name_of(event), event["data"]
        if name in ("stock_added", "version_set", "stock_restarted", "stock_removed"):
            version = {"stock_restarted": "0", "stock_removed": "gone"}.get(name) or body["version"]
            stock[body["seller_id"], body["product_id"]].append(version)
    for key in product.keys() | stock.keys():
        if len(product[key]) > 1 or len(stock[key]) > 1:
            yield same(f"product {key}: versions in product and stock", product[key], stock[key])


class Parts:
    """What one delivery update did, by service."""

    def __init__(self) -> None:
        self.shipment = Counter[Parcel]()
        self.seller = Counter[Parcel]()
        self.parcels = Counter[int]()
        """By customer, as the customer service counted them."""
        self.due = Counter[tuple[int, int, str]]()
        """Customer, order and status, as shipments say; `orders`: as orders say."""
        self.orders = Counter[tuple[int, int, str]]()
        self.ended: list[int] = []
        """How many parcels it said that it has delivered."""


def _parts(found: Evidence) -> dict[str, Parts]:
    """By transaction."""
    parts: defaultdict[str, Parts] = defaultdict(Parts)
    for tx, body in _by_transaction(found, "shipment", "packages_delivered"):
        parts[tx].shipment.update(
            (body["customer_id"], body["order_id"], one["package_id"]) for one in body["packages"]
        )
    for name, status in (("delivery_started", "IN_TRANSIT"), ("delivery_concluded", "DELIVERED")):
        for tx, body in _by_transaction(found, "shipment", name):
            parts[tx].due[body["customer_id"], body["order_id"], status] += 1
    for tx, body in _by_transaction(found, "seller", "parcels_arrived"):
        parts[tx].seller.update((one["customer_id"], one["order_id"], one["package_id"]) for one in body["arrivals"])
    for tx, body in _by_transaction(found, "customer", "counted"):
        if body["delivered"]:
            parts[tx].parcels[body["id"]] += body["delivered"]
    for tx, body in _by_transaction(found, "order", "order_status_changed"):
        if body["status"] in DELIVERED:
            parts[tx].orders[body["customer_id"], body["order_id"], body["status"]] += 1
    for tx, body in _by_transaction(found, "shipment", "delivery_updated"):
        if body["packages"]:
            parts[tx].ended.append(body["packages"])
    return parts


def delivered_together(found: Evidence) -> Iterable[str | None]:
    """Criterion 3: what a delivery update did is in shipment, customer, seller and order, or in none of them."""
    for tx, one in _parts(found).items():
        customers = Counter[int]()
        for (customer_id, _, _), count in one.shipment.items():
            customers[customer_id] += count
        what = f"delivery {tx}: "
        yield (
            same(what + "parcels in shipment and seller", one.shipment, one.seller)
            or same(what + "parcels in shipment and customer", customers, one.parcels)
            or same(what + "statuses in shipment and order", one.due, one.orders)
            or same(what + "said to be delivered", one.ended, [one.shipment.total()])
        )


def delivered_in_order(found: Evidence) -> Iterable[str | None]:
    """A seller's shipments are delivered in the order in which they came, each once."""
    queues: defaultdict[int, list[Key]] = defaultdict(list)
    for event in found.feeds["shipment"]:
        name, body = name_of(event), event["data"]
        if name == "enrolled":
            for seller_id in body["sellers"]:
                queues[seller_id].append((body["customer_id"], body["order_id"]))
        elif name == "depot_emptied":
            queues.clear()
        elif name == "packages_delivered":
            order = (body["customer_id"], body["order_id"])
            for seller_id in dict.fromkeys(one["seller_id"] for one in body["packages"]):
                queue = queues[seller_id]
                oldest = queue[0] if queue else None
                if order in queue:
                    queue.remove(order)
                yield same(f"seller {seller_id}: delivered, and the oldest", order, oldest)


def arrivals_shown(found: Evidence) -> Iterable[str | None]:
    """On a dashboard an open line is delivered when its parcel is, and not before."""
    arrived = {
        (*key_of(key), one["package_id"]): one["status"] == "delivered"
        for key, shipment in found.state["Shipment"].items()
        for one in shipment["packages"]
    }
    for board in found.dashboards.values():
        for entry in board["orderEntries"]:
            parcel = (entry["customer_id"], entry["order_id"], entry["package_id"])
            shown = entry["delivery_status"] == "delivered"
            yield same(f"parcel {parcel}: shown as delivered", shown, arrived.get(parcel, False))


def updates_told_so(found: Evidence) -> Iterable[str | None]:
    """8a.10: each update is there once, or not at all, as its caller was told."""
    said: dict[str, Counter[str]] = {
        "UPDATE_PRODUCT": Counter(
            body["product"]["version"] for body in named(of_this_run(found, "product"), "product_replaced")
        ),
        "UPDATE_DELIVERY": Counter(body["tid"] for body in named(of_this_run(found, "shipment"), "delivery_updated")),
    }
    for kind, times in said.items():
        told = found.told.get(kind, {})
        for tid, status in told.items():
            if status in ("SUCCESS", "NOT_ACCEPTED"):
                yield same(f"{kind} {tid}: told {status}, there", times[tid], int(status == "SUCCESS"))
        for tid in times.keys() - told.keys() - {"0"}:
            yield f"{kind} {tid}: nobody asked for it"


def _by_transaction(found: Evidence, service: str, name: str) -> Iterable[tuple[str, dict[str, Any]]]:
    for event in found.feeds[service]:
        if name_of(event) == name:
            yield event["transaction"], event["data"]


CHECKS: dict[str, Callable[[Evidence], Iterable[str | None]]] = {
    "a replacement is in product and stock, or in neither": replaced_together,
    "product and stock took replacements in one order": replaced_in_order,
    "a delivery is in all four services, or in none": delivered_together,
    "parcels are delivered once, the oldest first": delivered_in_order,
    "dashboards show what has arrived": arrivals_shown,
    "what updates were told is so": updates_told_so,
}
