"""The SQLite store is a store, and keeps what only it promises: its file, its lock, its threads, its failures."""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from holdfast.core.log.batch import Batch, Committed, Conflict, Cursor, Move, Row
from holdfast.errors import (
    SchemaNewer,
    StoreCorrupt,
    StoreError,
    StoreFailed,
    StoreForeign,
    StoreLocked,
    StoreMismatch,
)
from holdfast.ports.store import Store
from holdfast.stores.sqlite.store import SQLiteStore
from holdfast.testing.conformance.records import append, event, everything
from holdfast.testing.conformance.store import FULL, StoreConformance


class TestSQLiteStore(StoreConformance):
    async def make(self, folder: Path) -> Store:
        return SQLiteStore(folder / "stock.sqlite", "stock")

    async def reopen(self, store: Store) -> Store:
        await store.close()
        assert isinstance(store, SQLiteStore)
        return SQLiteStore(store.path, store.log)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """An open store."""
    store = SQLiteStore(tmp_path / "stock.sqlite", "stock")
    await store.open("one", 1_700_000_000_000_000)
    yield store
    await store.close()


def files(folder: Path) -> dict[str, bytes]:
    """Every file but locks, with its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".lock"}


async def refused(store: SQLiteStore, error: type[StoreError], match: str) -> None:
    """The store does not open, and not a byte changes."""
    before = files(store.path.parent)
    with pytest.raises(error, match=match):
        await store.open("x", 1)
    await store.close()
    after = files(store.path.parent)
    assert {name: data for name, data in after.items() if not name.endswith(("-shm", "-wal"))} == {
        name: data for name, data in before.items() if not name.endswith(("-shm", "-wal"))
    }


async def test_every_commit_is_synced(store: SQLiteStore) -> None:
    """The writer's connection has synchronous=FULL and WAL, whatever the library was built with (G8)."""
    assert store._writer is not None
    found = {name: store._writer.connection.pragma(name) for name in ("synchronous", "journal_mode", "fullfsync")}
    assert found == {"synchronous": 2, "journal_mode": "wal", "fullfsync": 1}
    assert store._writer.connection.pragma("wal_autocheckpoint") == 4000


async def test_a_person_can_read_the_file(store: SQLiteStore) -> None:
    """Kinds, payloads and headers are text; the log is one table that any SQLite shell shows."""
    await store.commit([Batch((FULL,), reads=(("Stock/😀", 0),), rows=(Row("view", "k", b'{"a":1}'),))])
    with sqlite3.connect(store.path) as shell:
        kind, data, headers = shell.execute("SELECT kind, data, headers FROM log").fetchone()
        assert (kind, data.encode()) == ("command", FULL.data) and '"step":"reserve"' in headers
        assert shell.execute("SELECT key, data FROM rows").fetchall() == [("k", '{"a":1}')]
    shell.close()


async def test_a_second_writer_is_refused_with_the_holder_named(store: SQLiteStore) -> None:
    """Another store object, or another process, meets StoreLocked with pid, host and since when; the first goes on."""
    other = SQLiteStore(store.path, "stock")
    with pytest.raises(StoreLocked, match=rf"process {os.getpid()} on \S+ since 2023-11-14T22:13:20"):
        await other.open("two", 2)
    await other.close()
    program = (
        "import asyncio, sys; from holdfast.stores.sqlite.store import SQLiteStore\n"
        "from holdfast.errors import StoreLocked\n"
        "try: asyncio.run(SQLiteStore(sys.argv[1], 'stock').open('x', 1))\n"
        "except StoreLocked as error: print(error)"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(store.path)], capture_output=True, text=True, timeout=60
    )
    assert f"process {os.getpid()} on" in done.stdout, done.stderr
    assert await store.commit([append("A/1", 0)]) == [Committed(1)]
    await store.close()
    await other.open("two", 2)
    await other.close()


