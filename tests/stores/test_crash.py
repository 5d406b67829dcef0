"""A process killed inside commit: what was acknowledged is there, and what is there is whole (G1, G8)."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from holdfast.stores.sqlite.store import SQLiteStore
from support.numbered_batches import batch, judge

TESTS = Path(__file__).parents[1]


def test_two_hundred_kills_lose_nothing_and_leave_nothing_partial(tmp_path: Path) -> None:
    """200 SIGKILLs at random moments of commit: every acknowledged batch is there, every batch there is whole,
    positions are gap-free, and the next process goes on from it, past the lock the dead one held."""
    command = [sys.executable, "-m", "support.crash_in_commit", str(tmp_path), "200", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 200 and found["batches"] > 2000
    # Some died between the commit and its acknowledgement: the kills did hit commits.
    assert found["unacknowledged"] > 0


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM log WHERE position = 29",
        "DELETE FROM log WHERE position > 27",
        "UPDATE cursors SET position = 9",
        "DELETE FROM rows WHERE key = 'k3'",
        "DELETE FROM rows WHERE key = 'r5'",
        "UPDATE log SET data = replace(data, 'x', 'y') WHERE position = 5",
    ],
)
async def test_the_judge_can_fail(tmp_path: Path, harm: str) -> None:
    """A lost record, a lost batch, a cursor, row or payload that does not fit: each is found."""
    path = tmp_path / "s.sqlite"
    store = SQLiteStore(path, "stock")
    await store.open("one", 1)
    await store.commit([batch(n) for n in range(1, 11)])
    await store.close()
    assert await asyncio.to_thread(judge, path) == 10
    connection = apsw.Connection(str(path))
    connection.execute(harm)
    connection.close()
    with pytest.raises(AssertionError):
        judge(path)
