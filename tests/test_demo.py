"""The demo: it settles and holds under kills, its JSON is one object, and its audit finds what sabotage breaks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.demonstration import examples_folder
from servers import ENGINES, started
from shop.audit import Check, audit
from shop.demo import SERVICES
from shop.drive import PRODUCTS

FIELDS = {
    "submitted", "completed", "undone", "in_flight", "kills", "throughput_per_s", "latency_ms", "checks", "violations",
    "correlation_id",
}  # fmt: skip
RUN_SECONDS_MAX = 90


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
    assert found["submitted"] == found["completed"] + found["undone"] > 100
    assert min(found["completed"], found["undone"]) > 10
    assert all(set(one) == {"name", "passed", "counted"} and one["passed"] for one in found["checks"])
    assert all(one["counted"] > 0 for one in found["checks"])
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert found["throughput_per_s"] > 0
    assert found["correlation_id"]


def test_a_demo_tells_a_reader_what_it_found() -> None:
    """G7: without --json there is the audit, one order's trail across services, and what to try next."""
    code, out = run_demo("--seconds", "2", "--kills", "0", "--seed", "2")
    assert code == 0, out
    assert "stock is conserved" in out
    assert "Try next" in out
    assert re.search(r"─ \+\d+\.\d ms {2}stock@\d+ {2}", out), out


@pytest.mark.parametrize(
    ("sabotage", "broken"),
    [
        ("cursor", {"every line is reserved once at most", "confirmed orders are charged exactly once",
                    "confirmed orders are shipped once, others never"}),
        ("send", {"every order ended, once"}),
        ("undo", {"stock is held for confirmed orders alone"}),
    ],
)  # fmt: skip
def test_the_audit_finds_what_sabotage_breaks(sabotage: str, broken: set[str]) -> None:
    """With one protection taken out the audit finds violations, in the check that is about it, and the code is 1."""
    code, found = run_json("--seconds", "4", "--kills", "2", "--seed", "1", "--sabotage", sabotage)
    assert code == 1
    assert found["violations"]
    assert broken & {one["name"] for one in found["checks"] if not one["passed"]}


def test_the_marketplace_under_kills_settles_and_holds() -> None:
    """Eight processes, the benchmark's mix, cart and two others killed: every check counts, nothing is violated."""
    code, found = run_json("--seconds", "6", "--kills", "3", "--seed", "3", example="marketplace")
    assert found["violations"] == []
    assert code == 0 and found["kills"] == 3 and found["in_flight"] == 0
    assert set(found) == FIELDS and found["undone"] > 0
    assert len(found["checks"]) == 21 and all(one["counted"] for one in found["checks"])


def test_on_mixed_stores_servers_are_killed_too() -> None:
    """G1, G8: SQLite, PostgreSQL and MariaDB side by side, with services and both servers killed: all adds up."""
    for engine in ENGINES:
        started(engine).stop()
    code, found = run_json("--seconds", "8", "--kills", "8", "--seed", "3", "--stores", "mixed", example="marketplace")
    assert found["violations"] == []
    assert code == 0 and found["kills"] == 8 and found["in_flight"] == 0 and found["completed"] > 100
    assert len(found["checks"]) == 21 and all(one["counted"] for one in found["checks"])


@pytest.mark.parametrize(
    ("sabotage", "kills", "broken"),
    [
        ("cursor", "6", {"nothing is reserved any more", "stock counts its sales"}),
        ("send", "0", set[str]()),
        ("undo", "0", {"nothing is reserved any more"}),
    ],
)
def test_the_marketplace_audit_finds_what_sabotage_breaks(sabotage: str, kills: str, broken: set[str]) -> None:
    """With one protection taken out the benchmark's invariants are violated, and the code is 1. What is lost (`send`)
    is seen at the latest in that the system does not come to rest."""
    code, found = run_json(
        "--seconds", "5", "--kills", kills, "--seed", "3", "--sabotage", sabotage, example="marketplace"
    )
    assert code == 1 and found["violations"]
    assert not broken or broken & {one["name"] for one in found["checks"] if not one["passed"]}


def test_an_unknown_sabotage_is_refused() -> None:
    """G10: what cannot be understood is exit code 2, and nothing is started."""
    code, out = run_demo("--sabotage", "coffee")
    assert code == 2 and "coffee" in out and "cursor" in out


def test_the_example_shop_is_found() -> None:
    """The shop that the demo runs is where the package says it is."""
    assert (examples_folder() / "shop" / "services.py").is_file()


