"""What the engine alone can do: the same row into the same tables with the same driver, with nothing of ours around it.

The file is made by holdfast's own store, so that columns, indexes and pragmas are equal (WAL, synchronous=FULL).
"""

import asyncio
import queue
import threading
import time
import uuid
from pathlib import Path

import apsw

from bench.load import Measured, measured
from holdfast.stores.sqlite.store import SQLiteStore

INSERT = "INSERT INTO log VALUES (?, 'event', '', ?, 1, 'first.first_done.v1', ?, ?, '', ?, ?, '{}')"
WARM_SHARE = 0.2


def opened(folder: Path, name: str) -> apsw.Connection:
    """A fresh log file, open for writing as holdfast opens it."""

    async def make() -> None:
        store = SQLiteStore(folder / f"{name}.db", name)
        await store.open(uuid.uuid4().hex, 1)
        await store.close()

    asyncio.run(make())
    connection = apsw.Connection(str(folder / f"{name}.db"))
    connection.execute("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -8000")
    found = (connection.pragma("journal_mode"), connection.pragma("synchronous"))
    if found != ("wal", 2):
        raise RuntimeError(f"not of equal durability: {found}")
    return connection


def row(position: int) -> tuple[object, ...]:
    """A row as one command makes it."""
    tx = uuid.uuid4().hex[:26]
    return (position, f"FirstPlace/{position}", b'{"id":"%d"}' % position, tx, tx, time.time_ns() // 1000)


def per_call(folder: Path, seconds: float) -> Measured:
    """One commit for each call, one caller: what a transaction per command costs."""
    connection = opened(folder, "percall")
    begin = time.perf_counter()
    counts_from, end = begin + seconds * WARM_SHARE, begin + seconds
    waited: list[float] = []
    position = 0
    while (asked := time.perf_counter()) < end:
        position += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(INSERT, row(position))
        connection.execute("COMMIT")
        answered = time.perf_counter()
        if counts_from <= answered < end:
            waited.append(answered - asked)
    connection.close()
    return measured(waited, end - counts_from)


def grouped(folder: Path, callers: int, seconds: float) -> Measured:
    """Group commit by a thread: it commits all that is queued, callers get their answers and queue again."""
    connection = opened(folder, f"grouped{callers}")
    waiting: queue.SimpleQueue[float] = queue.SimpleQueue()
    for _ in range(callers):
        waiting.put(time.perf_counter())
    begin = time.perf_counter()
    counts_from, end = begin + seconds * WARM_SHARE, begin + seconds
    waited: list[float] = []

    def run() -> None:
        position = 0
        while time.perf_counter() < end:
            group = [waiting.get() for _ in range(max(1, waiting.qsize()))]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, [row(position + number + 1) for number in range(len(group))])
            connection.execute("COMMIT")
            position += len(group)
            answered = time.perf_counter()
            for asked in group:
                if counts_from <= answered < end:
                    waited.append(answered - asked)
                waiting.put(answered)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    connection.close()
    return measured(waited, end - counts_from)
