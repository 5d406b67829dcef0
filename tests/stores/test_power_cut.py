"""The power goes at any moment: what was acknowledged was synced, so it is there; what is there is whole (G1, G8).

A kill proves nothing about fsync, for the kernel still has what was written. Here the disk forgets.
"""

import asyncio
import random
from pathlib import Path

import pytest

from holdfast.core.log.batch import Committed
from holdfast.errors import StoreFailed
from holdfast.stores.sqlite import file as sqlite_file
from holdfast.stores.sqlite.store import SQLiteStore
from support.numbered_batches import batch, judge
from support.power_cut import Disk

CUTS = 200
RUNS = 10


async def run(folder: Path, seed: int, cuts: int) -> tuple[int, list[str], Disk]:
    """Commit while the power is cut `cuts` times at seeded moments: (cuts judged, what was lost or torn, the disk)."""
    chance = random.Random(seed)
    taken: list[tuple[Path, int]] = []
    acknowledged = 0
    wait = 0

    def before() -> None:
        nonlocal wait
        wait -= 1
        if wait < 0 and len(taken) < cuts and acknowledged >= 0:
            wait = chance.randrange(25)
            taken.append((folder / f"{seed}-{len(taken)}", acknowledged))
            disk.cut(taken[-1][0], chance)

    acknowledged = -1
    path = folder / f"live{seed}" / "s.sqlite"
    first = SQLiteStore(path, "stock")
    await first.open("one", 1)
    await first.close()
    disk = Disk(f"power{seed}", before)
    store = SQLiteStore(path, "stock", vfs=f"power{seed}")
    await store.open("two", 2)
    acknowledged = 0
    while len(taken) < cuts:
        count = chance.choice([1, 1, 2, 5, 20])
        outcomes = await store.commit([batch(acknowledged + n + 1) for n in range(count)])
        assert all(isinstance(outcome, Committed) for outcome in outcomes)
        acknowledged += count
    await store.close()
    disk.unregister()
    violations: list[str] = []
    for where, promised in taken:
        try:
            found = await asyncio.to_thread(judge, where / "s.sqlite")
            assert found >= promised, f"{promised} batches were acknowledged, {found} are there"
        except Exception as error:  # noqa: BLE001  a file that does not open is a violation too
            violations.append(f"{where.name}: {type(error).__name__}: {error}")
    return len(taken), violations, disk


@pytest.fixture(autouse=True)
def small_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring the file up to date every 60 pages, so that cuts fall into that too."""
    monkeypatch.setattr(sqlite_file, "PRAGMAS", sqlite_file.PRAGMAS.replace("= 4000;", "= 60;"))


async def test_two_hundred_power_cuts_lose_nothing_and_tear_nothing(tmp_path: Path) -> None:
    """200 seeded cuts between any two operations on the disk: every acknowledged batch is there, every batch whole."""
    for seed in range(RUNS):
        judged, violations, disk = await run(tmp_path, seed, CUTS // RUNS)
        assert (judged, violations) == (CUTS // RUNS, [])
        assert disk.counts["sync"] > 10 and disk.counts["write"] > 100
        # The file itself was written and synced, not the WAL alone: cuts could fall into that.
        assert len(disk.images["s.sqlite"].durable) > 10 * 4096


async def test_without_syncing_the_same_cuts_find_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With synchronous=OFF the same harness finds lost and damaged stores: what it says with FULL means something."""
    monkeypatch.setattr(sqlite_file, "PRAGMAS", sqlite_file.PRAGMAS.replace("synchronous = FULL", "synchronous = OFF"))
    judged, violations, disk = await run(tmp_path, 1, 40)
    assert judged == 40 and disk.counts["sync"] == 0
    assert len(violations) > 20
    assert any("were acknowledged" in violation for violation in violations)


async def test_synced_only_now_and_then_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With synchronous=NORMAL a WAL store stays whole but loses what it acknowledged last: seen as just that."""
    normal = sqlite_file.PRAGMAS.replace("synchronous = FULL", "synchronous = NORMAL")
    monkeypatch.setattr(sqlite_file, "PRAGMAS", normal)
    _, violations, disk = await run(tmp_path, 2, 40)
    assert disk.counts["sync"] > 0
    assert violations and all("were acknowledged" in violation for violation in violations)


async def test_a_store_goes_on_after_a_cut(tmp_path: Path) -> None:
    """What is left after a cut opens as a store, under a new incarnation, and takes the next batch."""
    _, violations, _ = await run(tmp_path, 3, 5)
    assert violations == []
    for number in range(5):
        path = tmp_path / f"3-{number}" / "s.sqlite"
        store = SQLiteStore(path, "stock")
        opened = await store.open("after", 3)
        assert [one.id for one in opened.incarnations] == ["one", "two", "after"]
        assert opened.head % 3 == 0
        assert await store.commit([batch(opened.head // 3 + 1)]) == [Committed(opened.head + 1)]
        await store.close()


@pytest.mark.parametrize("failing", [1, 2, 3, 7])
async def test_a_sync_that_fails_leaves_nothing_behind(tmp_path: Path, failing: int) -> None:
    """When fsync fails, StoreFailed means that nothing of the group is there: not for readers, and not after a crash
    either, though its pages stood in the WAL. Once the drive answers, the same group goes through (G1, G8)."""
    path = tmp_path / "live" / "s.sqlite"
    first = SQLiteStore(path, "stock")
    await first.open("one", 1)
    await first.close()
    disk = Disk(f"failing{failing}", lambda: None)
    store = SQLiteStore(path, "stock", vfs=f"failing{failing}")
    await store.open("two", 2)
    await store.commit([batch(1), batch(2)])
    disk.failing = failing

    while disk.failing:
        with pytest.raises(StoreFailed, match="IOError"):
            await store.commit([batch(3), batch(4)])

        assert (await store.read(0, 100)).upto == 6 and len(await store.scan("request")) == 2
    if failing == 1:
        # One sync failed and the next one held: the failed pages were written over before anybody was told.
        disk.kill(tmp_path / "dead")
        assert await asyncio.to_thread(judge, tmp_path / "dead" / "s.sqlite") == 2
    assert await store.commit([batch(3), batch(4)]) == [Committed(7), Committed(10)]
    await store.close()
    disk.unregister()
    assert await asyncio.to_thread(judge, path) == 4
