"""The memory store is a store: the conformance suite says so, and it is what services are crashed on in tests."""

from pathlib import Path

from holdfast.core.log.batch import Batch
from holdfast.ports.store import Incarnation, Store
from holdfast.stores.memory import MemoryStore
from holdfast.testing.conformance.records import append, everything
from holdfast.testing.conformance.store import StoreConformance


class TestMemoryStore(StoreConformance):
    async def make(self, folder: Path) -> Store:
        return MemoryStore("stock")

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return store


async def test_it_can_be_opened_again_without_a_close() -> None:
    """A service that crashed closed nothing; the next one finds what was committed, under a new incarnation."""
    store = MemoryStore("stock")
    await store.open("one", 1)
    await store.commit([append("A/1", 0, 2)])
    opened = await store.open("two", 2)
    assert opened.incarnations == (Incarnation("one", 1), Incarnation("two", 3))
    assert len(await everything(store)) == 2
    assert [type(outcome).__name__ for outcome in await store.commit([Batch()])] == ["Committed"]
