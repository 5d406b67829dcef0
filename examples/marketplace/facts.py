"""Facts: all that an audit looks at, as it was read, and how its checks speak of it.

Comes after `evidence`, which reads it, before `audit` and `together`, which judge. Knows feeds and states as JSON;
shares no code with the services.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

Key = tuple[int, int]
AGGREGATES = {
    "cart": ("Cart", "Replica"), "product": ("Product",), "stock": ("StockItem",), "order": ("Order",),
    "payment": ("Payment",), "shipment": ("Shipment", "Depot"), "customer": ("Customer",), "seller": ("Seller",),
}  # fmt: skip


class Evidence(Struct):
    """All that was read."""

    feeds: dict[str, list[dict[str, Any]]]
    """Service -> its events, as CloudEvents in the order of its log."""
    state: dict[str, dict[str, dict[str, Any]]]
    """Aggregate type -> key -> state."""
    dashboards: dict[int, dict[str, Any]]
    since: dict[str, int]
    """Service -> the position before which its events are of another run; what is asked of one run is counted after."""
    told: dict[str, dict[str, str]]
    """Kind of transaction -> tid -> SUCCESS, NOT_ACCEPTED or something else, as the driver was told."""


class Check(Struct):
    """One check: how many things it looked at, and what is wrong with them."""

    name: str
    counted: int
    violations: list[str]

    @property
    def passed(self) -> bool:
        """True when something was counted and nothing was wrong."""
        return self.counted > 0 and not self.violations


def key_of(text: str) -> Key:
    """An aggregate's composite key."""
    first, _, second = text.partition("/")
    return int(first), int(second)


def same(what: str, one: Any, other: Any) -> str | None:
    """What is wrong where two things are not the same."""
    return None if one == other else f"{what}: {one} is not {other}"


def near(what: str, one: float, other: float) -> str | None:
    """What is wrong where two amounts differ by a cent."""
    return None if abs(one - other) < 0.005 else f"{what}: {one} is not {other}"


def named(events: Iterable[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """What the events of these names say."""
    return [event["data"] for event in events if name_of(event) in names]


def name_of(event: dict[str, Any]) -> str:
    """An event's name, without its contract and version."""
    return event["type"].split(".")[1]


def before(found: Evidence, service: str) -> list[dict[str, Any]]:
    """A service's events of earlier runs."""
    return [event for event in found.feeds[service] if position_of(event) <= found.since.get(service, 0)]


def of_this_run(found: Evidence, service: str) -> list[dict[str, Any]]:
    """A service's events of this run."""
    return [event for event in found.feeds[service] if position_of(event) > found.since.get(service, 0)]


def position_of(event: dict[str, Any]) -> int:
    """An event's position in its log."""
    return int(event["id"].rpartition("@")[2])
