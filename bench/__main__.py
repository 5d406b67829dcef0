"""`python -m bench`: how fast holdfast is beside what the engine alone can do, as ratios of one run.

Method: every measurement is a closed loop (each caller waits for its answer) for `--seconds`, of which the first fifth
is not counted, on a fresh folder; the measurements are interleaved over `--rounds` rounds and the medians are shown.
Durability is equal: SQLite in WAL mode with synchronous=FULL on both sides. Ratios count; absolute figures are those
of this machine and its disk.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import uvloop

from bench import audit, engines, exploring, handlers, holdfast_side, raw, repair, stages
from bench.load import Measured, median
from holdfast.host.server import COLLECT, SWITCH_SECONDS
from holdfast.testing.servers import ENGINES


@dataclass
class Row:
    """One line of the table. `beside`: the name of the line that its ratio is to."""

    name: str
    measure: Callable[[Path, float], Measured]
    beside: str = ""


def looped(function: Any, *args: Any, **named: Any) -> Callable[[Path, float], Measured]:
    """A measurement that needs an event loop: each on one of its own."""

    def run(folder: Path, seconds: float) -> Measured:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(function(folder, *args, seconds, **named))

    return run


def rows() -> list[Row]:
    """Every measurement, in the order of the table."""
    found = [Row("raw: one commit per call", raw.per_call)]
    for callers in (1, 16, 64, 256):
        found.append(Row(f"raw: group commit, {callers} callers", partial(_grouped, callers)))
        measure = looped(holdfast_side.commands, callers)
        found.append(Row(f"command, {callers} callers", measure, f"raw: group commit, {callers} callers"))
    found += [
        Row(f"saga of 3, one process, {callers} callers", looped(holdfast_side.sagas, callers))
        for callers in (1, 16, 64)
    ]
    found.append(Row("saga of 3, one process, 64 callers, failing", looped(holdfast_side.sagas, 64, fails=True)))
    for callers in (1, 16, 64):
        measure = looped(holdfast_side.sagas_over_http, callers)
        found.append(Row(f"saga of 3, over HTTP, {callers} callers", measure))
    failing = looped(holdfast_side.sagas_over_http, 64, fails=True)
    found.append(Row("saga of 3, over HTTP, 64 callers, failing", failing))
    found += [
        Row(f"command over HTTP, {callers} callers", looped(holdfast_side.commands_over_http, callers))
        for callers in (1, 64)
    ]
    for engine in ENGINES:
        for callers in (1, 16, 64, 256):
            alone = f"{engine}: one transaction per command, {callers} callers"
            found.append(Row(alone, looped(engines.per_command, engine, callers)))
            found.append(Row(f"{engine}: command, {callers} callers", looped(engines.commands, engine, callers), alone))
        blind = looped(engines.per_command, engine, 64, blind=True)
        found.append(Row(f"{engine}: one blind insert per command, 64 callers", blind))
    for engine in ("sqlite", *ENGINES):
        for callers in (1, 64):
            alone = f"{engine}: row and outbox by hand, {1 if engine == 'sqlite' else callers} callers"
            if all(row.name != alone for row in found):
                found.append(Row(alone, looped(handlers.by_hand, engine, callers)))
            found.append(Row(f"{engine}: handler, {callers} callers", looped(handlers.handled, engine, callers), alone))
    for callers in (1, 16, 64):
        for kind, hot in (("saga", False), ("staged", False), ("saga", True), ("staged", True), ("escrow", True)):
            name = f"two services, {kind}, {'one hot key' if hot else 'keys apart'}, {callers} callers"
            beside = name.replace(f" {kind},", " saga,") if kind != "saga" else ""
            found.append(Row(name, looped(stages.sales, kind, callers, hot=hot), beside))
    free = "sagas of 2, 64 callers, nothing parked"
    found.append(Row(free, looped(repair.others, 64, parked=False)))
    parked = looped(repair.others, 64, parked=True)
    found.append(Row("sagas of 2, 64 callers, 500 wait behind a parked message", parked, free))
    found.append(Row("why: over HTTP, a log of a million records", looped(repair.why)))
    bought = audit.Alternating()
    alone = "audit: the shop over HTTP, 64 callers, nobody audits"
    found.append(Row(alone, looped(bought.measure, audited=False)))
    found.append(Row("audit: the shop over HTTP, 64 callers, one follows", looped(bought.measure, audited=True), alone))
    found.append(Row("audit: catching up over HTTP, records", looped(audit.catching_up)))
    found.append(Row("audit: no I/O, records", looped(audit.judged)))
    for workers in (1, 2):
        found.append(Row(f"explore: schedules, {workers} workers", partial(exploring.schedules, workers)))
    found.append(Row("feed: drained into a view", looped(holdfast_side.feed_drain)))
    found.append(Row("feed: command to row in another's view", looped(holdfast_side.feed_lag)))
    return found


def _grouped(callers: int, folder: Path, seconds: float) -> Measured:
    return raw.grouped(folder, callers, seconds)


def run(chosen: list[Row], seconds: float, rounds: int, say: Callable[[str], None]) -> dict[str, Measured]:
    """Each measurement `rounds` times, interleaved; medians by name."""
    found: dict[str, list[Measured]] = {row.name: [] for row in chosen}
    for number in range(rounds):
        for row in chosen:
            folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
            try:
                one = row.measure(folder, seconds)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            found[row.name].append(one)
            say(f"round {number + 1}/{rounds}  {row.name}: {one.per_s:,.0f}/s")
    return {name: median(several) for name, several in found.items()}


def call_us() -> float:
    """What a call of a Python function with one argument costs here: the median of 21 times 100,000. What is bound by
    the processor can be compared between machines by it."""
    taken: list[float] = []
    for _ in range(21):
        begin = time.perf_counter()
        for number in range(100_000):
            _called(number)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 10


def _called(number: int) -> int:
    return number + 1


def sync_ms() -> float:
    """What a durable write of 4 kB costs here: the median of 200."""
    taken: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1000


def main() -> int:
    """Measure, and print the table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="measurements whose name holds this text")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.seconds <= 0 or asked.rounds < 1:
        parser.error("--seconds and --rounds must be above zero")
    chosen = [row for row in rows() if asked.only in row.name]
    if not chosen:
        parser.error(f"no measurement's name holds {asked.only!r}")
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(*COLLECT)
    logging.getLogger("holdfast").setLevel(logging.ERROR)
    result = run(chosen, asked.seconds, asked.rounds, lambda text: print(text, file=sys.stderr))
    where = {
        "cpus": os.cpu_count(), "python": platform.python_version(), "sqlite": apsw.sqlite_lib_version(),
        "sync_ms": round(sync_ms(), 3), "call_us": round(call_us(), 3),
        "load": [round(one, 2) for one in os.getloadavg()],
        "seconds": asked.seconds, "rounds": asked.rounds,
    }  # fmt: skip
    ratios = {row.name: _ratio(row, result) for row in chosen}
    if asked.json:
        measurements = {name: {**asdict(one), "ratio": ratios[name]} for name, one in result.items()}
        print(json.dumps({"machine": where, "measurements": measurements}, indent=2))
    else:
        show(result, ratios, where)
    return 0


def _ratio(row: Row, result: dict[str, Measured]) -> float | None:
    beside = result.get(row.beside)
    return round(result[row.name].per_s / beside.per_s, 2) if beside and beside.per_s else None


def show(result: dict[str, Measured], ratios: dict[str, float | None], where: dict[str, Any]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "per second", "p50 ms", "p99 ms", "of raw")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in result.items():
        ratio = ratios[name]
        table.add_row(
            name, f"{one.per_s:,.0f}", f"{one.p50_ms:.2f}" if one.p50_ms else "", f"{one.p99_ms:.2f}" if one.p99_ms
            else "", f"{ratio:.2f}x" if ratio else "",
        )  # fmt: skip
    console = Console(width=max(100, Console().width))
    console.print(table)
    console.print("  ".join(f"{name} {value}" for name, value in where.items()))


if __name__ == "__main__":
    sys.exit(main())
