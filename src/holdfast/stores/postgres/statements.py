"""A group in PostgreSQL's SQL: one statement and the JSON document that it reads; and the loading of streams.

Used by `stores.postgres.engine`. The row `head` is changed first, only if it is as expected and all that the group
assumes holds; everything else in the statement depends on that row. Pure.
"""

from typing import Any

import msgspec

from holdfast.stores.planner import PlannedGroup
from holdfast.stores.server.columns import COLUMNS, SNAPSHOT, as_text, headers_of

__all__ = ["LOAD", "LOAD_FROM_SNAPSHOT", "REMOVE", "WRITE", "payload"]

LOG_COLUMNS = ", ".join(f"log.{name}" for name in COLUMNS.split(", "))
WRITE = """
WITH given AS (SELECT %(group)s::jsonb AS j),
fence AS (
    UPDATE head SET position = %(position)s, group_count = group_count + 1
    WHERE incarnation = %(incarnation)s AND group_count = %(count)s
        AND NOT EXISTS (
            SELECT FROM given, jsonb_array_elements(j -> 'versions') AS e(v)
            WHERE (v ->> 1)::bigint <> coalesce(
                (SELECT max(version) FROM log WHERE stream = v ->> 0 AND stream <> ''), 0))
        AND NOT EXISTS (
            SELECT FROM given, jsonb_array_elements(j -> 'absent') AS e(v), small
            WHERE small.kind = v ->> 0 AND small.name = v ->> 1)
    RETURNING true AS holds
), records AS (
    INSERT INTO log (position, kind, destination, stream, version, type, data, tx, correlation, cause, at, headers)
    SELECT %(before)s + n, v ->> 0, v ->> 1, v ->> 2, (v ->> 3)::bigint, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
        (v ->> 9)::bigint, v ->> 10
    FROM fence, given, jsonb_array_elements(j -> 'records') WITH ORDINALITY AS e(v, n)
), fresh AS (
    INSERT INTO small (kind, name, data, bytes)
    SELECT v ->> 0, v ->> 1, v ->> 2, decode(v ->> 3, 'hex')
    FROM fence, given, jsonb_array_elements(j -> 'fresh') AS e(v)
), put AS (
    INSERT INTO small (kind, name, data, bytes)
    SELECT v ->> 0, v ->> 1, v ->> 2, decode(v ->> 3, 'hex')
    FROM fence, given, jsonb_array_elements(j -> 'put') AS e(v)
    ON CONFLICT (kind, name) DO UPDATE SET data = excluded.data, bytes = excluded.bytes
), gone AS (
    DELETE FROM small USING fence, given, jsonb_array_elements(j -> 'gone') AS e(v)
    WHERE small.kind = v ->> 0 AND small.name = v ->> 1
), moved AS (
    INSERT INTO cursors (name, incarnation, position)
    SELECT v ->> 0, v ->> 1, (v ->> 2)::bigint
    FROM fence, given, jsonb_array_elements(j -> 'cursors') AS e(v)
    ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, position = excluded.position
)
SELECT pg_notify(%(channel)s, %(told)s) FROM fence
"""

LOAD = f"""
SELECT {LOG_COLUMNS} FROM unnest(%s::text[]) AS wanted(stream) JOIN log ON log.stream = wanted.stream
WHERE log.stream <> '' AND log.version IS NOT NULL AND log.position <= %s ORDER BY log.position
"""
LOAD_FROM_SNAPSHOT = f"""
WITH wanted AS (
    SELECT given.stream, small.data, coalesce((small.data::jsonb ->> 'version')::bigint, 0) AS known
    FROM unnest(%s::text[]) AS given(stream)
    LEFT JOIN small ON small.kind = '{SNAPSHOT}' AND small.name = given.stream
)
SELECT {LOG_COLUMNS} FROM wanted JOIN log ON log.stream = wanted.stream AND log.version > wanted.known
WHERE log.stream <> '' AND log.position <= %s
UNION ALL
SELECT 0, '{SNAPSHOT}', '', stream, NULL, '', data, '', '', '', 0, '{{}}' FROM wanted WHERE data IS NOT NULL
ORDER BY position
"""

REMOVE = """
WITH fence AS (
    SELECT true FROM head WHERE incarnation = %(incarnation)s AND group_count = %(count)s FOR UPDATE
), rows_gone AS (
    DELETE FROM small USING fence WHERE kind = %(kind)s AND name >= %(key)s
        AND (%(key_end)s::text IS NULL OR name < %(key_end)s)
), cursors_gone AS (
    DELETE FROM cursors USING fence WHERE name >= %(name)s AND (%(name_end)s::text IS NULL OR name < %(name_end)s)
)
SELECT true FROM fence
"""

_encode = msgspec.json.encode


def payload(group: PlannedGroup) -> str:
    """All changes of a group, as the document that WRITE reads."""
    put: list[Any] = []
    fresh: list[Any] = []
    gone: list[Any] = []
    for key, data in group.rows.items():
        if data is None:
            if key not in group.absent:
                gone.append(key)
            continue
        shown = as_text(data)
        (fresh if key in group.absent else put).append((*key, shown, data.hex() if shown is None else None))
    records = [
        (
            one.kind,
            one.destination,
            one.stream,
            one.version or None,
            one.type,
            one.data.decode(),
            one.tx,
            one.correlation,
            one.cause,
            one.at,
            headers_of(one),
        )
        for one in group.records
    ]
    document = {
        "records": records,
        "put": put,
        "fresh": fresh,
        "gone": gone,
        "cursors": [(name, at.incarnation, at.position) for name, at in group.cursors.items()],
        "versions": list(group.versions_to_check()),
        "absent": list(group.absent_to_check()),
    }
    return _encode(document).decode()
