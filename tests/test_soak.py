"""Services as processes under every fault at once: nothing of what they did is lost, doubled or half-done.

The shop's sagas and staged trades, four processes each, on SQLite with `synchronous=FULL`, over HTTP. Meanwhile
processes are killed, alone and all together, the coordinator right before and right after a decision, others are
stopped for a while, disks are full or slow (`faults.py`). Then all is killed, and SQL judges the files that are left.
Here a short form of some seconds; `make soak` runs the long one, and prints what came of it. That the judge can fail is
shown on the same files, spoiled by hand.
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

from faults import KINDS, ROUND
from judge_shop import judge_shop
from judge_soak import Verdict
from judge_trades import judge_trades
from soak_works import shopping, trades
from soaking import Ended, Work, quick_restarts, soak

SEED = 7


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    count: int
    customers: int
    every: int
    """Answers from one fault to the next."""
    kinds: tuple[str, ...] = ROUND


@dataclass(frozen=True)
class Kind:
    """One of the two systems, and how it is judged. `spoils`: claim -> what breaks it, as (service, SQL)."""

    work: Callable[[], Work]
    judge: Callable[[Path, Mapping[str, Any], Mapping[str, Any]], Verdict]
    short: Size
    long: Size
    least: dict[str, float]
    """Figures that a run must reach, as parts of its count."""
    spoils: dict[str, tuple[str, str]]


LAST = "(SELECT max(position) FROM log"
SPOILS = {
    "position": (1, f"DELETE FROM log WHERE position = {LAST}) - 7"),
    "version": (1, f"UPDATE log SET version = version + 1 WHERE position = {LAST} WHERE version > 1)"),
    "command": (1, f"DELETE FROM log WHERE position = {LAST} WHERE destination <> '')"),
    "answer": (0, f"DELETE FROM log WHERE position = {LAST} WHERE type LIKE '%answered')"),
    "received": (0, "UPDATE cursors SET position = position - 900 WHERE name LIKE 'exchange:%'"),
    "trail": (1, f"UPDATE log SET tx = 'another' WHERE position = {LAST})"),
    "left": (1, "INSERT INTO rows VALUES ('stage', 'Account/a1#000000000001', '{}')"),
    "stuck": (0, "UPDATE log SET type = 'holdfast.saga.stuck' WHERE position = (SELECT min(position) FROM log WHERE"
                 " kind = 'saga')"),
    "asked": (0, "DELETE FROM rows WHERE kind = 'request' AND key LIKE '%9'"),
    "outcome": (0, "UPDATE log SET headers = '{}' WHERE position = (SELECT min(position) FROM log WHERE headers LIKE"
                   " '%outcome%')"),
    "acknowledged": (0, f"UPDATE log SET type = 'holdfast.rejected' WHERE position = {LAST} WHERE kind = 'event' AND"
                        " headers LIKE '%outcome%')"),
    "once": (1, "INSERT INTO log SELECT position + 100000000, kind, destination, stream, version + 100000000, type,"
                " data, tx, correlation, cause, at, headers FROM log WHERE position = 3"),
}  # fmt: skip
"""Of any system: claim -> (number of the service, what is done to its file)."""

SHOP = Kind(
    shopping, judge_shop, Size(800, 128, 70, KINDS), Size(100_000, 448, 700), {"sagas": 1.0, "undone": 0.1},
    {
        "begun": ("order", "DELETE FROM log WHERE type = 'holdfast.saga.begun' AND position % 50 = 0"),
        "whole": ("payment", "UPDATE log SET type = 'payment.refunded.v1' WHERE position = 5"),
        "goods": ("stock", "DELETE FROM log WHERE position = (SELECT min(position) FROM log WHERE type ="
                           " 'stock.released.v1')"),
        "money": ("payment", "UPDATE log SET data = json_set(data, '$.amount_cents', 1) WHERE position ="
                             " (SELECT min(position) FROM log WHERE type = 'payment.charged.v1')"),
        "shelf": ("stock", "UPDATE log SET data = json_set(data, '$.quantity', 7) WHERE position = (SELECT"
                           " min(position) FROM log WHERE data ->> 'sku' = 'rare')"),
        "view": ("order", "DELETE FROM rows WHERE kind = 'view' AND key LIKE '%7'"),
    },
)  # fmt: skip
TRADES = Kind(
    trades, judge_trades, Size(400, 96, 35, KINDS), Size(24_000, 224, 250),
    {"staged": 20 / 24, "committed": 0.5, "cancelled": 0.03, "gave way": 0.02, "plain": 0.05},
    {
        "begun": ("desk", "DELETE FROM log WHERE type = 'holdfast.saga.begun' AND position % 50 = 0"),
        "ended": ("desk", "UPDATE log SET type = 'desk.other.v1' WHERE type = 'desk.traded.v1' AND position % 50 = 0"),
        "whole": ("shop", "DELETE FROM log WHERE position = (SELECT min(position) FROM log WHERE kind = 'event')"),
        "nothing": ("desk", "UPDATE log SET type = 'holdfast.rejected' WHERE type = 'desk.traded.v1' AND position % 50"
                            " = 1"),
        "decision": ("desk", "UPDATE log SET type = 'holdfast.cancel' WHERE position = (SELECT min(position) FROM log"
                             " WHERE type = 'holdfast.confirm')"),
        "carried": ("bank", "UPDATE log SET data = json_set(data, '$.commit', json('false')) WHERE position = (SELECT"
                            " max(position) FROM log WHERE type = 'holdfast.done' AND data ->> 'commit')"),
        "invisible": ("depot", "UPDATE log SET position = -position, version = version + 100000 WHERE position ="
                               " (SELECT max(position) FROM log WHERE kind = 'event')"),
        "settled": ("desk", "DELETE FROM log WHERE type = 'holdfast.saga.settled' AND position % 50 = 2"),
        "balance": ("bank", "UPDATE log SET data = json_set(data, '$.amount', -100000) WHERE position = (SELECT"
                            " min(position) FROM log WHERE kind = 'event')"),
        "plain": ("depot", "UPDATE log SET data = json_set(data, '$.deal', ''), tx = 'nobody' WHERE position = (SELECT"
                           " min(position) FROM log WHERE kind = 'event' AND data ->> 'deal' <> '')"),
    },
)  # fmt: skip
SYSTEMS = {"shop": SHOP, "trades": TRADES}


def every_spoil(kind: Kind) -> dict[str, tuple[str, str]]:
    """Claim -> (service, SQL) of all that the judge of a system must find."""
    services = kind.work().services
    return {claim: (services[number], sql) for claim, (number, sql) in SPOILS.items()} | kind.spoils


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
        return asyncio.run(
            soak(
                kind.work(), folder, count=size.count, customers=size.customers, every=size.every, kinds=size.kinds,
                seed=SEED,
            )
        )


def check(kind: Kind, size: Size, ended: Ended) -> str:
    """Judge a soak that is over; the line that says what came of it."""
    verdict = kind.judge(ended.folder, ended.asked, ended.told)
    wrong = sum(verdict.violated.values()) + len(ended.wrong)
    figures = ", ".join(f"{number:,} {name}" for name, number in verdict.figures.items())
    faults = ", ".join(f"{ended.met[name]} {name}" for name in KINDS)
    line = (
        f"{figures}; faults met: {faults}; went on with space again {ended.went_on}; {ended.tries:,} requests for "
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


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_fault_at_once_for_some_seconds(name: str, short: Callable[[str], Ended]) -> None:
    """G1, G3, G4, G6, G8: under kills, pauses, full and slow disks every command has one outcome, taken once, every
    saga is done or undone everywhere, every staged one in all services or none, and what was told is there."""
    check(SYSTEMS[name], SYSTEMS[name].short, short(name))


@pytest.mark.parametrize(
    ("name", "claim"), [(name, claim) for name, kind in SYSTEMS.items() for claim in every_spoil(kind)]
)
def test_the_judge_finds_what_is_spoiled(
    name: str, claim: str, short: Callable[[str], Ended], tmp_path: Path
) -> None:
    """The same files with something lost, doubled or changed in them are found to be wrong, in the way they are."""
    kind, ended = SYSTEMS[name], short(name)
    service, sql = every_spoil(kind)[claim]
    for path in ended.folder.glob("*.sqlite*"):
        shutil.copy(path, tmp_path)
    spoil(tmp_path, service, sql)
    assert claim in kind.judge(tmp_path, ended.asked, ended.told).violated


def spoil(folder: Path, service: str, sql: str) -> None:
    """Change a file by hand."""
    with closing(sqlite3.connect(folder / f"{service}.sqlite")) as file, file:
        assert file.execute(sql).rowcount > 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_judge_finds_an_answer_that_is_not_there(name: str, short: Callable[[str], Ended]) -> None:
    """An answer that a customer was given and that no log holds is found."""
    ended = short(name)
    key = next(key for key, ask in ended.asked.items() if ask.service == SYSTEMS[name].work().services[0])
    missing = ended.asked | {"missing": ended.asked[key]}
    told = ended.told | {"missing": ended.told[key].__class__(ended.asked[key].service, True, "", "nowhere", 1)}
    assert {"asked", "acknowledged", "begun"} <= SYSTEMS[name].judge(ended.folder, missing, told).violated.keys()


@pytest.mark.soak
@pytest.mark.parametrize("name", SYSTEMS)
def test_soak_every_fault_for_minutes(
    name: str, tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with 100,000 sagas, and with 20,000 staged transactions; then their files, all spoiled at once, are
    found to be wrong in every way that they are."""
    kind = SYSTEMS[name]
    ended = run_soak(kind, kind.long, tmp_path)
    line = check(kind, kind.long, ended)
    with capsys.disabled():
        print(f"\nsoak of the {name}: {line}")
    for service, sql in every_spoil(kind).values():
        spoil(tmp_path, service, sql)
    assert kind.judge(tmp_path, ended.asked, ended.told).violated.keys() >= every_spoil(kind).keys()
    shutil.rmtree(tmp_path)  # a gigabyte or two