async def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A file that is no SQLite file, or another application's, or a folder, is StoreForeign, and left as it is."""
    (tmp_path / "text").write_bytes(b"hello, " * 1000)
    (tmp_path / "short").write_bytes(b"x")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE mine (a)")
    other.close()
    (tmp_path / "folder").mkdir()
    for name, match in (("text", "not a SQLite"), ("short", "not a SQLite"), ("other", "another application")):
        await refused(SQLiteStore(tmp_path / name, "stock"), StoreForeign, match)
    with pytest.raises(StoreForeign, match="folder"):
        await SQLiteStore(tmp_path / "folder", "stock").open("x", 1)
    assert not list(tmp_path.glob("*.lock"))


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """A file of no bytes holds nothing that could be harmed; a folder that is absent is made."""
    (tmp_path / "empty").touch()
    for path in (tmp_path / "empty", tmp_path / "a" / "b" / "new"):
        store = SQLiteStore(path, "stock")
        assert (await store.open("one", 1)).head == 0
        await store.close()


async def test_another_log_and_a_newer_schema_are_refused(store: SQLiteStore) -> None:
    """StoreMismatch names both logs; SchemaNewer names both versions; the file stays as it is."""
    await store.commit([append("A/1", 0)])
    await store.close()
    await refused(SQLiteStore(store.path, "order"), StoreMismatch, "log of 'stock', not of 'order'")
    for version, keep_wal in ((7, True), (8, False)):
        other = apsw.Connection(str(store.path))
        other.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep_wal)
        other.pragma("user_version", version)
        other.close()
        await refused(SQLiteStore(store.path, "stock"), SchemaNewer, f"schema {version}")


async def test_a_damaged_file_is_refused(store: SQLiteStore) -> None:
    """A file cut short, cut in its header, or overwritten with noise is StoreCorrupt, never a wrong answer."""
    await store.commit([append(f"A/{n}", 0, 20) for n in range(100)])
    await store.close()
    whole = store.path.read_bytes()
    noise = random.Random(1).randbytes(len(whole) - 4096)
    for bad in (whole[:-8192], whole[:5000], whole[:60], whole[:4096] + noise):
        store.path.write_bytes(bad)
        await refused(SQLiteStore(store.path, "stock"), StoreCorrupt, "damaged|restore")
    store.path.write_bytes(whole)
    assert (await store.open("two", 2)).head == 2000


async def test_a_full_disk_fails_the_group_whole_and_the_store_goes_on(store: SQLiteStore) -> None:
    """StoreFailed: nothing of the group is there, and when there is room again the same group goes through (G1, G8)."""
    assert store._writer is not None
    connection = store._writer.connection
    await store.commit([append("A/1", 0)])
    pages = connection.pragma("page_count")
    connection.pragma("max_page_count", pages)
    rows = tuple(Row("view", f"k{n}", b"x" * 3000) for n in range(50))
    group = [append("A/1", 1, 50), Batch(moves=(Move("c", 0, Cursor("i", 5)),), rows=rows)]
    for _ in range(3):
        with pytest.raises(StoreFailed, match="full"):
            await store.commit(group)
        assert [record.position for record in await everything(store)] == [1]
        assert await store.cursors() == {} and await store.scan("view") == []
    for big in (append("A/1", 1, 2000), Batch(rows=rows)):
        with pytest.raises(StoreFailed, match="full"):
            await store.commit([big])
    connection.pragma("max_page_count", 1_000_000)
    assert await store.commit(group) == [Committed(2), Committed(52)]
    assert len(await everything(store)) == 51 and len(await store.scan("view")) == 50
    assert connection.pragma("integrity_check") == "ok"


async def test_groups_larger_than_a_statement_are_one_transaction(store: SQLiteStore) -> None:
    """More rows than one statement takes still commit together, and a stale one among them changes nothing."""
    group = [append(f"A/{n}", 0, 3) for n in range(1000)]
    assert await store.commit([*group, append("A/999", 0)]) == [
        *(Committed(3 * n + 1) for n in range(1000)), Conflict("A/999", 0, 3),
    ]  # fmt: skip
    assert len(await everything(store)) == 3000


