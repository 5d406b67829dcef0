"""The one connection that writes to a SQLite store: a group of batches is one statement, and so one transaction.

Lives on the writer thread of `stores.sqlite.store`, in a file opened by `stores.sqlite.file`. Every call into SQLite
lets go of the GIL and has to win it back from the event loop's thread, which when busy gives it up only every 5 ms. So
a group is checked in memory and written by a single INSERT into a temporary view whose triggers put each row where it
belongs: one step, one fsync, one hand-over. Values that memory does not have are assumed and checked by the
statement; only if an assumption fails, the value is looked up and the group planned again. Fails with `StoreFailed`,
after it has checked what the file holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Committed, Cursor, RowKind
from holdfast.core.log.record import NO_HEADERS, Record
from holdfast.errors import LimitExceeded, StoreFailed, TransactionRefused
from holdfast.ports.store import Incarnation
from holdfast.stores.planner import Key, PlannedGroup, Planner
from holdfast.stores.sqlite.file import Connection, store_error

__all__ = ["SqliteWriter", "text_or_blob"]

WRITING = """
-- What a group writes, one row each, and what it takes for granted. Nothing is ever in it: its triggers do the work.
CREATE TEMP VIEW writing (
    what, position, kind, destination, stream, version, type, data, tx, correlation, cause, at, headers
) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TEMP TRIGGER writing_record INSTEAD OF INSERT ON writing WHEN new.what = 'record' BEGIN
    INSERT INTO log VALUES (
        new.position, new.kind, new.destination, new.stream, new.version, new.type, new.data, new.tx, new.correlation,
        new.cause, new.at, new.headers
    );
END;
-- Rows have their key in `stream`, cursors their name, and their incarnation in `tx`.
CREATE TEMP TRIGGER writing_put INSTEAD OF INSERT ON writing WHEN new.what = 'put' BEGIN
    INSERT OR REPLACE INTO rows VALUES (new.kind, new.stream, new.data);
END;
CREATE TEMP TRIGGER writing_fresh INSTEAD OF INSERT ON writing WHEN new.what = 'fresh' BEGIN
    INSERT INTO rows VALUES (new.kind, new.stream, new.data);
END;
CREATE TEMP TRIGGER writing_delete INSTEAD OF INSERT ON writing WHEN new.what = 'delete' BEGIN
    DELETE FROM rows WHERE kind = new.kind AND key = new.stream;
END;
CREATE TEMP TRIGGER writing_cursor INSTEAD OF INSERT ON writing WHEN new.what = 'cursor' BEGIN
    INSERT OR REPLACE INTO cursors VALUES (new.stream, new.tx, new.position);
END;
-- Assumptions: they stand before all that is written.
CREATE TEMP TRIGGER writing_if_version INSTEAD OF INSERT ON writing WHEN new.what = 'if version' BEGIN
    SELECT raise(ABORT, 'assumed') WHERE new.version <>
        ifnull((SELECT max(version) FROM log WHERE stream = new.stream AND stream <> ''), 0);
END;
CREATE TEMP TRIGGER writing_if_absent INSTEAD OF INSERT ON writing WHEN new.what = 'if absent' BEGIN
    SELECT raise(ABORT, 'assumed') FROM rows WHERE kind = new.kind AND key = new.stream;
END;
"""
COLUMNS = 13
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Rows of a statement; each size is prepared once. Up to 512: apsw keeps no statement of more than 16 kB of text."""
LARGEST = SIZES[-1] * COLUMNS
"""Parameters of the largest statement."""
WRITE = {size: "INSERT INTO writing VALUES" + ",".join(["(" + "?," * (COLUMNS - 1) + "?)"] * size) for size in SIZES}

HEAD = "SELECT max(ifnull((SELECT max(position) FROM log), 0), ifnull((SELECT max(first) FROM incarnations), 1) - 1)"
VERSION = "SELECT ifnull(max(version), 0) FROM log WHERE stream = ? AND stream <> ''"
ROW = "SELECT data FROM rows WHERE kind = ? AND key = ?"

_encode = msgspec.json.encode


