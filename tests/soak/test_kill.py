"""Twenty SIGKILLs under load: none of thousands of sagas is lost, doubled or half-done.

The four processes and their customers are those of the demo. What is judged are the store files as the last SIGKILL
left them, by SQL that shares nothing with the runtime (support/soak/judge_demo.py); that the judge can fail is shown
on the same files, broken by hand.
"""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.demo.run import Demonstration, DemoReport
from support.soak.judge_demo import SERVICES, judge

SECONDS, KILLS, SEED = 32, 20, 20
SAGAS_MIN = 300


@dataclass
class Ended:
    """A run that is over: its store files and what customers were told."""

    folder: Path
    report: DemoReport
    told: dict[str, str | None]
    killed: list[str]


async def run_and_kill(folder: Path) -> Ended:
    """Run the shop under load and kills; when it has settled, kill all of it too, and keep the files."""
    shown = Demonstration(seconds=SECONDS, kills=KILLS, seed=SEED, example="shop")
    try:
        report = await shown.run()
        shown.supervisor.kill_all()
    finally:
        await shown.close(keep=True)
        await asyncio.to_thread(shutil.copytree, shown.folder, folder, dirs_exist_ok=True)
        shutil.rmtree(shown.folder)
    told = {order.id: order.told for order in shown.load.shoppers.totals.orders.values()}
    return Ended(folder, report, told, shown.status.kills)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One run for all tests here."""
    return asyncio.run(run_and_kill(tmp_path_factory.mktemp("killed")))


def test_twenty_kills_lose_double_and_halve_nothing(ended: Ended) -> None:
    """G1, G3, G4, G8: after 20 SIGKILLs, the coordinator's too, every log is without a gap, every command has one
    outcome, taken once, every order is bought or undone everywhere, and what was acknowledged is there."""
    verdict = judge(ended.folder, ended.told)
    assert verdict.wrong[:10] == []
    assert verdict.counted["order"] >= SAGAS_MIN
    assert min(verdict.counted[what] for what in ("undone", "acknowledged", "whole")) > SAGAS_MIN / 20
    assert min(verdict.counted[what] for what in ("command", "answer", "position", "version")) > SAGAS_MIN
    assert len(ended.killed) == KILLS
    assert set(ended.killed) == set(SERVICES)


def test_the_audit_from_feeds_says_the_same(ended: Ended) -> None:
    """G4: the same run settled, every customer was answered, and the audit from feeds found nothing either."""
    assert ended.report.violations == []
    assert ended.report.in_flight == 0
    assert ended.report.submitted == len(ended.told)


@pytest.mark.parametrize(
    ("service", "sql", "what"),
    [
        ("stock", "DELETE FROM log WHERE position = (SELECT max(position) - 5 FROM log)", "position"),
        ("payment", ("DELETE FROM log WHERE position = (SELECT max(position) FROM log WHERE kind = 'event' AND "
         "destination != '')"), "command"),
        ("order", "DELETE FROM log WHERE position = (SELECT max(position) FROM log WHERE type LIKE '%answered')",
         "answer"),
        ("order", "DELETE FROM log WHERE type = 'order.checked_out.v1' AND position % 100 < 10", "acknowledged"),
        ("order", "DELETE FROM log WHERE type = 'holdfast.rejected'", "undone"),
        ("payment", "UPDATE log SET type = 'payment.refunded.v1' WHERE type = 'payment.charged.v1' AND position < 50",
         "whole"),
        ("stock", ("INSERT INTO log SELECT (SELECT max(position) + 1 FROM log), kind, destination, stream, version + "
         "1000000, type, data, tx, correlation, cause, at, headers FROM log WHERE kind = 'event' AND destination != '' "
         "LIMIT 1"), "command"),
    ],
)  # fmt: skip
def test_the_judge_finds_what_is_broken(ended: Ended, tmp_path: Path, service: str, sql: str, what: str) -> None:
    """The same files with something lost, doubled or changed in them are found to be wrong, in the way they are."""
    for path in ended.folder.glob("*.sqlite*"):
        shutil.copy(path, tmp_path)
    with closing(sqlite3.connect(tmp_path / f"{service}.sqlite")) as file, file:
        assert file.execute(sql).rowcount > 0
    assert any(text.startswith(f"{what}: ") for text in judge(tmp_path, ended.told).wrong)


def test_the_judge_finds_an_acknowledged_order_that_is_not_there(ended: Ended) -> None:
    """An order that a customer was told about and that no log knows is found."""
    wrong = judge(ended.folder, {**ended.told, "o999999": "completed"}).wrong
    assert any(text.startswith("acknowledged: o999999") for text in wrong)
