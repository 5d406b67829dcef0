"""A load whose every batch can be recognised, and a judge of what is left of it: for the crash and power-cut tests.

Batch n writes three records, moves one cursor to n and puts one row. The judge reads the file with SQL of its own and
shares nothing with the store: what is there must be batches 1 to some n, each whole, with positions gap-free.
"""

from pathlib import Path

import apsw

from holdfast.core.log.batch import Batch, Cursor, Move, Row
from holdfast.core.log.record import Record


def batch(n: int) -> Batch:
    """Batch n = 1, 2, ...; it rests on n - 1."""
    stream, version = f"S/{n % 5}", (n - 1) // 5 * 3
    data = b'{"n":%d,"pad":"%s"}' % (n, b"x" * (n * 37 % 900))
    return Batch(
        tuple(
            Record(0, "event", "t", data, f"tx{n}", "c", n, stream=stream, version=version + i + 1) for i in range(3)
        ),
        reads=((stream, version),),
        moves=(Move("c", n - 1, Cursor("i", n)),),
        rows=(Row("view", f"k{n % 7}", b"%d" % n), Row("request", f"r{n}", b"{}", fresh=True)),
    )


def judge(path: Path) -> int:
    """How many batches the file holds; raises AssertionError when one is partial or anything does not fit."""
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        log = connection.execute(
            "SELECT position, stream, version, data ->> 'n', data FROM log ORDER BY position"
        ).fetchall()
        last = len(log) // 3
        assert len(log) == 3 * last, f"{len(log)} records: a batch is partial"
        for index, (position, stream, version, n, data) in enumerate(log):
            want = batch(index // 3 + 1).records[index % 3]
            assert (position, stream, version, n) == (index + 1, want.stream, want.version, index // 3 + 1)
            assert data.encode() == want.data
        cursor = connection.execute("SELECT position FROM cursors WHERE name = 'c'").get
        assert (cursor or 0) == last, f"the cursor says {cursor}, the log {last}"
        rows = dict(connection.execute("SELECT key, data FROM rows WHERE kind = 'view'").fetchall())
        assert rows == {f"k{n % 7}": str(n) for n in range(max(1, last - 6), last + 1)}
        assert connection.execute("SELECT count(*) FROM rows WHERE kind = 'request'").get == last
        return last
    finally:
        connection.close()