def text_or_blob(data: bytes) -> str | bytes:
    """As text where it is UTF-8, so that it is readable in any SQLite shell."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _parameters(group: PlannedGroup) -> list[Any]:
    """All parameters of the statement, assumptions first."""
    found: list[Any] = []
    for stream, version in group.versions_to_check():
        found += ("if version", None, None, None, stream, version, *NOTHING[6:])
    for kind, key in group.absent_to_check():
        found += ("if absent", None, kind, None, key, *NOTHING[5:])
    for position, record in enumerate(group.records, group.first):
        found += _values(record, position)
    for (kind, key), data in group.rows.items():
        if data is not None:
            what = "fresh" if (kind, key) in group.absent else "put"
            found += (what, None, kind, None, key, None, None, text_or_blob(data), *NOTHING[8:])
        elif (kind, key) not in group.absent:
            found += ("delete", None, kind, None, key, *NOTHING[5:])
    for name, cursor in group.cursors.items():
        found += ("cursor", cursor.position, None, None, name, None, None, None, cursor.incarnation, *NOTHING[9:])
    return found


NOTHING = (None,) * COLUMNS


class SqliteWriter:
    """Commits groups. Every method runs on the writer thread, one at a time."""

    def __init__(self, path: Path, connection: Connection) -> None:
        self._path, self.connection = path, connection
        self._doubt: PlannedGroup | None = None
        """A group whose COMMIT raised, while the file could not be read to see whether it is there."""
        connection.execute(WRITING)
        cursors = {name: Cursor(*at) for name, *at in connection.execute("SELECT * FROM cursors")}
        self.planner = Planner(connection.execute(HEAD).get, cursors)

    def begin(self, incarnation: str, at: int, first: int, bridged: int) -> list[Incarnation]:
        """Record an opening, and return all openings."""
        values = (incarnation, first, bridged, at)
        self._execute("INSERT INTO incarnations (id, first, bridged, at) VALUES (?, ?, ?, ?)", values)
        self.planner.head = first - 1
        every = self._execute("SELECT id, first, bridged FROM incarnations ORDER BY number")
        return [Incarnation(*row) for row in every]

    def leap(self, incarnation: str, at: int, first: int) -> list[Incarnation]:
        """Begin an incarnation above the head."""
        self.recover()
        if first <= self.planner.head:
            raise LimitExceeded(f"position {first} is not above the head, {self.planner.head}")
        return self.begin(incarnation, at, first, first - 1)

    def clear(self, kind: RowKind, ends: tuple[str, str | bytes], cursor_ends: tuple[str, str | bytes]) -> None:
        """Remove the rows and cursors in two ranges, both or none."""
        self.recover()
        sql = (
            "BEGIN IMMEDIATE; DELETE FROM rows WHERE kind = ? AND key >= ? AND key < ?;"
            " DELETE FROM cursors WHERE name >= ? AND name < ?; COMMIT"
        )
        self._execute(sql, (kind, *ends, *cursor_ends))
        kept = {name: Cursor(*at) for name, *at in self._execute("SELECT * FROM cursors")}
        self.planner.cursors = kept

    def close(self) -> None:
        """Close the connection, which brings the file up to date."""
        self.connection.close()

    def commit(self, batches: Sequence[Batch]) -> list[CommitOutcome]:
        """Commit a group in one transaction."""
        group = self.planner.begin(batches)
        self.recover()
        while True:
            if group.first != self.planner.head + 1:
                group = self.planner.plan(batches)  # a group that was in doubt is there after all
            try:
                self._write(group)
            except apsw.ConstraintError as error:
                if not group.assumed and not group.absent:
                    # Nothing was assumed, so the versions of the records do not follow the batches' reads.
                    raise StoreFailed(f"{self._path.name}: the versions of a batch do not follow its reads") from error
                # Batches that were refused may now pass and assume more, so this can take several rounds.
                self._look_up(group)
                group = self.planner.plan(batches)
                continue
            self.planner.keep(group)
            return group.outcomes

    def begin_lent(self) -> None:
        """Begin a transaction in which handlers work on the connection."""
        self.recover()
        self._execute("BEGIN IMMEDIATE -- of holdfast")

    def end_lent(self) -> None:
        """Roll back what is not committed."""
        try:
            self._roll_back()
        except apsw.Error as error:
            raise store_error(self._path, error) from error

    def commit_within(self, batches: Sequence[Batch]) -> list[CommitOutcome]:
        """Commit a group with the handlers' work in the open transaction; nothing if a batch is refused."""
        if self.connection.get_autocommit():
            raise TransactionRefused("the transaction of the handlers has ended before its commit")
        group = self.planner.begin(batches)
        if not all(isinstance(outcome, Committed) for outcome in group.outcomes):
            self._roll_back()
            return group.outcomes
        parameters = _parameters(group)
        try:
            try:
                for start in range(0, len(parameters), LARGEST):
                    self.connection.execute(*_statement(parameters[start : start + LARGEST]))
            except apsw.ConstraintError as error:
                self._roll_back()
                return self._refused(group, batches, error)
            try:
                self.connection.execute("COMMIT -- of holdfast")
            except apsw.ConstraintError as error:
                self._roll_back()
                raise TransactionRefused(f"what the handler did cannot be committed: {error}") from error
        except apsw.Error as error:
            self._find_out(group, error)
        self.planner.keep(group)
        return group.outcomes

    def _refused(
        self, group: PlannedGroup, batches: Sequence[Batch], error: apsw.ConstraintError
    ) -> list[CommitOutcome]:
        """The outcomes of a group whose assumptions failed. Nothing of it is there."""
        if group.assumed or group.absent:
            self._look_up(group)
            outcomes = self.planner.plan(batches).outcomes
            if not all(isinstance(outcome, Committed) for outcome in outcomes):
                return outcomes
        raise StoreFailed(f"{self._path.name}: the versions of a batch do not follow its reads") from error

    def recover(self) -> int:
        """Find out about a group that failed while the file could not be read: it may be in the log. Returns the
        head."""
        if self._doubt is not None:
            self._find_out(self._doubt)
        return self.planner.head

    def _write(self, group: PlannedGroup) -> None:
        """Make a group durable; raises ConstraintError, with nothing written, when an assumption does not hold."""
        parameters = _parameters(group)
        connection = self.connection
        try:
            if not parameters:
                return
            if len(parameters) <= LARGEST:
                connection.execute(*_statement(parameters))
                return
            connection.execute("BEGIN IMMEDIATE -- of holdfast")
            for start in range(0, len(parameters), LARGEST):
                connection.execute(*_statement(parameters[start : start + LARGEST]))
            connection.execute("COMMIT -- of holdfast")
        except apsw.ConstraintError:
            self._roll_back()
            raise
        except apsw.Error as error:
            self._find_out(group, error)

    def _find_out(self, group: PlannedGroup, cause: Exception | None = None) -> None:
        """After a COMMIT that raised: look whether the group is there, and return only if it is.

        A commit whose fsync failed is invisible, but its pages may stand in the WAL, and a crash before the next commit
        could bring them back. So a small commit is written over them before the caller is told that nothing is there.
        """
        try:
            self._roll_back()
            there = self._is_there(group)
            if not there:
                self.connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'failures'")
        except apsw.Error as error:
            self._doubt = group
            raise store_error(self._path, cause or error) from error
        self._doubt = None
        if not there and cause is not None:
            raise store_error(self._path, cause) from cause
        if there and cause is None:
            self.planner.keep(group)

    def _is_there(self, group: PlannedGroup) -> bool:
        if group.records:
            return self.connection.execute(HEAD).get == group.head
        found = {name: Cursor(*at) for name, *at in self.connection.execute("SELECT * FROM cursors")}
        return all(found.get(name) == cursor for name, cursor in group.cursors.items()) and all(
            self._row(key) == data for key, data in group.rows.items()
        )

    def _roll_back(self) -> None:
        if not self.connection.get_autocommit():
            self.connection.execute("ROLLBACK -- of holdfast")

    def _look_up(self, group: PlannedGroup) -> None:
        """Replace every assumption of a group by the real value."""
        try:
            versions = {stream: self.connection.execute(VERSION, (stream,)).get for stream in group.assumed}
            self.planner.learn(versions, {key: self._row(key) for key in group.absent})
        except apsw.Error as error:
            raise store_error(self._path, error) from error

    def _row(self, key: Key) -> bytes | None:
        data = self.connection.execute(ROW, key).get
        return data.encode() if isinstance(data, str) else data

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(sql, values).fetchall()
        except apsw.Error as error:
            self._roll_back()
            raise store_error(self._path, error) from error


def _values(record: Record, position: int) -> tuple[Any, ...]:
    headers = "{}" if record.headers is NO_HEADERS else _encode(record.headers).decode()
    return (
        "record",
        position,
        record.kind,
        record.destination,
        record.stream,
        record.version or None,
        record.type,
        record.data.decode(),
        record.tx,
        record.correlation,
        record.cause,
        record.at,
        headers,
    )


def _statement(parameters: list[Any]) -> tuple[str, list[Any]]:
    """The smallest statement that takes them, filled up with rows that no trigger fires on."""
    count = len(parameters) // COLUMNS
    size = next(size for size in SIZES if size >= count)
    return WRITE[size], parameters + list(NOTHING) * (size - count)
