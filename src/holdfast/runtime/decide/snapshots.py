"""Snapshots: when the state of an aggregate is stored beside its records, so that it need not be folded from the first.

A snapshot is a row in the batch whose version passes the next multiple of `every`. It is a cache, so it may be missing
at any time. Dispatch and stages come before it and change the streams. Fails with the error of a state that cannot be
encoded.
"""

import msgspec

from holdfast.core.declare.aggregate import AggregateType
from holdfast.core.declare.message import encode
from holdfast.core.log.batch import Row
from holdfast.runtime.log.streams import Entry


def snapshot_due(by: AggregateType, stream: str, entry: Entry, before: int, every: int) -> list[Row]:
    """The row of a snapshot, if the stream has passed the next multiple of `every` since version `before`."""
    if entry.version // every == before // every:
        return []
    shape, data = by.shape.fingerprint, msgspec.Raw(by.shape.encode(entry.state))
    return [Row("snapshot", stream, encode({"version": entry.version, "shape": shape, "data": data}))]
