"""The demo: it settles and holds under kills, its JSON is one object, and its audit finds what sabotage breaks."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.core.audit.audit import Audit, Report
from holdfast.core.audit.cut import Seen
from holdfast.demo.run import examples_folder
from marketplace.invariants import system
from shop.demo import SERVICES
from shop.drive import PRODUCTS
from shop.invariants import shop
from support.servers import ENGINES, shared

FIELDS = {
    "submitted", "completed", "undone", "in_flight", "kills", "throughput_per_s", "latency_ms", "checks", "violations",
    "correlation_id",
}  # fmt: skip
RUN_SECONDS_MAX = 200
CHECKS = 19
"""Of the marketplace: that all settled, its sixteen invariants, what callers were told and what dashboards show."""
SETTLED = "Every transaction settled"
HELD, SOLD = (system.invariants[name].doc for name in ("nothing_held", "UnitsConserved"))


def run_demo(*flags: str, example: str = "shop") -> tuple[int, str]:
    """Exit code and output of a demo; what it kept to look at is removed."""
    command = [sys.executable, "-m", "holdfast.cli", "demo", "--example", example, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    if kept := re.search(r"kept in (\S+)", done.stderr):
        shutil.rmtree(kept.group(1))
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout or done.stderr


def run_json(*flags: str, example: str = "shop") -> tuple[int, dict[str, Any]]:
    """Exit code and the object that `--json` prints."""
    code, out = run_demo("--json", *flags, example=example)
    assert out.startswith("{"), out
    return code, json.loads(out)


def test_a_demo_under_kills_settles_and_holds() -> None:
    """G3, G4: with the coordinator and another service killed under load, every order ends, once, and all adds up."""
    code, found = run_json("--seconds", "4", "--kills", "2", "--seed", "1")
    assert found["violations"] == []
    assert code == 0
    assert set(found) == FIELDS
    assert found["kills"] == 2
    assert found["in_flight"] == 0
    assert found["submitted"] == found["completed"] + found["undone"] > 30
    assert min(found["completed"], found["undone"]) > 2
    assert all(set(one) == {"name", "passed", "counted"} and one["passed"] for one in found["checks"])
    assert all(one["counted"] > 0 for one in found["checks"])
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert found["throughput_per_s"] > 0
    assert found["correlation_id"]


def test_a_demo_tells_a_reader_what_it_found() -> None:
    """G7: without --json there is the audit, one order's trail across services, and what to try next."""
    code, out = run_demo("--seconds", "2", "--kills", "0", "--seed", "2")
    assert code == 0, out
    assert "Units that are gone are units that were sold" in out
    assert "Try next" in out
    assert re.search(r"─ \+\d+\.\d ms {2}stock@\d+ {2}", out), out


class Sabotaged:
    """Demos of an example with one protection taken out of each. They mostly wait for what never comes: they run at the
    same time, all from the first that is asked for."""

    def __init__(self, example: str, *flags: str, kills: dict[str, str]) -> None:
        with ThreadPoolExecutor(len(kills)) as pool:
            self._runs = {
                sabotage: pool.submit(run_json, *flags, "--kills", count, "--sabotage", sabotage, example=example)
                for sabotage, count in kills.items()
            }

    def run(self, sabotage: str) -> tuple[int, dict[str, Any]]:
        """Exit code of one, and what it printed."""
        return self._runs[sabotage].result()


@pytest.fixture(scope="module")
def sabotaged_shops() -> Sabotaged:
    """The shop."""
    kills = {"cursor": "2", "send": "2", "undo": "2"}
    return Sabotaged("shop", "--seconds", "4", "--seed", "1", kills=kills)


@pytest.fixture(scope="module")
def sabotaged_marketplaces() -> Sabotaged:
    """The marketplace."""
    kills = {"cursor": "6", "send": "0", "undo": "0"}
    return Sabotaged("marketplace", "--seconds", "5", "--seed", "3", kills=kills)


