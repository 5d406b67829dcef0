"""The audit of the shop: what its four feeds must say together, found out from nothing but the feeds.

Shares no code with the runtime: it reads CloudEvents and adds up. Every check says what it counted, so that one that
looked at nothing is seen; every violation names an order or a product. Comes after the feeds were read.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]
COMPLETED, REJECTED = "completed", "rejected"


@dataclass
class Check:
    """One thing that must be so."""

    name: str
    counted: int = 0
    violations: list[str] = field(default_factory=list[str])

    @property
    def passed(self) -> bool:
        """True when it looked at something and found nothing wrong."""
        return self.counted > 0 and not self.violations

    def look(self, fine: bool, otherwise: str) -> None:
        """Count one thing that was looked at."""
        self.counted += 1
        if not fine:
            self.violations.append(f"{self.name}: {otherwise}")


class Books:
    """The feeds, sorted by order."""

    def __init__(self, feeds: Mapping[str, Iterable[Event]]) -> None:
        self.feeds = {service: list(events) for service, events in feeds.items()}
        self.placed: dict[str, Mapping[str, Any]] = {}
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        """Order -> how many events of each name."""
        self.units: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        """Name of a stock event -> units by (order, product)."""
        self.lines: Counter[tuple[str, str]] = Counter()
        """(order, product) -> reservations."""
        self.restocked: Counter[str] = Counter()
        self.cents: dict[str, Counter[str]] = defaultdict(Counter)
        self.parcels: Counter[str] = Counter()
        for events in self.feeds.values():
            for event in events:
                self._enter(event["type"].split(".")[1], event["data"])

    def _enter(self, name: str, data: Mapping[str, Any]) -> None:
        order = data.get("order_id", "")
        self.counts[order][name] += 1
        if name == "restocked":
            self.restocked[data["sku"]] += data["quantity"]
        elif name in ("reserved", "released"):
            self.units[name][order, data["sku"]] += data["quantity"]
            self.lines[order, data["sku"]] += name == "reserved"
        elif name == "placed":
            self.placed[order] = data
        elif name in ("charged", "refunded", "confirmed", "checked_out"):
            self.cents[name][order] += data["amount_cents"]
        elif name == "shipped":
            self.parcels[order] += data["parcels"]

    def confirmed(self, order: str) -> bool:
        """True for an order that the shop has said yes to."""
        return self.counts[order]["confirmed"] > 0

    def end(self, order: str) -> str | None:
        """How an order ended; None while it has not."""
        count = self.counts[order]
        return COMPLETED if count["checked_out"] else REJECTED if count["cancelled"] else None


def audit(feeds: Mapping[str, Iterable[Event]], answers: Mapping[str, str | None]) -> list[Check]:
    """Check the feeds of the four services. `answers`: order -> what its customer was told, None where nothing was."""
    books = Books(feeds)
    return [
        _ended(books, answers),
        _told(books, answers),
        *_money(books),
        *_goods(books),
        _shipped(books),
        _streams(books),
    ]


def _ended(books: Books, answers: Mapping[str, str | None]) -> Check:
    check = Check("every order ended, once")
    for order in answers:
        count = books.counts[order]
        yes = (count["placed"], count["confirmed"], count["checked_out"], count["cancelled"]) == (1, 1, 1, 0)
        no = (count["placed"], count["confirmed"], count["checked_out"], count["cancelled"]) == (1, 0, 0, 1)
        check.look(yes or no, f"{order} is neither bought nor off: {dict(count)}")
    for order in books.placed.keys() - answers.keys():
        check.look(False, f"{order} was never submitted")
    return check


def _told(books: Books, answers: Mapping[str, str | None]) -> Check:
    check = Check("what customers were told is so")
    for order, told in answers.items():
        if told is not None:
            check.look(books.confirmed(order) == (told == COMPLETED), f"{order}: its customer was told {told}")
    return check


def _money(books: Books) -> list[Check]:
    paid = Check("confirmed orders are charged exactly once")
    unpaid = Check("orders that are off cost nothing")
    for order, data in books.placed.items():
        amount = sum(item["quantity"] * item["price_cents"] for item in data["items"])
        count, charged = books.counts[order], books.cents["charged"][order]
        if books.confirmed(order):
            fine = (count["charged"], count["refunded"], charged) == (1, 0, amount)
            paid.look(fine, f"{order} over {amount}: {count['charged']} charges of {charged} in all")
        else:
            left = charged - books.cents["refunded"][order]
            unpaid.look(left == 0 and count["charged"] == count["refunded"], f"{order}: {left} cents are kept")
    return [paid, unpaid]


def _goods(books: Books) -> list[Check]:
    once = Check("every line is reserved once at most")
    held = Check("stock is held for confirmed orders alone")
    kept = Check("stock is conserved")
    sold: Counter[str] = Counter()
    wanted: dict[tuple[str, str], int] = {}
    for order, data in books.placed.items():
        for item in data["items"]:
            wanted[order, item["sku"]] = item["quantity"] if books.confirmed(order) else 0
            sold[item["sku"]] += item["quantity"] if books.confirmed(order) else 0
    for line in wanted.keys() | books.units["reserved"].keys() | books.units["released"].keys():
        once.look(books.lines[line] <= 1, f"{line[0]} holds {line[1]} by {books.lines[line]} reservations")
        units = books.units["reserved"][line] - books.units["released"][line]
        held.look(units == wanted.get(line, 0), f"{line[0]} holds {units} of {line[1]}, not {wanted.get(line, 0)}")
    for sku, units in books.restocked.items():
        gone = sum(n for (_, s), n in books.units["reserved"].items() if s == sku)
        gone -= sum(n for (_, s), n in books.units["released"].items() if s == sku)
        kept.look(0 <= gone <= units and gone == sold[sku], f"{sku}: {units} came in, {gone} went, {sold[sku]} sold")
    return [once, held, kept]


def _shipped(books: Books) -> Check:
    check = Check("confirmed orders are shipped once, others never")
    for order, data in books.placed.items():
        yes = books.confirmed(order)
        expected = (1, len(data["items"])) if yes else (0, 0)
        found = (books.counts[order]["shipped"], books.parcels[order])
        check.look(found == expected, f"{order}: {found[0]} shipments, {found[1]} parcels")
    return check


def _streams(books: Books) -> Check:
    check = Check("feeds are in order, no stream has a gap")
    for service, events in books.feeds.items():
        last, versions = 0, Counter[str]()
        for event in events:
            position = int(event["id"].rpartition("@")[2])
            check.look(position > last, f"{event['id']} follows {service}@{last}")
            last = position
            stream, version = event["subject"], event["streamversion"]
            if not stream.startswith("CheckoutSaga/"):  # of a saga only the last record is public
                versions[stream] += 1
                check.look(version == versions[stream], f"{event['id']} is version {version} of {stream}")
    return check
