"""Rows in memory: a service reads its stored rows into memory at start, and again after an outage of the store.

A `Mirror` is an in-memory copy of stored rows: locks, waiting messages, open sagas, timers, cursors. The node keeps all
of them in one list. Between two reloads, only the commits of the same service change a mirror. The store comes before
it. `reload` fails with `StoreError`.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from holdfast.core.log.batch import RowKind
from holdfast.ports.store import Store


class Mirror(Protocol):
    """An in-memory copy of stored rows."""

    async def reload(self, store: Store) -> None:
        """Replace the copy by the rows that the store has. Raises StoreError; then the copy is unchanged."""
        ...


async def scanned(store: Store, kind: RowKind) -> AsyncIterator[tuple[str, bytes]]:
    """Yield (key, value) of all rows of a kind in the order of their keys; the rows are read page by page."""
    after = ""
    while rows := await store.scan(kind, after=after):
        for row in rows:
            yield row
        after = rows[-1][0]
