"""A judge of the shop's store files: plain SQL over the logs, nothing of holdfast.

It opens the four SQLite files, however their processes ended, and says what must not be there: a gap, a command without
an outcome or with two, an answer that nobody took or took twice, an order that is half-done, and an answer that a
customer was given and that no log holds.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVICES = ("order", "stock", "payment", "shipping")
COLUMNS = "position, kind, destination, stream, version, type, data, cause"


@dataclass
class Verdict:
    """What was looked at, and what is wrong."""

    counted: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])

    def look(self, what: str, fine: bool, otherwise: str) -> None:
        """Count one thing, and keep it if it is wrong."""
        self.counted[what] += 1
        if not fine:
            self.wrong.append(f"{what}: {otherwise}")


def judge(folder: Path, told: Mapping[str, str | None]) -> Verdict:
    """Judge the files in a folder. `told`: order -> completed, rejected, or None, as its customer knows."""
    verdict = Verdict()
    logs = {service: list(rows(folder / f"{service}.sqlite")) for service in SERVICES}
    for service, log in logs.items():
        _gaps(verdict, service, log)
    _conversations(verdict, logs)
    _orders(verdict, logs, told)
    return verdict


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The log of one file, in the order of positions."""
    with closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        found = file.execute("PRAGMA integrity_check").fetchone()[0]
        assert found == "ok", f"{path.name}: {found}"
        for row in file.execute(f"SELECT {COLUMNS} FROM log ORDER BY position"):
            yield {**dict(row), "data": json.loads(row["data"])}


def _gaps(verdict: Verdict, service: str, log: list[dict[str, Any]]) -> None:
    """Positions are 1, 2, 3 ... in the log, versions in each stream."""
    versions: Counter[str] = Counter()
    for number, row in enumerate(log, 1):
        verdict.look("position", row["position"] == number, f"{service}@{row['position']} in place {number}")
        if row["version"] is not None:
            versions[row["stream"]] += 1
            fine = row["version"] == versions[row["stream"]]
            verdict.look("version", fine, f"{service}@{row['position']} is {row['stream']} version {row['version']}")


def _conversations(verdict: Verdict, logs: Mapping[str, list[dict[str, Any]]]) -> None:
    """Every command has one outcome where it was sent to, every outcome was taken once where it was asked for."""
    outcomes: Counter[tuple[str, str, str]] = Counter()
    taken: Counter[str] = Counter()
    for service, log in logs.items():
        for row in log:
            if row["kind"] in ("event", "answer") and row["destination"]:
                outcomes[service, row["destination"], row["cause"]] += 1
            elif row["type"] == "holdfast.saga.answered":
                taken[row["cause"]] += 1
    for service, log in logs.items():
        for row in log:
            id = f"{service}@{row['position']}"
            if row["kind"] == "command":
                count = outcomes[row["destination"], service, id]
                verdict.look("command", count == 1, f"{id} {row['type']} has {count} outcomes")
            elif row["kind"] in ("event", "answer") and row["destination"]:
                verdict.look("answer", taken[id] == 1, f"{id} {row['type']} was taken {taken[id]} times")


def _orders(verdict: Verdict, logs: Mapping[str, list[dict[str, Any]]], told: Mapping[str, str | None]) -> None:
    """Every order is bought everywhere or undone everywhere, and that is what its customer was told."""
    sagas = {
        row["stream"]: row["data"]["message"] for row in logs["order"] if row["type"] == "holdfast.saga.begun"
    }  # fmt: skip
    begun = Counter(message["order_id"] for message in sagas.values())
    items = {message["order_id"]: message["items"] for message in sagas.values()}
    ends: dict[str, list[str]] = defaultdict(list)
    happened: dict[str, Counter[str]] = defaultdict(Counter)
    units: dict[str, Counter[str]] = defaultdict(Counter)
    for log in logs.values():
        for row in log:
            name, data = row["type"].split(".")[1], row["data"]
            if row["stream"] in sagas and row["type"] in ("order.checked_out.v1", "holdfast.rejected"):
                ends[sagas[row["stream"]]["order_id"]].append(name)
            elif row["kind"] == "event" and "order_id" in data:
                happened[data["order_id"]][name] += 1
                if name in ("reserved", "released"):
                    units[data["order_id"]][data["sku"]] += data["quantity"] * (1 if name == "reserved" else -1)
    bought = {"placed": 1, "confirmed": 1, "charged": 1, "shipped": 1, "cancelled": 0, "refunded": 0, "released": 0}
    for order in told.keys() | begun.keys():
        known, count = told.get(order), happened[order]
        verdict.look("order", order in told and begun[order] == 1, f"{order} was begun {begun[order]} times")
        if ends[order] == ["checked_out"]:
            wanted = bought | {"reserved": len(items[order])}
            goods = {item["sku"]: item["quantity"] for item in items[order]}
        else:
            verdict.look("undone", ends[order] == ["rejected"], f"{order} ends with {ends[order]}")
            wanted = {"placed": 1, "cancelled": 1, "confirmed": 0, "shipped": 0, "charged": count["refunded"]}
            goods = {}
        fine = all(count[name] == number for name, number in wanted.items())
        verdict.look("whole", fine and +units[order] == goods and min(units[order].values(), default=0) >= 0,
                     f"{order} ended with {ends[order]}: {dict(count)}, units {dict(units[order])}")  # fmt: skip
        if known is not None:
            end = "checked_out" if known == "completed" else "rejected"
            verdict.look("acknowledged", ends[order] == [end], f"{order}: told {known}, the log has {ends[order]}")
