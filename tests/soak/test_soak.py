"""Services as processes under every fault at once: nothing of what they did is lost, doubled or half-done.

The shop's sagas and staged trades, four processes each, on SQLite with `synchronous=FULL`, over HTTP. Meanwhile
processes are killed, alone and all together, the coordinator right before and right after a decision, others are
stopped for a while, disks are full or slow (`fault_schedule`). Then all is killed, and SQL judges the files that are
left. Here a short form of some seconds; `make soak` runs the long one, and prints what came of it. That the judge can
fail is shown on the same files, spoiled by hand (`corruptions`).
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.soak import judge_shop, judge_trades
from support.soak.corruptions import OF_SHOP, OF_TRADES
from support.soak.fault_schedule import KINDS, ROUND
from support.soak.judge import Verdict
from support.soak.run import Ended, Told, Work, quick_restarts, soak
from support.soak.workloads import shopping, trades

SEED = 7


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    count: int
    breadth: int
    """Products, or accounts."""
    customers: int
    every: int
    """Answers from one fault to the next."""
    kinds: tuple[str, ...] = ROUND


@dataclass(frozen=True)
class Kind:
    """One of the two systems, and how it is judged."""

    services: tuple[str, ...]
    work: Callable[[int], Work]
    judge: Callable[[Path, Mapping[str, Any], Mapping[str, Any]], Verdict]
    short: Size
    long: Size
    least: dict[str, float]
    """Figures that a run must reach, as parts of its count."""
    spoils: dict[str, tuple[str, str]]
    """Claim -> what breaks it, as (service, SQL)."""


SYSTEMS = {
    "shop": Kind(
        judge_shop.SERVICES,
        shopping,
        judge_shop.judge_shop,
        Size(800, 60, 128, 70, KINDS),
        Size(100_000, 300, 448, 1000),
        {"sagas": 1.0, "undone": 0.1},
        OF_SHOP,
    ),
    "trades": Kind(
        judge_trades.SERVICES,
        trades,
        judge_trades.judge_trades,
        Size(300, 200, 64, 30, KINDS),
        Size(24_000, 1500, 224, 300),
        {"staged": 20 / 24, "committed": 0.5, "cancelled": 0.03, "gave way": 0.02, "plain": 0.05},
        OF_TRADES,
    ),
}
SHORT = [pytest.param("trades"), pytest.param("shop", marks=pytest.mark.soak)]
"""`make test` has the trades alone: tests/soak/test_kill.py is its run of the shop."""
SPOILED = [
    pytest.param(
        name, claim, marks=() if name == "trades" and claim in ("command", "left", "whole") else pytest.mark.soak
    )
    for name, kind in SYSTEMS.items()
    for claim in kind.spoils
]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ended]:
    """The short runs, each made when it is first wanted."""
    found: dict[str, Ended] = {}

    def run(name: str) -> Ended:
        if name not in found:
            found[name] = run_soak(SYSTEMS[name], SYSTEMS[name].short, tmp_path_factory.mktemp(name))
        return found[name]

    return run


def run_soak(kind: Kind, size: Size, folder: Path) -> Ended:
    """One soak."""
    with pytest.MonkeyPatch.context() as patch:
        quick_restarts(patch)
        running = soak(
            kind.work(size.breadth), folder, count=size.count, customers=size.customers, every=size.every,
            kinds=size.kinds, seed=SEED,
        )  # fmt: skip
        return asyncio.run(running)


def check(kind: Kind, size: Size, ended: Ended) -> str:
    """Judge a soak that is over; the line that says what came of it."""
    verdict = kind.judge(ended.folder, ended.asked, ended.told)
    wrong = sum(verdict.violated.values()) + len(ended.wrong)
    figures = ", ".join(f"{number:,} {name}" for name, number in verdict.figures.items())
    faults = ", ".join(f"{ended.met[name]} {name}" for name in KINDS)
    line = (
        f"{figures}; faults met: {faults}; {ended.went_on} went on with space again; {ended.tries:,} requests for "
        f"{len(ended.told):,} answers; {sum(verdict.counted.values()):,} things judged; {ended.seconds:.0f} s; "
        f"{wrong} violations"
    )
    assert (verdict.said, ended.wrong) == ([], []), line
    assert ended.told.keys() == ended.asked.keys()
    assert min(verdict.counted.values()) > 0, "a claim was held against nothing"
    for figure, part in kind.least.items():
        assert verdict.figures[figure] >= part * size.count, f"{figure}: {line}"
    assert set(KINDS) <= set(+ended.met), f"not every fault has met somebody: {line}"
    assert ended.went_on > 0, line
    return line


@pytest.mark.parametrize("name", SHORT)
def test_every_fault_at_once_for_some_seconds(name: str, short: Callable[[str], Ended]) -> None:
    """G1, G3, G4, G6, G8: under kills, pauses, full and slow disks every command has one outcome, taken once, every
    saga is done or undone everywhere, every staged one in all services or none, and what was told is there."""
    check(SYSTEMS[name], SYSTEMS[name].short, short(name))


@pytest.mark.parametrize(("name", "claim"), SPOILED)
def test_the_judge_finds_each_thing_that_is_spoiled(
    name: str, claim: str, short: Callable[[str], Ended], tmp_path: Path
) -> None:
    """One thing lost, doubled or changed alone is found by the claim that it breaks."""
    kind, ended = SYSTEMS[name], copied(short(name), tmp_path)
    spoil(tmp_path, *kind.spoils[claim])
    assert claim in kind.judge(tmp_path, ended.asked, ended.told).violated


@pytest.mark.parametrize("name", SHORT)
def test_every_claim_has_been_seen_to_fail(name: str, short: Callable[[str], Ended]) -> None:
    """No claim is without a change that breaks it, but that a file is whole, which SQLite says itself."""
    ended, kind = short(name), SYSTEMS[name]
    held = kind.judge(ended.folder, ended.asked, ended.told).counted.keys()
    assert held - {"file"} == kind.spoils.keys()


def copied(ended: Ended, folder: Path) -> Ended:
    """The files of a soak, for whoever will change them."""
    for path in ended.folder.glob("*.sqlite*"):
        shutil.copy(path, folder)
    return ended


def spoil(folder: Path, service: str, sql: str) -> None:
    """Change a file by hand."""
    with closing(sqlite3.connect(folder / f"{service}.sqlite")) as file, file:
        assert file.execute(sql).rowcount > 0


@pytest.mark.parametrize("name", SHORT)
def test_the_judge_finds_an_answer_that_is_not_there(name: str, short: Callable[[str], Ended]) -> None:
    """An answer that a customer was given and that no log holds is found."""
    ended, first = short(name), SYSTEMS[name].services[0]
    key = next(key for key, ask in ended.asked.items() if ask.service == first)
    asked = ended.asked | {"missing": ended.asked[key]}
    told = ended.told | {"missing": Told(first, True, "", "nowhere", 1)}
    assert {"asked", "acknowledged", "begun"} <= SYSTEMS[name].judge(ended.folder, asked, told).violated.keys()


@pytest.mark.soak
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_fault_for_minutes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same with 100,000 sagas, and with 20,000 staged transactions."""
    kind = SYSTEMS[name]
    line = check(kind, kind.long, run_soak(kind, kind.long, tmp_path))
    with capsys.disabled():
        print(f"\nsoak of the {name}: {line}")
    shutil.rmtree(tmp_path)  # a gigabyte or two