@pytest.mark.parametrize(
    ("sabotage", "broken"),
    [
        ("cursor", {"Every line of a confirmed order is reserved once, and nothing for others",
                    "Confirmed orders are charged exactly once, others cost nothing",
                    "Confirmed orders are shipped once, others never", "Every transaction settled"}),
        ("send", {"Every transaction settled"}),
        ("undo", {"Every line of a confirmed order is reserved once, and nothing for others"}),
    ],
)  # fmt: skip
def test_the_audit_finds_what_sabotage_breaks(sabotage: str, broken: set[str], sabotaged_shops: Sabotaged) -> None:
    """With one protection taken out the audit finds violations, in the check that is about it, and the code is 1."""
    code, found = sabotaged_shops.run(sabotage)
    assert code == 1
    assert found["violations"]
    assert broken & {one["name"] for one in found["checks"] if not one["passed"]}


def test_the_marketplace_under_kills_settles_and_holds() -> None:
    """Eight processes, the benchmark's mix, cart and two others killed: every check counts, nothing is violated."""
    code, found = run_json("--seconds", "6", "--kills", "3", "--seed", "3", example="marketplace")
    assert found["violations"] == []
    assert code == 0 and found["kills"] == 3 and found["in_flight"] == 0
    assert set(found) == FIELDS and found["undone"] > 0
    assert len(found["checks"]) == CHECKS and all(one["counted"] for one in found["checks"])


def test_on_mixed_stores_servers_are_killed_too() -> None:
    """G1, G8: SQLite, PostgreSQL and MariaDB side by side, with services and both servers killed: all adds up."""
    for engine in ENGINES:
        shared(engine)  # or this is skipped
    code, found = run_json("--seconds", "8", "--kills", "8", "--seed", "3", "--stores", "mixed", example="marketplace")
    assert found["violations"] == []
    assert code == 0 and found["kills"] == 8 and found["in_flight"] == 0 and found["completed"] > 20
    assert len(found["checks"]) == CHECKS and all(one["counted"] for one in found["checks"])


@pytest.mark.parametrize(
    ("sabotage", "broken"),
    [
        ("cursor", {HELD, SOLD}),
        ("send", {SETTLED}),
        ("undo", {HELD}),
    ],
)
def test_the_marketplace_audit_finds_what_sabotage_breaks(
    sabotage: str, broken: set[str], sabotaged_marketplaces: Sabotaged
) -> None:
    """With one protection taken out the benchmark's invariants are violated, and the code is 1. What is lost (`send`)
    is seen at the latest in that the system does not come to rest."""
    code, found = sabotaged_marketplaces.run(sabotage)
    assert code == 1 and found["violations"]
    assert not broken or broken & {one["name"] for one in found["checks"] if not one["passed"]}


def test_an_unknown_sabotage_is_refused() -> None:
    """G10: what cannot be understood is exit code 2, and nothing is started."""
    code, out = run_demo("--sabotage", "coffee")
    assert code == 2 and "coffee" in out and "cursor" in out


def test_the_example_shop_is_found() -> None:
    """The shop that the demo runs is where the package says it is."""
    assert (examples_folder() / "shop" / "services.py").is_file()


class Books:
    """The logs of a shop, entered by hand, as an audit reads them."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Seen]] = {name: [] for name in SERVICES}

    def enter(self, service: str, name: str, tx: str, *, outcome: bool = False, **data: Any) -> None:
        """One event."""
        log = self.logs[service]
        log.append(
            Seen(len(log) + 1, "event", f"{service}.{name}.v1", tx, tx, 0, "", "", 0, "", outcome,
                 msgspec.Raw(msgspec.json.encode(data)))
        )  # fmt: skip

    def find(self, service: str, name: str) -> int:
        """The place of the first event of a name."""
        return next(n for n, event in enumerate(self.logs[service]) if event.type == f"{service}.{name}.v1")

    def report(self) -> Report:
        """What the shop's invariants say of it."""
        found = Audit(shop)
        for name, log in self.logs.items():
            records = [msgspec.structs.replace(one, position=n) for n, one in enumerate(log, 1)]
            found.take(name, records, len(records), head=len(records), mark=None)
        found.check()
        return found.report()

    def broken(self) -> set[str]:
        """Names of the invariants that do not hold."""
        return {one.invariant for one in self.report().violations}


