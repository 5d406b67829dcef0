"""What a store's suite writes and reads: records, batches, the whole log, and a race of committers with readers.

Used by `testing.conformance.store`, and by tests of what only one engine has. An assertion that fails says which
promise of the port it was.
"""

import asyncio

from holdfast.core.log.batch import Batch, Committed
from holdfast.core.log.record import Kind, Record
from holdfast.ports.store import Store

__all__ = ["append", "event", "everything", "race"]


def event(stream: str = "", version: int = 0, *, data: bytes = b"{}", tx: str = "t", kind: Kind = "event") -> Record:
    """A record with little in it."""
    return Record(0, kind, "stock.Moved.v1", data, tx, "t", 1, stream=stream, version=version)


def append(stream: str, version: int, count: int = 1) -> Batch:
    """A batch that read `stream` at `version` and appends `count` events."""
    return Batch(tuple(event(stream, version + 1 + i) for i in range(count)), reads=((stream, version),))


async def everything(store: Store, page: int = 1000) -> list[Record]:
    """The whole log, page by page."""
    found: list[Record] = []
    after = 0
    while records := (await store.read(after, page)).records:
        found.extend(records)
        after = records[-1].position
    return found


async def race(store: Store, *, committers: int = 8, readers: int = 64, groups: int = 12, page: int = 50) -> int:
    """Committers and readers at once; every reader checks that it sees each position, in order, and each batch whole.

    Committers take turns, as the port asks. Returns how many non-empty pages ended before the last record: 0 would mean
    that nobody raced anybody.
    """
    turn, total, raced = asyncio.Lock(), committers * groups * 6, 0

    async def committer(number: int) -> None:
        for group in range(groups):
            batches = [append(f"S/{number}-{i}", group * 2, 2) for i in range(3)]
            async with turn:
                outcomes = await store.commit(batches)
            assert all(isinstance(outcome, Committed) for outcome in outcomes), outcomes
            await asyncio.sleep(0)

    async def reader() -> None:
        nonlocal raced
        seen, versions = 0, dict[str, int]()
        while seen < total:
            found = await store.read(seen, page)
            for record in found.records:
                assert record.position == seen + 1, f"after {seen} came {record.position}: a gap or a reorder"
                assert record.version == versions.get(record.stream, 0) + 1, "a stream out of order"
                seen, versions[record.stream] = record.position, record.version
            if len(found.records) < page:
                assert all(version % 2 == 0 for version in versions.values()), "half a batch was visible"
                assert found.upto == seen, f"a page that ends at {seen} says {found.upto}"
                raced += bool(found.records) and seen < total
            await asyncio.sleep(0)

    await asyncio.gather(*(reader() for _ in range(readers)), *(committer(number) for number in range(committers)))
    return raced
