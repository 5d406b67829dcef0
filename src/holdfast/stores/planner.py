"""The planner: checks a group of batches in memory, one after another, before anything is sent to an engine.

Comes before the engines' writers, which make a `PlannedGroup` durable in one transaction of one or few statements. A
planner knows versions and cursors as its own commits left them. It assumes the values that it does not know; the engine
checks them in the same transaction. Only if an assumption fails, the value is looked up (`learn`) and the group is
planned again. Pure; it fails only with `LimitExceeded`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from holdfast.core.log.batch import Batch, CommitOutcome, Committed, Conflict, Cursor, Duplicate, RowKind
from holdfast.core.log.record import Record
from holdfast.errors import LimitExceeded
from holdfast.ports.store import RECORD_BYTES_MAX

__all__ = ["Key", "PlannedGroup", "Planner"]

VERSIONS_MAX = 50_000
"""How many streams have their version kept in memory; for other streams the engine is asked."""

Key = tuple[RowKind, str]


class PlannedGroup:
    """The changes and outcomes of a group of batches, if its assumptions hold."""

    __slots__ = ("absent", "assumed", "cursors", "first", "head", "outcomes", "records", "rows", "streams")

    def __init__(self, head: int) -> None:
        self.first = head + 1
        self.head = head
        """The last position once the group is committed."""
        self.outcomes: list[CommitOutcome] = []
        self.records: list[Record] = []
        """The records in the order of their positions, from `first` on; the positions are not set in them."""
        self.streams: dict[str, int] = {}
        """The versions after the group, of every stream it read."""
        self.cursors: dict[str, Cursor] = {}
        self.rows: dict[Key, bytes | None] = {}
        self.assumed: dict[str, int] = {}
        """Versions that were assumed, because memory did not have them."""
        self.absent: set[Key] = set()
        """Fresh rows that are assumed to be absent."""

    @property
    def empty(self) -> bool:
        """True if there is nothing to check and nothing to write."""
        return not (self.records or self.rows or self.cursors or self.assumed)

    def versions_to_check(self) -> Iterable[tuple[str, int]]:
        """Assumed versions that no unique index checks: a stream that begins in the group is checked by its index."""
        return ((stream, version) for stream, version in self.assumed.items() if version or not self.streams[stream])

    def absent_to_check(self) -> Iterable[Key]:
        """Fresh rows that the group itself removes again: nothing else checks them."""
        return (key for key in self.absent if self.rows.get(key) is None)


class Planner:
    """Plans groups of one log, and remembers the state after the committed ones."""

    def __init__(self, head: int, cursors: Mapping[str, Cursor]) -> None:
        self.head = head
        """The last position whose COMMIT returned; readers read up to it."""
        self.cursors = dict(cursors)
        """The committed cursors; changed by one `update`, so that other threads may copy them."""
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._known: dict[Key, bytes | None] = {}
        """Rows looked up because an assumption failed; only for the current group."""

    def begin(self, batches: Sequence[Batch]) -> PlannedGroup:
        """Plan a group for the first time. Raises LimitExceeded."""
        for batch in batches:
            for record in batch.records:
                if (size := len(record.data)) > RECORD_BYTES_MAX:
                    raise LimitExceeded(
                        f"a record of type {record.type} has {size} bytes; the limit is {RECORD_BYTES_MAX}"
                    )
        self._known.clear()
        return self.plan(batches)

    def plan(self, batches: Sequence[Batch]) -> PlannedGroup:
        """Plan a group with all that is known now."""
        group = PlannedGroup(self.head)
        for batch in batches:
            refusal = self._refusal(group, batch)
            if refusal is not None:
                group.outcomes.append(refusal)
                continue
            group.outcomes.append(Committed(group.head + 1))
            group.records += batch.records
            group.head += len(batch.records)
            for record in batch.records:
                if record.version:
                    group.streams[record.stream] = record.version
            for move in batch.moves:
                group.cursors[move.name] = move.after
            for row in batch.rows:
                group.rows[row.kind, row.key] = row.data
        return group

    def learn(self, versions: Mapping[str, int], rows: Mapping[Key, bytes | None]) -> None:
        """Take the engine's values for a group's assumptions."""
        self._versions.update(versions)
        self._known.update(rows)

    def keep(self, group: PlannedGroup) -> None:
        """Remember the state after a group that is durable."""
        versions = self._versions
        for stream, version in group.streams.items():
            versions[stream] = version
            versions.move_to_end(stream)
        while len(versions) > VERSIONS_MAX:
            versions.popitem(last=False)
        self.cursors.update(group.cursors)
        self.head = group.head

    def _refusal(self, group: PlannedGroup, batch: Batch) -> CommitOutcome | None:
        """The first check of a batch that fails after its predecessors; None if all hold."""
        streams = group.streams
        for stream, expected in batch.reads:
            found = streams.get(stream)
            if found is None:
                found = self._versions.get(stream)
                if found is None:
                    found = group.assumed[stream] = expected
                streams[stream] = found
            if found != expected:
                return Conflict(stream, expected, found)
        for move in batch.moves:
            cursor = group.cursors.get(move.name) or self.cursors.get(move.name)
            found = cursor.position if cursor else 0
            if found != move.before:
                return Conflict(move.name, move.before, found)
        for row in batch.rows:
            if row.fresh:
                key = (row.kind, row.key)
                data = group.rows[key] if key in group.rows else self._known.get(key)
                if data is not None:
                    return Duplicate(row.kind, row.key, data)
                if key not in group.rows and key not in self._known:
                    group.absent.add(key)
        return None