def books() -> Books:
    """A shop with one order bought and one undone, as it must be."""
    made = Books()
    item = {"sku": PRODUCTS[0], "quantity": 2, "price_cents": 250}
    made.enter("stock", "restocked", "t0", sku=PRODUCTS[0], quantity=100)
    for order, tx in (("o1", "t1"), ("o2", "t2")):
        made.enter("order", "placed", tx, order_id=order, customer_id="c1", items=[item])
        made.enter("stock", "reserved", tx, sku=PRODUCTS[0], order_id=order, quantity=2)
    made.enter("payment", "charged", "t1", order_id="o1", amount_cents=500)
    made.enter("payment", "charge_failed", "t2", order_id="o2", amount_cents=500, reason="declined")
    made.enter("order", "confirmed", "t1", order_id="o1", amount_cents=500)
    made.enter("shipping", "shipped", "t1", order_id="o1", parcels=1)
    made.enter("order", "checked_out", "t1", outcome=True, order_id="o1", amount_cents=500)
    made.enter("stock", "released", "t2", sku=PRODUCTS[0], order_id="o2", quantity=2)
    made.enter("order", "cancelled", "t2", order_id="o2")
    return made


def test_the_audit_passes_a_good_history() -> None:
    """A history as it must be has no violation, and every invariant has something to judge."""
    report = books().report()
    assert report.passed and report.settled == 3 and min(report.counted.values()) >= 1


@pytest.mark.parametrize(
    ("service", "name", "broken"),
    [
        ("order", "cancelled", "ended_once"),
        ("order", "checked_out", "ended_once"),
        ("order", "confirmed", "ended_once"),
        ("payment", "charged", "charged_once"),
        ("stock", "released", "held_for_confirmed"),
        ("stock", "reserved", "held_for_confirmed"),
        ("stock", "released", "StockConserved"),
        ("shipping", "shipped", "shipped_once"),
    ],
)
def test_the_audit_finds_a_lost_event(service: str, name: str, broken: str) -> None:
    """A history without one of its events fails in the invariant that is about it, naming records of it."""
    made = books()
    del made.logs[service][made.find(service, name)]
    assert broken in made.broken()
    assert all(one.records for one in made.report().violations)


@pytest.mark.parametrize(
    ("service", "name", "broken"),
    [
        ("order", "confirmed", "ended_once"),
        ("payment", "charged", "charged_once"),
        ("stock", "reserved", "held_for_confirmed"),
        ("stock", "released", "StockConserved"),
        ("shipping", "shipped", "shipped_once"),
    ],
)
def test_the_audit_finds_a_doubled_event(service: str, name: str, broken: str) -> None:
    """A history in which one thing happened twice fails in the invariant that is about it."""
    made = books()
    made.logs[service].append(made.logs[service][made.find(service, name)])
    assert broken in made.broken()


def test_the_audit_finds_money_kept_for_nothing() -> None:
    """A charge of an order that is off, and never refunded, is found."""
    made = books()
    made.enter("payment", "charged", "t2", order_id="o2", amount_cents=500)
    assert made.broken() == {"charged_once"}


def test_an_audit_that_counted_nothing_does_not_pass() -> None:
    """Empty logs are no proof of anything."""
    assert not Books().report().passed


def test_the_shop_is_shipped() -> None:
    """The wheel brings the shop along, where an installed demo looks for it."""
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8")
    assert '"examples/shop" = "holdfast/_examples/shop"' in text
