"""The MariaDB store is a store, and keeps what only it promises: real servers, killed and cut off."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from holdfast.ports.store import Store
from holdfast.testing.conformance.store import StoreConformance
from servers import MariaDB, Missing, skip_or_fail

NAMES = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """A server that runs."""
    try:
        found = MariaDB()
    except Missing as error:
        skip_or_fail("mariadb", str(error))
    found.start()
    yield found
    found.stop()


class TestMySQLStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, server: MariaDB) -> None:
        self.server = server

    async def make(self, folder: Path) -> Store:
        from holdfast.stores.mysql import MySQLStore

        return MySQLStore(self.server.url(f"s{next(NAMES)}"), "stock")

    async def reopen(self, store: Store) -> Store:
        from holdfast.stores.mysql import MySQLStore

        await store.close()
        assert isinstance(store, MySQLStore)
        return MySQLStore(self.server.url(store.database), "stock")
