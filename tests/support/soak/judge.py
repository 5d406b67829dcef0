"""A judge of what a soak leaves behind: SQL over the store files, nothing of holdfast.

`judge` opens the files of all services at once, however their processes ended, and holds every claim against every
record. A claim is a query of (what to say, whether it is fine); what is not fine is said. `LOGS` holds for any system:
no gap, one outcome for every command, taken once, nothing held, waiting or open, every answer that a customer was given
where it was said to be. `judge_shop` adds orders, `judge_trades` adds staged transactions.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAID_MAX = 20
"""How many violations of one claim are put in words."""

MADE = """
CREATE TEMP TABLE outcomes AS SELECT service, destination, cause, count(*) AS count FROM log
    WHERE kind IN ('event', 'answer') AND destination <> '' GROUP BY 1, 2, 3;
CREATE INDEX temp.outcome_cause ON outcomes (cause, service, destination);
CREATE TEMP TABLE taken AS SELECT cause, count(*) AS count FROM log WHERE type = 'holdfast.saga.answered' GROUP BY 1;
CREATE INDEX temp.taken_cause ON taken (cause);
-- The final answers to what was asked from outside: of each tx there is one, where it was asked.
CREATE TEMP TABLE ends AS SELECT service, stream, position, type, tx, data FROM log
    WHERE headers LIKE '%"outcome":true%';