async def test_versions_that_memory_forgot_are_checked(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache of one stream every read rests on what the file says: too low, too high and right are told apart."""
    monkeypatch.setattr("holdfast.stores.planner.VERSIONS_MAX", 1)
    await store.commit([append(f"A/{n}", 0, n) for n in range(1, 20)])
    reads = [Batch(reads=((f"A/{n}", n + d),)) for n in range(1, 20) for d in (-1, 0, 1)]
    assert [type(outcome) for outcome in await store.commit(reads)] == [Conflict, Committed, Conflict] * 19
    for n in range(1, 19):
        bad = Batch((event(f"A/{n}", n + 2),), ((f"A/{n}", n + 1),))
        assert await store.commit([bad, append(f"A/{n}", n - 1), append(f"A/{n}", n)]) == [
            Conflict(f"A/{n}", n + 1, n), Conflict(f"A/{n}", n - 1, n), Committed(190 + n),
        ]  # fmt: skip


async def test_versions_that_do_not_follow_the_reads_stop_loudly(store: SQLiteStore) -> None:
    """A batch whose record takes a version that is taken is our own bug: StoreFailed, and nothing written."""
    await store.commit([append("A/1", 0, 2)])
    with pytest.raises(StoreFailed, match="do not follow"):
        await store.commit([append("A/2", 0), Batch((event("A/1", 2),), reads=(("A/1", 2),))])
    assert len(await everything(store)) == 2


async def test_a_backup_opens_as_a_store(store: SQLiteStore, tmp_path: Path) -> None:
    """A copy taken under load holds whole batches only, opens under a new incarnation, and goes on by itself."""
    running = None
    for n in range(300):
        await store.commit([append(f"A/{n}", 0, 3)])
        if n == 100:
            running = asyncio.create_task(store.backup(tmp_path / "copy.sqlite"))
    assert running is not None
    await running
    copy = SQLiteStore(tmp_path / "copy.sqlite", "stock")
    opened = await copy.open("restored", 9)
    assert opened.head >= 303 and opened.head % 3 == 0
    assert [one.id for one in opened.incarnations] == ["one", "restored"]
    assert [record.position for record in await everything(copy)] == list(range(1, opened.head + 1))
    assert await copy.commit([append("B/1", 0)]) == [Committed(opened.head + 1)]
    await copy.close()
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.sqlite", "copy.sqlite.lock"]


async def test_a_cancelled_caller_does_not_lose_the_commit(store: SQLiteStore) -> None:
    """A commit whose caller was cancelled still happens whole, and the next one follows on from it (G1)."""
    task = asyncio.create_task(store.commit([append("A/1", 0, 2)]))
    await asyncio.sleep(0)
    task.cancel()
    assert await store.commit([append("A/1", 0), append("A/1", 2)]) == [Conflict("A/1", 0, 2), Committed(3)]


async def test_readers_never_wait_for_the_writer(store: SQLiteStore) -> None:
    """While a write transaction is held open, reads answer at once, with what was committed before it."""
    await store.commit([append("A/1", 0)])
    shell = apsw.Connection(str(store.path))
    shell.execute("BEGIN IMMEDIATE; INSERT INTO rows VALUES ('view', 'k', 'x')")
    async with asyncio.timeout(1):
        assert len(await everything(store)) == 1
        assert await store.scan("view") == []
    shell.execute("ROLLBACK")
    shell.close()


async def test_the_wal_stays_bounded(store: SQLiteStore) -> None:
    """Under a long load the WAL is brought into the file again and again: it stays near its 16 MB."""
    data = b'"' + b"x" * 10_000 + b'"'
    for _ in range(60):
        await store.commit([Batch(tuple(event(data=data) for _ in range(100)))])
    wal = store.path.with_name(store.path.name + "-wal").stat().st_size
    assert wal < 20 * 2**20 < store.path.stat().st_size + wal


async def test_a_busy_loop_does_not_starve_a_commit(store: SQLiteStore) -> None:
    """A loop that never idles and polls every 50 µs gives way in time: a commit takes milliseconds, not seconds."""
    stop = False

    async def spin() -> None:
        while not stop:
            sum(range(2000))
            await asyncio.sleep(0)

    spinning = asyncio.create_task(spin())
    started = time.monotonic()
    for n in range(50):
        await store.commit([append("A/1", n)])
    stop = True
    await spinning
    assert time.monotonic() - started < 5


async def test_no_thread_outlives_the_store(tmp_path: Path) -> None:
    """`close` ends every thread it began; none would keep a process from exiting."""
    store = SQLiteStore(tmp_path / "s.sqlite", "stock")
    await store.open("one", 1)
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("holdfast-")]
    assert len(mine) == 3 and all(thread.daemon for thread in mine)
    await store.close()
    assert not any(thread.is_alive() for thread in mine)
