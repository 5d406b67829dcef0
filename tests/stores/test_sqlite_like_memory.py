"""SQLite against the specification: whatever is committed, both stores answer alike, now and after a reopening."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.log.batch import Batch, CommitOutcome, Cursor, Move, Row
from holdfast.core.log.record import Headers, Record
from holdfast.errors import LimitExceeded
from holdfast.ports.store import Snapshot, Store
from holdfast.stores.memory import MemoryStore
from holdfast.stores.sqlite.store import SQLiteStore

STREAMS = ["A/1", "A/2", "B/\U0001f600"]
NAMES = ["exchange:a", "view:v@1:a"]
KEYS = ["", "k", "k/é", "\U0001f600", "ﬀ"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
drafts = st.builds(
    Record,
    position=st.just(0),
    kind=st.sampled_from(["event", "command", "answer", "saga", "repair"]),
    type=st.sampled_from(["t.One.v1", "t.Two.v1"]),
    data=texts.map(msgspec.json.encode),
    tx=st.sampled_from(["t1", "t2"]),
    cause=texts,
    at=st.integers(0, 2**53),
    correlation=st.sampled_from(["", "c1", "é"]),
    destination=st.sampled_from(["", "stock", "order"]),
    headers=st.builds(Headers, hop=st.integers(0, 3), key=texts, undoes=st.integers(0, 2)),
)
rows = st.builds(
    Row,
    kind=st.sampled_from(["request", "view"]),
    key=st.sampled_from(KEYS),
    data=st.one_of(st.none(), st.binary(max_size=6), texts.map(str.encode)),
    fresh=st.booleans(),
)
plans = st.tuples(
    st.lists(st.tuples(drafts, st.sampled_from([*STREAMS, ""]), st.booleans()), max_size=3),
    st.lists(st.sampled_from(STREAMS), max_size=2, unique=True),
    st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
    st.lists(rows, max_size=2),
    st.integers(-1, 12).map(lambda n: n if n < 2 else 0),
)
"""A batch but for versions and cursors: records with their streams, more streams read, cursors moved, rows, and how far
what it expects is off: mostly 0, sometimes stale or ahead."""
steps = st.lists(
    st.one_of(
        st.lists(plans, max_size=6),
        st.sampled_from(["reopen", "clear", "forget"]),
        st.integers(-2, 5),
    ),
    max_size=8,
)
"""Groups of batches, reopenings, clearings, an emptied cache, leaps by so much."""


class Pair:
    """Both stores, and what a writer would believe of them."""

    def __init__(self, folder: str) -> None:
        self.memory: Store = MemoryStore("stock")
        self.sqlite = SQLiteStore(Path(folder) / "s.sqlite", "stock")
        self.versions: dict[str, int] = {}
        self.cursors: dict[str, int] = {}

    def batch(self, plan: tuple) -> Batch:
        """A batch that follows on from what is believed, off by what the plan says."""
        drafted, read, moved, changed, off = plan
        versions = {stream: self.versions.get(stream, 0) for stream in read}
        records: list[Record] = []
        for draft, stream, counts in drafted:
            version = 0
            if stream and counts:
                versions.setdefault(stream, self.versions.get(stream, 0))
                version = versions[stream] + 1 + sum(r.stream == stream and r.version > 0 for r in records) + off
            records.append(msgspec.structs.replace(draft, stream=stream, version=version))
        reads = tuple((stream, version + off) for stream, version in versions.items())
        moves = tuple(
            Move(name, self.cursors.get(name, 0) + off, Cursor("i", self.cursors.get(name, 0) + 1)) for name in moved
        )
        return Batch(tuple(records), reads, moves, tuple(changed))

    async def commit(self, group: list[tuple]) -> None:
        """The same group to both; batches within it may rest on one another's wishes and fail together."""
        batches = [self.batch(plan) for plan in group]
        expected = await self.memory.commit(batches)
        assert await self.sqlite.commit(batches) == expected
        for stream, version in await self.memory.streams(""):
            self.versions[stream] = version
        self.cursors = {name: cursor.position for name, cursor in (await self.memory.cursors()).items()}

    async def step(self, step: object, number: int) -> None:
        """One step of a plan, on both."""
        if isinstance(step, list):
            await self.commit(step)
        elif step == "reopen":
            await self.sqlite.close()
            await self.memory.close()
            assert await self.sqlite.open(f"i{number}", 1) == await self.memory.open(f"i{number}", 1)
        elif step == "forget":
            assert self.sqlite._writer is not None
            self.sqlite._writer.planner._versions.clear()
        elif step == "clear":
            for store in (self.memory, self.sqlite):
                await store.clear("view", "k", "view:v@1:")
            self.cursors.pop("view:v@1:a", None)
        elif isinstance(step, int):
            head = (await self.memory.read(0, 1, kinds=("repair",), types=("none",))).upto
            results: list[object] = []
            for store in (self.memory, self.sqlite):
                try:
                    results.append(await store.leap(f"leap{number}", 1, head + 1 + step))
                except LimitExceeded as error:
                    results.append(str(error))
            assert results[0] == results[1]

    async def compare(self) -> None:
        """Every read there is."""
        found = [await observe(store) for store in (self.memory, self.sqlite)]
        assert found[0] == found[1]


