"""Snapshots: when the state of an aggregate is stored beside its records, so that it need not be folded from the first.

A snapshot is a row in the batch that brings its stream past the next multiple of so many versions. It may be left out
at any time: it is a cache. Comes after dispatch and stages, which move streams on. Fails with what encoding a state
raises.
"""

import msgspec

from holdfast.core.declare.aggregate import AggregateType
from holdfast.core.declare.message import encode
from holdfast.core.log.batch import Row
from holdfast.runtime.log.streams import Entry


def snapshot_due(by: AggregateType, stream: str, entry: Entry, before: int, every: int) -> list[Row]:
    """The row of a snapshot, where the stream has come past the next one since version `before`."""
    if entry.version // every == before // every:
        return []
    shape, data = by.shape.fingerprint, msgspec.Raw(by.shape.encode(entry.state))
    return [Row("snapshot", stream, encode({"version": entry.version, "shape": shape, "data": data}))]
