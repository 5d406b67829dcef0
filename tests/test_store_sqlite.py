"""The SQLite store is a store, and keeps what only it promises: its file, its lock, its threads, its failures."""

from pathlib import Path

from holdfast.ports.store import Store
from holdfast.stores.sqlite import SQLiteStore
from holdfast.testing.conformance.store import StoreConformance


class TestSQLiteStore(StoreConformance):
    async def make(self, folder: Path) -> Store:
        return SQLiteStore(folder / "stock.sqlite", "stock")

    async def reopen(self, store: Store) -> Store:
        await store.close()
        assert isinstance(store, SQLiteStore)
        return SQLiteStore(store.path, store.log)
