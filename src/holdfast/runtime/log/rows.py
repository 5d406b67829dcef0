"""Rows in memory: what a service keeps beside its log is read from the store at start, and again after an outage.

A `Mirror` is an in-memory copy of stored rows: locks, waiting messages, open sagas, timers, cursors. The node keeps all
of them in one list. Between two reloads each changes only by what its own service commits. Comes after the store; fails
with `StoreError`.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from holdfast.core.log.batch import RowKind
from holdfast.ports.store import Store


class Mirror(Protocol):
    """An in-memory copy of stored rows."""

    async def reload(self, store: Store) -> None:
        """Take the store's word for what the rows are. Raises StoreError; then the copy is as it was."""
        ...


async def scanned(store: Store, kind: RowKind) -> AsyncIterator[tuple[str, bytes]]:
    """(key, value) of all rows of a kind, by key, read page by page."""
    after = ""
    while rows := await store.scan(kind, after=after):
        for row in rows:
            yield row
        after = rows[-1][0]