def history() -> dict[str, list[dict[str, Any]]]:
    """The feeds of a shop with one order bought and one undone, as they must be."""
    feeds: dict[str, list[dict[str, Any]]] = {name: [] for name in SERVICES}
    versions: dict[str, int] = {}

    def enter(service: str, name: str, stream: str, **data: Any) -> None:
        versions[stream] = versions.get(stream, 0) + 1
        event = {"id": f"{service}@{len(feeds[service]) + 1}", "type": f"{service}.{name}.v1", "subject": stream}
        feeds[service].append({**event, "streamversion": versions[stream], "data": data})

    item = {"sku": PRODUCTS[0], "quantity": 2, "price_cents": 250}
    enter("stock", "restocked", "StockItem/apple", sku=PRODUCTS[0], quantity=100)
    for order in ("o1", "o2"):
        enter("order", "placed", f"Order/{order}", order_id=order, customer_id="c1", items=[item])
        enter("stock", "reserved", "StockItem/apple", sku=PRODUCTS[0], order_id=order, quantity=2)
    enter("payment", "charged", "Payment/o1", order_id="o1", amount_cents=500)
    enter("payment", "charge_failed", "Payment/o2", order_id="o2", amount_cents=500, reason="declined")
    enter("order", "confirmed", "Order/o1", order_id="o1", amount_cents=500)
    enter("shipping", "shipped", "Shipment/o1", order_id="o1", parcels=1)
    enter("order", "checked_out", "CheckoutSaga/1", order_id="o1", amount_cents=500)
    enter("stock", "released", "StockItem/apple", sku=PRODUCTS[0], order_id="o2", quantity=2)
    enter("order", "cancelled", "Order/o2", order_id="o2")
    return feeds


def judged(feeds: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Names of the checks that do not pass."""
    checks: list[Check] = audit(feeds, {"o1": "completed", "o2": "rejected"})
    return {check.name for check in checks if not check.passed}


def test_the_audit_passes_a_good_history() -> None:
    """A history as it must be has no violation, and every check counts something."""
    assert judged(history()) == set()


@pytest.mark.parametrize(
    ("service", "name", "broken"),
    [
        ("order", "cancelled", "every order ended, once"),
        ("order", "checked_out", "every order ended, once"),
        ("order", "confirmed", "what customers were told is so"),
        ("payment", "charged", "confirmed orders are charged exactly once"),
        ("stock", "released", "stock is held for confirmed orders alone"),
        ("stock", "reserved", "stock is held for confirmed orders alone"),
        ("shipping", "shipped", "confirmed orders are shipped once, others never"),
    ],
)
def test_the_audit_finds_a_lost_event(service: str, name: str, broken: str) -> None:
    """A history without one of its events fails in the check that is about it."""
    feeds = history()
    gone = next(event for event in feeds[service] if event["type"] == f"{service}.{name}.v1")
    feeds[service].remove(gone)
    assert broken in judged(feeds)


@pytest.mark.parametrize(
    ("service", "name", "broken"),
    [
        ("order", "confirmed", "every order ended, once"),
        ("payment", "charged", "confirmed orders are charged exactly once"),
        ("stock", "reserved", "every line is reserved once at most"),
        ("stock", "released", "stock is conserved"),
        ("shipping", "shipped", "confirmed orders are shipped once, others never"),
    ],
)
def test_the_audit_finds_a_doubled_event(service: str, name: str, broken: str) -> None:
    """A history in which one thing happened twice fails in the check that is about it."""
    feeds = history()
    twice = next(event for event in feeds[service] if event["type"] == f"{service}.{name}.v1")
    feeds[service].append({**twice, "id": f"{service}@{len(feeds[service]) + 1}", "streamversion": 99})
    assert {broken, "feeds are in order, no stream has a gap"} <= judged(feeds)


def test_the_audit_finds_money_kept_for_nothing() -> None:
    """A charge of an order that is off, and never refunded, is found."""
    feeds = history()
    data = {"order_id": "o2", "amount_cents": 500}
    charged = {"id": "payment@3", "type": "payment.charged.v1", "subject": "Payment/o2", "streamversion": 2}
    feeds["payment"].append({**charged, "data": data})
    assert judged(feeds) == {"orders that are off cost nothing"}


def test_an_audit_that_counted_nothing_does_not_pass() -> None:
    """Empty feeds are no proof of anything."""
    assert all(not check.passed for check in audit({name: [] for name in SERVICES}, {}))


def test_the_shop_is_shipped() -> None:
    """The wheel brings the shop along, where an installed demo looks for it."""
    text = Path(__file__).parent.parent.joinpath("pyproject.toml").read_text("utf-8")
    assert '"examples/shop" = "holdfast/_examples/shop"' in text