async def observe(store: Store) -> list[object]:
    """All that can be asked of a store."""
    return [
        await store.read(0, 1000),
        await store.read(2, 3),
        await store.read(1, 1000, upto=4),
        await store.read(0, 2, kinds=("event", "saga")),
        await store.read(0, 1000, types=("t.Two.v1",), destination="stock"),
        await store.read(0, 1000, destination="order", kinds=("command",)),
        await store.load(STREAMS),
        await store.load([*STREAMS, "none"], upto=3),
        await store.related(tx="t1"),
        await store.related(correlation="é", limit=2),
        *[await store.related(stream=stream) for stream in STREAMS],
        await store.get("view", KEYS),
        await store.scan("request"),
        await store.scan("view", prefix="k", after="k", limit=2),
        await store.streams(""),
        await store.streams("A/", after="A/1", limit=1),
        await store.cursors(),
    ]


@given(steps)
def test_sqlite_does_what_memory_does(plan: list[object]) -> None:
    """Any sequence of groups, reopenings, leaps and clearings: same outcomes, same answers to every read."""

    async def run(folder: str) -> None:
        pair = Pair(folder)
        assert await pair.sqlite.open("i", 1) == await pair.memory.open("i", 1)
        try:
            for number, step in enumerate(plan):
                await pair.step(step, number)
            await pair.compare()
        finally:
            await pair.sqlite.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))


async def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """A store that differs in one header, one row or one cursor is told from the other."""
    record = Record(0, "event", "t.One.v1", b"1", "t1", "c", 1, headers=Headers(hop=1))
    pairs = [
        (Batch((record,)), Batch((msgspec.structs.replace(record, headers=Headers(hop=2)),))),
        (Batch(rows=(Row("view", "k", b"1"),)), Batch(rows=(Row("view", "k", b"2"),))),
        (Batch(moves=(Move("c", 0, Cursor("i", 1)),)), Batch(moves=(Move("c", 0, Cursor("j", 1)),))),
    ]
    for number, (one, other) in enumerate(pairs):
        pair = Pair(str(tmp_path))
        pair.sqlite = SQLiteStore(tmp_path / f"{number}.sqlite", "stock")
        await pair.sqlite.open("i", 1)
        await pair.memory.open("i", 1)
        await pair.memory.commit([one])
        await pair.sqlite.commit([other])
        with pytest.raises(AssertionError):
            await pair.compare()
        await pair.sqlite.close()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 30), st.integers(0, 40))
def test_snapshots_load_alike(counts: list[int], version: int, upto: int) -> None:
    """With a snapshot anywhere in a stream, at any position asked, both stores load the same."""

    async def run(folder: str) -> None:
        stores: list[Store] = [MemoryStore("s"), SQLiteStore(Path(folder) / "s.sqlite", "s")]
        loaded: list[object] = []
        outcomes: list[list[CommitOutcome]] = []
        for store in stores:
            await store.open("i", 1)
            done = 0
            for count in counts:
                records = tuple(
                    Record(0, "event", "t", b"1", "t", "c", 1, stream="A/1", version=done + n + 1) for n in range(count)
                )
                outcomes.append(await store.commit([Batch(records, reads=(("A/1", done),))]))
                done += count
            at = min(version, done)
            snapshot = msgspec.json.encode(Snapshot(at, "shape", msgspec.Raw(b"{}")))
            await store.commit([Batch(rows=(Row("snapshot", "A/1", snapshot),))])
            loaded.append(
                msgspec.json.encode([await store.load(["A/1"], upto=upto, snapshots=s) for s in (True, False)])
            )
            await store.close()
        assert loaded[0] == loaded[1]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))
