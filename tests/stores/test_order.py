"""G2 under load: committers and readers race on each store, and the check they race under is shown to catch a store
that hands out positions before it commits, the way a database sequence does."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.log.batch import Batch, CommitOutcome
from holdfast.ports.store import Page
from holdfast.stores.memory import MemoryStore
from holdfast.stores.sqlite.store import SQLiteStore
from holdfast.testing.conformance.records import race


async def test_no_reader_of_sqlite_sees_a_gap_or_a_reorder(tmp_path: Path) -> None:
    """64 committers and 64 readers on one SQLite file: each reader sees each position once, in order (G2)."""
    store = SQLiteStore(tmp_path / "s.sqlite", "stock")
    await store.open("one", 1)
    assert await race(store, committers=64, readers=64, groups=3, page=1000) > 64
    await store.close()


async def test_no_reader_of_memory_sees_a_gap_or_a_reorder() -> None:
    """The same on the memory store (G2)."""
    store = MemoryStore("stock")
    await store.open("one", 1)
    assert await race(store, committers=64, readers=64, groups=3, page=1000) > 64


class SequenceStore(MemoryStore):
    """A store as a naive one would be: a group's positions are taken at once, its records become visible one by one,
    in any order, as transactions do that took their numbers from a sequence. What is asked for is what is visible."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self._chance = random.Random(7)
        self._hidden: set[int] = set()

    async def commit(self, batches: Sequence[Batch]) -> list[CommitOutcome]:
        before = self._head
        outcomes = await super().commit(batches)
        self._hidden.update(position for position in range(before + 1, self._head + 1) if self._chance.random() < 0.3)
        return outcomes

    async def read(self, after: int, limit: int, **which: Any) -> Page:
        page = await super().read(after, limit, **which)
        visible = tuple(record for record in page.records if record.position not in self._hidden)
        if self._hidden and self._chance.random() < 0.5:
            self._hidden.discard(min(self._hidden))
        return Page(visible, visible[-1].position if visible else after)


async def test_the_race_catches_a_naive_store() -> None:
    """On a store whose order of positions is not the order of commits, a reader that trusts it skips records: seen."""
    store = SequenceStore("stock")
    await store.open("one", 1)
    with pytest.raises(AssertionError, match="a gap or a reorder"):
        await race(store)


class TornStore(MemoryStore):
    """A store that shows a batch before all of it is there."""

    async def read(self, after: int, limit: int, **which: Any) -> Page:
        page = await super().read(after, limit, **which)
        if len(page.records) < 2 or len(page.records) == limit:
            return page
        return Page(page.records[:-1], page.records[-2].position)


async def test_the_race_catches_half_a_batch() -> None:
    """A reader that is shown the first record of a batch without the second is seen."""
    store = TornStore("stock")
    await store.open("one", 1)
    with pytest.raises(AssertionError, match="half a batch"):
        await race(store)
