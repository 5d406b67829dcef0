"""The store in memory: the shortest store, and so the specification that the others are compared with.

It promises all of `ports.store` except durability and backup: its data lasts as long as the object, over any number of
`close` and `open`. It has no threads, no clock and no randomness: the same calls give the same answers, so tests and
the fault explorer run on it. It never yields inside a call, so a commit is atomic for every caller. Fails with
`StoreFailed` if it is used while closed, and with `LimitExceeded`.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Committed, Conflict, Cursor, Duplicate, RowKind
from holdfast.core.log.record import Kind, Record
from holdfast.errors import LimitExceeded, StoreError, StoreFailed
from holdfast.ports.store import RECORD_BYTES_MAX, Capabilities, Incarnation, Lent, Loaded, Opened, Page, Snapshot

__all__ = ["MemoryStore"]

NOWHERE = Cursor()


class MemoryStore:
    """One log and its small tables, in lists and dicts."""

    capabilities = Capabilities(durable=False)

    def __init__(self, log: str) -> None:
        self.log = log
        self._open = False
        self._head = 0
        self._incarnations: list[Incarnation] = []
        self._records: list[Record] = []
        self._positions: list[int] = []
        """The positions of the records."""
        self._streams: dict[str, list[Record]] = {}
        """The versioned records of each stream: its length is its version."""
        self._cursors: dict[str, Cursor] = {}
        self._rows: dict[tuple[RowKind, str], bytes] = {}

    async def open(self, incarnation: str, at: int) -> Opened:
        """Begin an incarnation; the records of earlier ones are still there. Opening again without a close is a
        crash."""
        self._open = True
        return self._begin(Incarnation(incarnation, self._head + 1))

    async def close(self) -> None:
        """Refuse everything until the next `open`."""
        self._open = False

    async def recover(self) -> int:
        """Return the head: in memory no commit is ever in doubt."""
        self._check_open()
        return self._head

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin an incarnation at `first`, above the head."""
        self._check_open()
        if first <= self._head:
            raise LimitExceeded(f"position {first} is not above the head, {self._head}")
        self._head = first - 1
        return self._begin(Incarnation(incarnation, first, bridged=first - 1))

    async def backup(self, target: Path) -> None:
        """Refuse: a memory store has no file to copy."""
        raise StoreError("a memory store cannot make a backup; use sqlite:, postgresql: or mysql:")

    async def begin(self) -> Lent:
        """Refuse: there is no engine whose connection a handler could use."""
        raise StoreError("a memory store has no transactions for handlers; use sqlite:, postgresql: or mysql:")

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Check each batch against the state after its predecessors, and apply it whole or not at all."""
        self._check_open()
        if within is not None:
            await self.begin()
        for batch in batches:
            for record in batch.records:
                if (size := len(record.data)) > RECORD_BYTES_MAX:
                    raise LimitExceeded(
                        f"a record of type {record.type} has {size} bytes; the limit is {RECORD_BYTES_MAX}"
                    )
        return [self._refusal(batch) or self._apply(batch) for batch in batches]

    async def read(
        self,
        after: int,
        limit: int,
        *,
        kinds: Sequence[Kind] = (),
        types: Sequence[str] = (),
        destination: str = "",
        upto: int = 0,
    ) -> Page:
        """A page of the log."""
        self._check_open()
        upto = min(upto or self._head, self._head)
        found: list[Record] = []
        for record in self._between(after, upto):
            if (
                (not kinds or record.kind in kinds)
                and (not types or record.type in types)
                and (not destination or record.destination == destination)
            ):
                found.append(record)
                if len(found) == limit:
                    return Page(tuple(found), record.position)
        return Page(tuple(found), upto)

    async def load(self, streams: Sequence[str], *, upto: int = 0, snapshots: bool = True) -> list[Loaded]:
        """Each stream from its snapshot, or from its first record."""
        self._check_open()
        use = snapshots and not upto
        return [self._load(stream, upto or self._head, use) for stream in streams]

    async def related(
        self, *, tx: str = "", correlation: str = "", stream: str = "", limit: int = 1000
    ) -> list[Record]:
        """The first `limit` records of that transaction, label or stream."""
        self._check_open()
        field, value = ("tx", tx) if tx else ("correlation", correlation) if correlation else ("stream", stream)
        return [record for record in self._records if value and getattr(record, field) == value][:limit]

    async def get(self, kind: RowKind, keys: Sequence[str]) -> list[bytes | None]:
        """Rows by key."""
        self._check_open()
        return [self._rows.get((kind, key)) for key in keys]

    async def scan(
        self, kind: RowKind, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        """Rows in key order. Python compares strings by code point, which is the order of their UTF-8 bytes."""
        self._check_open()
        keys = sorted(k for row_kind, k in self._rows if row_kind == kind and k.startswith(prefix) and k > after)
        return [(key, self._rows[kind, key]) for key in keys[:limit]]

    async def streams(self, prefix: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        """Streams in order, with their versions."""
        self._check_open()
        names = sorted(name for name in self._streams if name.startswith(prefix) and name > after)
        return [(name, self._version(name)) for name in names[:limit]]

    async def cursors(self) -> dict[str, Cursor]:
        """A copy of all cursors."""
        self._check_open()
        return dict(self._cursors)

    async def clear(self, kind: RowKind, prefix: str, cursor_prefix: str) -> None:
        """Remove rows and cursors by prefix."""
        self._check_open()
        if not prefix or not cursor_prefix:
            raise ValueError("clear needs a prefix of rows and one of cursors: an empty one would remove everything")
        self._rows = {row: data for row, data in self._rows.items() if row[0] != kind or not row[1].startswith(prefix)}
        self._cursors = {name: at for name, at in self._cursors.items() if not name.startswith(cursor_prefix)}

    def _check_open(self) -> None:
        if not self._open:
            raise StoreFailed(f"the store of {self.log} is closed")

    def _begin(self, incarnation: Incarnation) -> Opened:
        self._incarnations.append(incarnation)
        return Opened(self._head, tuple(self._incarnations))

    def _between(self, after: int, upto: int) -> Iterator[Record]:
        positions = self._positions
        return map(self._records.__getitem__, range(bisect_right(positions, after), bisect_right(positions, upto)))

    def _version(self, stream: str) -> int:
        records = self._streams.get(stream)
        return records[-1].version if records else 0

    def _refusal(self, batch: Batch) -> CommitOutcome | None:
        """The first check of this batch that fails; None if all hold."""
        for stream, expected in batch.reads:
            found = self._version(stream)
            if found != expected:
                return Conflict(stream, expected, found)
        for move in batch.moves:
            found = self._cursors.get(move.name, NOWHERE).position
            if found != move.before:
                return Conflict(move.name, move.before, found)
        for row in batch.rows:
            data = self._rows.get((row.kind, row.key)) if row.fresh else None
            if data is not None:
                return Duplicate(row.kind, row.key, data)
        return None

    def _apply(self, batch: Batch) -> CommitOutcome:
        first = self._head + 1
        for record in batch.records:
            self._head += 1
            placed = msgspec.structs.replace(record, position=self._head)
            self._records.append(placed)
            self._positions.append(self._head)
            if record.version:
                self._streams.setdefault(record.stream, []).append(placed)
        for move in batch.moves:
            self._cursors[move.name] = move.after
        for row in batch.rows:
            if row.data is None:
                self._rows.pop((row.kind, row.key), None)
            else:
                self._rows[row.kind, row.key] = row.data
        return Committed(first)

    def _load(self, stream: str, upto: int, snapshots: bool) -> Loaded:
        snapshot = None
        if snapshots and (data := self._rows.get(("snapshot", stream))) is not None:
            snapshot = msgspec.json.decode(data, type=Snapshot)
        known = snapshot.version if snapshot else 0
        records = self._streams.get(stream, ())
        return Loaded(snapshot, tuple(r for r in records if known < r.version and r.position <= upto))
