"""Columns of the tables on a database server, and how records and rows are made of them.

Comes between the parts of `stores.server` and the engines. The names are those of both schemas (`schema.sql` in the
folder of each engine). A driver may give text as bytes. Decoding fails only on values that no store has written.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

from holdfast.core.log.record import NO_HEADERS, Headers, Kind, Record
from holdfast.stores.prefixes import end_of

__all__ = [
    "COLUMNS",
    "HEAD",
    "KEY",
    "ROW",
    "ROWS",
    "SNAPSHOT",
    "as_text",
    "bytes_of",
    "headers_of",
    "in_order",
    "range_of",
    "record_of",
    "text",
]

HEAD = "SELECT position, group_count, incarnation FROM head"
COLUMNS = "position, kind, destination, stream, version, type, data, tx, correlation, cause, at, headers"
ROWS = "small"
KEY = "name"
ROW = f"{KEY}, data, bytes"
SNAPSHOT = "snapshot"
"""The kind of row that holds a folded stream."""

_headers = msgspec.json.Decoder(Headers)
_encode = msgspec.json.encode


def text(value: str | bytes) -> str:
    """The text of a column, whether the driver gives text or bytes."""
    return value if isinstance(value, str) else bytes(value).decode()


def bytes_of(data: str | bytes | None, blob: bytes | None) -> bytes:
    """A small row's data: text if possible, else bytes."""
    return data.encode() if isinstance(data, str) else bytes(data if data is not None else blob or b"")


def record_of(row: Sequence[Any]) -> Record:
    """A record from the columns of `log`, in the order of the schema."""
    position, kind, destination, stream, version, type_, data, tx, correlation, cause, at, headers = row
    return Record(
        position,
        cast(Kind, text(kind)),
        text(type_),
        bytes_of(data, None),
        text(tx),
        text(cause),
        at,
        text(correlation),
        text(stream),
        version or 0,
        text(destination),
        NO_HEADERS if headers in ("{}", b"{}") else _headers.decode(headers),
    )


def headers_of(record: Record) -> str:
    """The headers as they are stored."""
    return "{}" if record.headers is NO_HEADERS else _encode(record.headers).decode()


def as_text(data: bytes) -> str | None:
    """The data as text, if every engine can store it as text."""
    with suppress(UnicodeDecodeError):
        return data.decode() if b"\0" not in data else None
    return None


def in_order(keys: Sequence[str], found: list[Any]) -> list[bytes | None]:
    """The data of the rows, in the order asked."""
    by_key = {text(key): bytes_of(data, blob) for key, data, blob in found}
    return [by_key.get(key) for key in keys]


def range_of(sql: str, column: str, prefix: str, after: str) -> tuple[str, list[Any]]:
    """A query's condition on names that begin with `prefix` and come after `after`, in the order of bytes."""
    sql = f"{sql} {column} > %s AND {column} >= %s"
    end = end_of(prefix) if prefix else None
    if end is None:
        return sql, [after, prefix]
    return f"{sql} AND {column} < %s", [after, prefix, end]
