"""The PostgreSQL store is a store, and keeps what only it promises: real servers, killed and cut off."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from holdfast.ports.store import Store
from holdfast.testing.conformance.store import StoreConformance
from servers import Missing, Postgres, skip_or_fail

NAMES = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that runs."""
    try:
        found = Postgres()
    except Missing as error:
        skip_or_fail("postgres", str(error))
    found.start()
    yield found
    found.stop()


class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, server: Postgres) -> None:
        self.server = server

    async def make(self, folder: Path) -> Store:
        from holdfast.stores.postgres import PostgresStore

        return PostgresStore(self.server.url(f"s{next(NAMES)}"), "stock")

    async def reopen(self, store: Store) -> Store:
        from holdfast.stores.postgres import PostgresStore

        await store.close()
        assert isinstance(store, PostgresStore)
        return PostgresStore(self.server.url(store.schema), "stock")