CREATE INDEX temp.end_tx ON ends (tx, service);
CREATE INDEX temp.end_stream ON ends (stream, service);
CREATE TEMP TABLE requests AS SELECT service, key, data ->> 'tx' AS tx FROM small WHERE kind = 'request';
CREATE INDEX temp.request_key ON requests (key, service);
CREATE INDEX temp.request_tx ON requests (tx, service);
"""

# One of each for every service, so that their indexes give the order and nothing is sorted.
PLACES = "SELECT '{0}' AS service, position, lag(position, 1, 0) OVER (ORDER BY position) AS before FROM s_{0}.log"
VERSIONS = """
SELECT '{0}' AS service, position, version, lag(version, 1, 0) OVER one AS before, lag(position, 1, 0) OVER one AS at
FROM s_{0}.log WHERE stream <> '' AND version IS NOT NULL WINDOW one AS (PARTITION BY stream ORDER BY version)
"""

LOGS = {
    "position": "SELECT service || '@' || position || ' follows ' || before, position = before + 1 FROM places",
    "version": """
        SELECT service || '@' || position || ' is version ' || version || ' after ' || before || ' at ' || at,
            version = before + 1 AND position > at FROM versions
        """,
    "command": """
        SELECT l.service || '@' || l.position || ' ' || l.type || ' has ' || ifnull(o.count, 0) || ' outcomes',
            ifnull(o.count, 0) = 1
        FROM log AS l LEFT JOIN outcomes AS o ON o.cause = l.service || '@' || l.position
            AND o.service = l.destination AND o.destination = l.service
        WHERE l.kind = 'command' AND l.type <> 'holdfast.call_off'
        """,
    "answer": """
        SELECT l.service || '@' || l.position || ' ' || l.type || ' was taken ' || ifnull(t.count, 0) || ' times',
            ifnull(t.count, 0) = 1
        FROM log AS l LEFT JOIN taken AS t ON t.cause = l.service || '@' || l.position
        WHERE l.kind IN ('event', 'answer') AND l.destination <> ''
        """,
    "received": """
        SELECT l.destination || ' has not received ' || l.service || '@' || max(l.position),
            ifnull(max(c.position), 0) >= max(l.position)
        FROM log AS l LEFT JOIN cursors AS c ON c.service = l.destination AND c.name = 'exchange:' || l.service
        WHERE l.destination <> '' GROUP BY l.service, l.destination
        """,
    "trail": "SELECT service || '@' || position || ' was caused by ' || cause, fine FROM caused",
    "left": """
        SELECT s.service || ' keeps ' || s.kind || ' ' || s.key, CASE s.kind
            WHEN 'timer' THEN e.tx IS NOT NULL  -- of a saga that has ended: nobody will be woken
            ELSE s.kind NOT IN ('stage', 'decided', 'waiting', 'saga') END
        FROM small AS s LEFT JOIN ends AS e ON s.kind = 'timer' AND e.service = s.service
            AND e.stream = substr(s.key, instr(s.key, '/') + 1, instr(s.key, '#') - instr(s.key, '/') - 1)
        """,
    "stuck": """
        SELECT service || '@' || position || ' ' || type, kind <> 'repair' AND type <> 'holdfast.saga.stuck' FROM log
        WHERE kind IN ('saga', 'repair')
        """,
    "asked": """
        SELECT a.key || ' was asked of ' || a.service || ' and is not known there', r.tx IS NOT NULL
        FROM asked AS a LEFT JOIN requests AS r ON r.key = a.key AND r.service = a.service
        UNION ALL SELECT r.service || ' knows ' || r.key || ', which nobody asked', a.key IS NOT NULL
        FROM requests AS r LEFT JOIN asked AS a ON a.key = r.key AND a.service = r.service
        """,
    "outcome": """
        SELECT r.key || ' has ' || count(e.tx) || ' final answers', count(e.tx) = 1
        FROM requests AS r LEFT JOIN ends AS e ON e.tx = r.tx AND e.service = r.service GROUP BY r.service, r.key
        UNION ALL SELECT e.service || '@' || e.position || ' answers what nobody asked', r.key IS NOT NULL
        FROM ends AS e LEFT JOIN requests AS r ON r.tx = e.tx AND r.service = e.service
        """,
    "acknowledged": """
        SELECT a.key || ' was told ' || a.accepted || ' ' || a.code || ' at ' || a.service || '@' || a.position
                || ', the log has ' || ifnull(e.type || ' at ' || e.position, 'nothing'),
            ifnull(e.position = a.position AND (e.type <> 'holdfast.rejected') = a.accepted
                AND (a.accepted OR e.data ->> 'code' = a.code), 0)
        FROM asked AS a LEFT JOIN ends AS e ON e.tx = a.tx AND e.service = a.service WHERE a.tx IS NOT NULL
        """,
    "once": """
        SELECT a.key || ' has ' || count(l.position) || ' events in ' || a.service,
            count(l.position) = a.accepted AND ifnull(min(json_patch(l.data, a.body) = json(l.data)), 1)
        FROM asked AS a JOIN requests AS r ON r.key = a.key AND r.service = a.service
            LEFT JOIN log AS l ON l.service = a.service AND l.tx = r.tx AND l.kind = 'event'
        WHERE a.service <> :first GROUP BY a.key
        """,
}


@dataclass
class Verdict:
    """What was looked at, and what is wrong."""

    counted: Counter[str] = field(default_factory=Counter[str])
    """Claim -> how many things it was held against."""
    violated: Counter[str] = field(default_factory=Counter[str])
    """Claim -> how many of them are wrong; claims that hold are left out."""
    said: list[str] = field(default_factory=list[str])
    """The first of each in words."""
    figures: Counter[str] = field(default_factory=Counter[str])
    """What there was, by name: sagas, undone, and so on."""


def judge(
    folder: Path, services: Sequence[str], asked: Iterable[tuple[Any, ...]], *, made: str, claims: Mapping[str, str],
    figures: str,
) -> Verdict:  # fmt: skip
    """Hold all claims against the files in a folder; the first service coordinates. `asked`: (key, service, body,
    accepted, code, tx, position), the last four None where nobody was told. `figures`: a query of (name, number)."""
    verdict = Verdict()
    with closing(sqlite3.connect("")) as files:
        files.execute("PRAGMA cache_size = -200000")
        for name in services:
            files.execute(f"ATTACH ? AS s_{name}", (str(folder / f"{name}.sqlite"),))
            files.execute(f"PRAGMA s_{name}.mmap_size = 4000000000")
            found = files.execute(f"PRAGMA s_{name}.quick_check").fetchone()[0]
            verdict.counted["file"] += 1
            if found != "ok":
                verdict.violated["file"] += 1
                verdict.said.append(f"file: {name} is damaged: {found}")
        for view, table in (("log", "log"), ("small", "rows"), ("cursors", "cursors")):
            parts = (f"SELECT '{name}' AS service, * FROM s_{name}.{table}" for name in services)
            files.execute(f"CREATE TEMP VIEW {view} AS {' UNION ALL '.join(parts)}")
        for view, part in (("places", PLACES), ("versions", VERSIONS)):
            parts = (part.format(name) for name in services)
            files.execute(f"CREATE TEMP VIEW {view} AS {' UNION ALL '.join(parts)}")
        files.execute(f"CREATE TEMP VIEW caused AS {_caused(services)}")
        files.execute("CREATE TEMP TABLE asked (key, service, body, accepted, code, tx, position)")
        files.executemany("INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)", asked)
        files.executescript("CREATE INDEX temp.asked_key ON asked (key, service);" + MADE + made)
        for claim, query in {**LOGS, **claims}.items():
            _hold(files, verdict, claim, query, services[0])
        verdict.figures.update(dict(files.execute(figures).fetchall()))
    return verdict


def _caused(services: Sequence[str]) -> str:
    """Records that others caused, and whether the one that did is there, in the same transaction."""
    cases = " ".join(
        f"WHEN '{name}' THEN (SELECT tx FROM s_{name}.log WHERE position = substr(l.cause, {len(name) + 2}) + 0)"
        for name in services
    )
    return f"""
        SELECT service, position, cause,
            ifnull(tx = CASE substr(cause, 1, instr(cause, '@') - 1) {cases} END, 0) AS fine
        FROM log AS l WHERE instr(cause, '@')"""


def _hold(files: sqlite3.Connection, verdict: Verdict, claim: str, query: str, first: str) -> None:
    values = {"first": first} if ":first" in query else {}
    held = f"(SELECT NULL AS text, NULL AS fine WHERE 0 UNION ALL {query})"
    counted, wrong = files.execute(f"SELECT count(*), ifnull(sum(NOT fine), 0) FROM {held}", values).fetchone()
    verdict.counted[claim] += counted
    if wrong:
        verdict.violated[claim] += wrong
        found = files.execute(f"SELECT text FROM {held} WHERE NOT fine LIMIT {SAID_MAX}", values)
        verdict.said += [f"{claim}: {text}" for (text,) in found]


def told_rows(asked: Mapping[str, Any], told: Mapping[str, Any]) -> Iterable[tuple[Any, ...]]:
    """What `judge` is to know of what was asked and what was answered."""
    for key, ask in asked.items():
        known = told.get(key)
        answer = (known.accepted, known.code, known.tx, known.position) if known else (None,) * 4
        yield (key, ask.service, json.dumps(ask.body), *answer)
