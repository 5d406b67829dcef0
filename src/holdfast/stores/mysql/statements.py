"""A group in MariaDB's SQL: statements that contain their values, and the packets in which they are sent.

Used by `stores.mysql.engine`. The driver has no way to send many statements with parameters in one round trip, so
values are literals: the session has NO_BACKSLASH_ESCAPES and utf8mb4, in which only a quote is special. The row
`head` is changed first, by a statement that fails if the row is not as expected. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from holdfast.stores.planner import PlannedGroup
from holdfast.stores.server.columns import COLUMNS, as_text, headers_of
from holdfast.stores.server.engine import Range
from holdfast.stores.server.tenure import Head

__all__ = ["filled", "name_of", "packets", "quoted", "removal", "statements"]

PACKET_BYTES = 4 * 1024 * 1024
"""Statements are sent in packets of about this size; a single value may make one larger."""


def statements(group: PlannedGroup, before: Head) -> Iterator[str]:
    """The statements of a group, up to its commit; many rows of one table are split into several statements."""
    holds = _held(before)
    for stream, version in group.versions_to_check():
        holds.append(f"coalesce((SELECT max(version) FROM log WHERE stream = {quoted(stream)}), 0) = {version}")
    for kind, name in group.absent_to_check():
        holds.append(f"NOT EXISTS (SELECT 1 FROM small WHERE kind = {quoted(kind)} AND name = {quoted(name)})")
    # Assignments are made from left to right: the condition comes before the columns that it reads are changed.
    yield f"{_fence(holds)}, position = {group.head}, group_count = group_count + 1"
    records = (
        f"({position}, {quoted(one.kind)}, {quoted(one.destination)}, {quoted(one.stream)},"
        f" {one.version or 'NULL'}, {quoted(one.type)}, {quoted(one.data.decode())}, {quoted(one.tx)},"
        f" {quoted(one.correlation)}, {quoted(one.cause)}, {one.at}, {quoted(headers_of(one))})"
        for position, one in enumerate(group.records, group.first)
    )
    yield from _inserts(f"INSERT INTO log ({COLUMNS}) VALUES ", records)
    rows = [(key, data) for key, data in group.rows.items() if data is not None]
    yield from _inserts(
        "INSERT INTO small (kind, name, data, bytes) VALUES ", (_small(*row) for row in rows if row[0] in group.absent)
    )
    yield from _inserts(
        "REPLACE INTO small (kind, name, data, bytes) VALUES ",
        (_small(*row) for row in rows if row[0] not in group.absent),
    )
    for key, data in group.rows.items():
        if data is None and key not in group.absent:
            yield f"DELETE FROM small WHERE kind = {quoted(key[0])} AND name = {quoted(key[1])}"
    cursors = (f"({quoted(name)}, {quoted(at.incarnation)}, {at.position})" for name, at in group.cursors.items())
    yield from _inserts("REPLACE INTO cursors (name, incarnation, position) VALUES ", cursors)
    yield "COMMIT"


def removal(before: Head, kind: str, keys: Range, names: Range) -> str:
    """The rows of a kind and the cursors in two ranges, removed in one transaction if the row `head` is `before`."""
    return "; ".join(
        [
            "START TRANSACTION",
            _fence(_held(before)),
            f"DELETE FROM small WHERE kind = {quoted(kind)} AND {_within(keys)}",
            f"DELETE FROM cursors WHERE {_within(names)}",
            "COMMIT",
        ]
    )


def _held(before: Head) -> list[str]:
    return [f"incarnation = {quoted(before.incarnation)}", f"group_count = {before.groups}"]


def _fence(holds: list[str]) -> str:
    """A value that fails if a condition does not hold, because the column takes no NULL."""
    return f"UPDATE head SET incarnation = IF({' AND '.join(holds)}, incarnation, NULL)"


def _within(names: Range) -> str:
    begin, end = names
    return f"name >= {quoted(begin)}" + (f" AND name < {quoted(end)}" if end is not None else "")


def _small(key: tuple[str, str], data: bytes) -> str:
    shown = as_text(data)
    value = f"{quoted(shown)}, NULL" if shown is not None else f"NULL, x'{data.hex()}'"
    return f"({quoted(key[0])}, {quoted(key[1])}, {value})"


def _inserts(begin: str, rows: Iterable[str]) -> Iterator[str]:
    """Statements of at most about PACKET_BYTES."""
    size, kept = 0, list[str]()
    for row in rows:
        if kept and size + len(row) > PACKET_BYTES:
            yield begin + ", ".join(kept)
            size, kept = 0, []
        kept.append(row)
        size += len(row)
    if kept:
        yield begin + ", ".join(kept)


def packets(statements: Iterable[str]) -> Iterator[str]:
    """Statements in packets of about PACKET_BYTES."""
    size, kept = 0, list[str]()
    for statement in statements:
        if kept and size + len(statement) > PACKET_BYTES:
            yield "; ".join(kept)
            size, kept = 0, []
        kept.append(statement)
        size += len(statement)
    yield "; ".join(kept)


def quoted(text: str) -> str:
    """A string literal. The session has NO_BACKSLASH_ESCAPES and utf8mb4: only a quote is special."""
    return "'" + text.replace("'", "''") + "'"


def name_of(text: str) -> str:
    """An identifier."""
    return "`" + text.replace("`", "``") + "`"


def filled(sql: str, values: Sequence[Any]) -> str:
    """A query with its values in place of each %s."""
    return sql % tuple(str(value) if isinstance(value, int) else quoted(value) for value in values) if values else sql
