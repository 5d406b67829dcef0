"""What decides what a store is: every sentence of `holdfast.ports.store`, as tests for any adapter.

    class TestMyStore(StoreConformance):
        async def make(self, folder: Path) -> Store:
            return MyStore(folder / "my.db", "stock")

        async def reopen(self, store: Store) -> Store:
            await store.close()
            return store                         # or a new object on the same data; `open` is the suite's to call

Comes after the port; before every adapter's test file, which is those lines and what only its engine has. It needs
pytest-asyncio in any mode, and no service around the store. A failing test names, in its docstring, the promise broken.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import pytest_asyncio

from holdfast.core.log.batch import Batch, Committed, Conflict, Cursor, Duplicate, Move, Row
from holdfast.core.log.record import Headers, Kind, Record
from holdfast.errors import LimitExceeded, StoreError
from holdfast.ports.store import RECORD_BYTES_MAX, Incarnation, Page, Snapshot, Store
from holdfast.testing.conformance.records import append, event, everything, race

__all__ = ["StoreConformance"]

FULL = Record(
    position=0,
    kind="command",
    type="stock.Reserve.v1",
    data='{"sku":"😀 \\u0000 é \' \\" \\\\"}'.encode(),
    tx="TX",
    cause="o@7",
    at=1_700_000_000_000_001,
    correlation="label/é",
    stream="Stock/😀",
    version=1,
    destination="payment",
    headers=Headers(3, True, "00-ab-01", "😀", "Saga/1#2", True, "reserve", 4, 5, True, 6),
)
"""A record in which no field has its default."""

ORDERED = ["", "A", "B", "a", "a/", "a/1", "a/é", "a/ﬀ", "a/\U0001f600", "a/\U0010ffff", "b", "é", "ﬀ", "\U0001f600"]
"""By UTF-8 bytes. By UTF-16 units, U+1F600 would come before U+FB00; by locale, B would stand between a and b."""


class StoreConformance:
    """The suite. A subclass whose name begins with Test says how a store is made and how it is opened again."""

    pytestmark = pytest.mark.asyncio

    async def make(self, folder: Path) -> Store:
        """A store with nothing in it, its files in `folder`, not opened yet."""
        raise TypeError("say in the subclass how a store is made")

    async def reopen(self, store: Store) -> Store:
        """Close `store` and give one with its data, not opened yet."""
        raise TypeError("say in the subclass how a store is opened again")

    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """An open, empty store."""
        store = await self.make(tmp_path)
        await store.open("one", 1)
        yield store
        await store.close()

    async def test_a_record_comes_back_whole(self, store: Store) -> None:
        """Every field of a record is read as it was written, with the position it got (G7)."""
        bare = Record(0, "event", "t", b"null", "t", "", 0)
        assert await store.commit([Batch((FULL, bare), reads=(("Stock/😀", 0),))]) == [Committed(1)]
        want = [msgspec.structs.replace(FULL, position=1), msgspec.structs.replace(bare, position=2)]
        assert list((await store.read(0, 10)).records) == want
        assert [loaded.records for loaded in await store.load(["Stock/😀"])] == [(want[0],)]
        assert await store.related(stream="Stock/😀") == [want[0]]

    async def test_big_values_come_back_whole(self, store: Store) -> None:
        """A record's data of RECORD_BYTES_MAX bytes and a row as big are taken and come back byte for byte."""
        data = b'"' + b"x" * (RECORD_BYTES_MAX - 2) + b'"'
        row = Row("view", "big", bytes(range(256)) * 4096)
        assert await store.commit([Batch((event(data=data),), rows=(row,))]) == [Committed(1)]
        assert (await store.read(0, 1)).records[0].data == data
        assert await store.get("view", ["big"]) == [row.data]

    async def test_a_value_over_the_limit_writes_nothing(self, store: Store) -> None:
        """LimitExceeded comes before anything is written, and the store goes on."""
        data = b'"' + b"x" * (RECORD_BYTES_MAX - 1) + b'"'
        with pytest.raises(LimitExceeded):
            await store.commit([append("A/1", 0), Batch((event(data=data),)), append("A/2", 0)])
        assert (await store.read(0, 10)) == Page((), 0)
        assert await store.commit([append("A/1", 0)]) == [Committed(1)]

    async def test_rows_hold_any_bytes(self, store: Store) -> None:
        """A row's data is any bytes, the empty ones too; an absent row is None; the answer is in the order asked."""
        rows = [Row("view", f"k{i}", data) for i, data in enumerate([b"", b"\x00\xff", b'{"a":"\\u0000"}', b"a\x00b"])]
        await store.commit([Batch(rows=tuple(rows))])
        keys = ["absent", *(row.key for row in reversed(rows)), "k0"]
        assert await store.get("view", keys) == [None, *(row.data for row in reversed(rows)), b""]
        assert await store.get("timer", ["k0"]) == [None]
        assert await store.get("view", []) == []
        assert await store.scan("view") == [(row.key, row.data) for row in rows]

    async def test_a_stale_read_is_a_conflict_and_neighbours_go_through(self, store: Store) -> None:
        """A batch that read a stream at another version leaves nothing, names the stream, and harms nobody (G1, G2)."""
        await store.commit([append("A/1", 0, 2)])
        move, row = Move("c", 0, Cursor("i", 9)), Row("view", "k", b"1")
        stale = Batch((event("A/2", 1),), (("A/2", 0), ("A/1", 1)), (move,), (row,))
        outcomes = await store.commit([append("A/3", 0), stale, append("A/1", 2), append("A/1", 2), append("A/2", 0)])
        assert outcomes == [Committed(3), Conflict("A/1", 1, 2), Committed(4), Conflict("A/1", 2, 3), Committed(5)]
        assert [record.stream for record in await everything(store)] == ["A/1", "A/1", "A/3", "A/1", "A/2"]
        assert await store.cursors() == {} and await store.get("view", ["k"]) == [None]

    async def test_reads_are_checked_where_nothing_is_appended(self, store: Store) -> None:
        """A decision that appends nothing to a stream it read is as wrong on stale state as one that does (G2)."""
        await store.commit([append("A/1", 0)])
        no = Batch((Record(0, "answer", "holdfast.rejected", b"{}", "t", "t", 1, stream="A/1"),), reads=(("A/1", 0),))
        bare = Batch(reads=(("A/1", 2),))
        absent = Batch(reads=(("A/9", 1), ("A/1", 7)))
        right = Batch(reads=(("A/1", 1), ("A/9", 0)))
        refused = [Conflict("A/1", 0, 1), Conflict("A/1", 2, 1), Conflict("A/9", 1, 0)]
        assert await store.commit([no, bare, absent, right]) == [*refused, Committed(2)]

    async def test_a_batch_sees_what_its_predecessors_in_the_group_left(self, store: Store) -> None:
        """Within a group a stream, a cursor and a row follow on from the batch before, and only from one that holds."""
        one, two, fresh = Cursor("i", 1), Cursor("i", 2), Row("request", "k", b"1", fresh=True)
        batches = [
            Batch(append("A/1", 0).records, (("A/1", 0),), (Move("c", 0, one),), (fresh,)),
            Batch(append("A/1", 1).records, (("A/1", 1),), (Move("c", 1, two),), (Row("request", "k", None),)),
            Batch(append("A/1", 2).records, (("A/1", 2),), (Move("c", 1, one),), (Row("request", "j", b"j"),)),
            Batch(append("A/1", 2).records, (("A/1", 2),), (Move("c", 2, one),), (fresh,)),
            Batch(rows=(Row("request", "j", b"2", fresh=True), Row("request", "k", b"4", fresh=True))),
        ]
        outcomes = await store.commit(batches)
        found = Conflict("c", 1, 2)
        assert outcomes == [Committed(1), Committed(2), found, Committed(3), Duplicate("request", "k", b"1")]
        assert await store.cursors() == {"c": one}
        assert await store.get("request", ["k", "j"]) == [b"1", None]

    async def test_checks_come_in_order(self, store: Store) -> None:
        """Of several things that do not hold the first is named: streams, then cursors, then fresh rows."""
        await store.commit([Batch((event("A/1", 1),), (("A/1", 0),), (), (Row("request", "k", b"{}"),))])
        row, move = Row("request", "k", b"2", fresh=True), Move("c", 4, Cursor("i", 5))
        all_three = Batch(reads=(("A/1", 0),), moves=(move,), rows=(row,))
        outcomes = await store.commit([all_three, Batch(moves=(move,), rows=(row,)), Batch(rows=(row,))])
        assert outcomes == [Conflict("A/1", 0, 1), Conflict("c", 4, 0), Duplicate("request", "k", b"{}")]

    async def test_a_fresh_row_may_be_taken_once(self, store: Store) -> None:
        """A fresh row that exists answers Duplicate with what is there, now and after a reopening (G3)."""
        batch = Batch((event(),), rows=(Row("request", "k", b"first", fresh=True),))
        again = Batch((event(),), rows=(Row("request", "k", b"again", fresh=True),))
        assert await store.commit([batch, again]) == [Committed(1), Duplicate("request", "k", b"first")]
        assert await store.commit([again, batch]) == [Duplicate("request", "k", b"first")] * 2
        store = await self.reopen(store)
        await store.open("two", 2)
        assert await store.commit([again, append("A/1", 0)]) == [Duplicate("request", "k", b"first"), Committed(2)]
        await store.close()

    async def test_the_last_value_of_a_row_and_of_a_cursor_stays(self, store: Store) -> None:
        """Rows and cursors are last-write-wins in the order of the batches; None deletes, the absent too."""
        moves = [
            Batch(moves=(Move("c", i, Cursor("i", i + 1)),), rows=(Row("view", "k", b"%d" % i),)) for i in range(9)
        ]
        rows = (
            Row("view", "gone", b"1"),
            Row("view", "gone", None),
            Row("view", "never", None),
            Row("timer", "k", b"t"),
        )
        assert await store.commit([*moves, Batch(rows=rows)]) == [Committed(1)] * 10
        assert await store.cursors() == {"c": Cursor("i", 9)}
        assert await store.scan("view") == [("k", b"8")] and await store.scan("timer") == [("k", b"t")]
        assert await store.commit([Batch(rows=(Row("view", "k", None),))]) == [Committed(1)]
        assert await store.scan("view") == []

    async def test_an_empty_batch_takes_no_position(self, store: Store) -> None:
        """An empty batch, and one that only reads, is Committed at the next position and leaves the log as it is."""
        assert await store.commit([]) == []
        group = [Batch(), append("A/1", 0, 3), Batch(), Batch(reads=(("A/1", 3),)), append("A/2", 0)]
        assert await store.commit(group) == [Committed(position) for position in (1, 1, 4, 4, 4)]
        assert [record.position for record in await everything(store)] == [1, 2, 3, 4]

    async def test_every_kind_of_record_is_kept(self, store: Store) -> None:
        """What a record is, is read back as it was written, and can be asked for."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        batch = Batch(tuple(msgspec.structs.replace(FULL, kind=kind, stream="", version=0) for kind in kinds))
        await store.commit([batch])
        assert [record.kind for record in await everything(store)] == list(kinds)
        for position, kind in enumerate(kinds, 1):
            page = await store.read(0, 100, kinds=(kind,))
            assert [record.position for record in page.records] == [position]

    async def test_a_page_says_how_far_the_search_went(self, store: Store) -> None:
        """Everything that matches in (after, upto] is in the page; upto is never past the head nor past a cut."""
        kinds: Sequence[Kind] = ("event", "command", "event", "saga", "event", "event")
        batch = Batch(tuple(msgspec.structs.replace(FULL, kind=kind, stream="", version=0) for kind in kinds))
        plain = Batch((event(),))
        await store.commit([batch, plain])

        async def page(after: int, limit: int, **which: object) -> tuple[list[int], int]:
            found = await store.read(after, limit, **which)  # type: ignore[arg-type]
            return [record.position for record in found.records], found.upto

        assert await page(0, 100) == ([1, 2, 3, 4, 5, 6, 7], 7)
        assert await page(2, 2) == ([3, 4], 4)
        assert await page(2, 100, upto=4) == ([3, 4], 4)
        assert await page(0, 100, upto=99) == ([1, 2, 3, 4, 5, 6, 7], 7)
        assert await page(7, 100) == ([], 7)
        assert await page(0, 100, kinds=("command", "saga")) == ([2, 4], 7)
        assert await page(0, 1, kinds=("command", "saga")) == ([2], 2)
        assert await page(4, 100, kinds=("command",), upto=6) == ([], 6)
        assert await page(0, 100, types=("stock.Moved.v1",)) == ([7], 7)
        assert await page(0, 100, types=("stock.Reserve.v1", "no"), kinds=("saga",)) == ([4], 7)
        assert await page(1, 100, destination="payment", kinds=("event",)) == ([3, 5, 6], 7)
        assert await page(0, 2, destination="payment") == ([1, 2], 2)
        assert await page(0, 100, destination="nobody") == ([], 7)

    async def test_a_stream_loads_as_it_is_and_as_it_was(self, store: Store) -> None:
        """`load` gives the versioned records in order, up to a position when asked; absent streams are empty."""
        await store.commit([append("A/1", 0, 3), append("B/1", 0), Batch((event("A/1"),)), append("A/1", 3)])

        async def load(*streams: str, upto: int = 0) -> list[list[tuple[int, int]]]:
            found = await store.load(streams, upto=upto)
            return [[(record.position, record.version) for record in loaded.records] for loaded in found]

        assert await load("B/1", "no", "A/1") == [[(4, 1)], [], [(1, 1), (2, 2), (3, 3), (6, 4)]]
        assert await load("A/1", "B/1", upto=2) == [[(1, 1), (2, 2)], []]
        assert await load() == []

    async def test_a_snapshot_stands_for_what_is_before_it(self, store: Store) -> None:
        """With a snapshot only later records come; not when none is wanted, nor if a position is asked for."""
        snapshot = Snapshot(2, "shape", msgspec.Raw(b'{"n":2}'))
        await store.commit([append("A/1", 0, 4), Batch(rows=(Row("snapshot", "A/1", msgspec.json.encode(snapshot)),))])

        async def load(upto: int = 0, snapshots: bool = True) -> tuple[int, list[int]]:
            (found,) = await store.load(["A/1"], upto=upto, snapshots=snapshots)
            if found.snapshot:
                assert (bytes(found.snapshot.data), found.snapshot.shape) == (b'{"n":2}', "shape")
            return found.snapshot.version if found.snapshot else 0, [record.version for record in found.records]

        assert await load() == (2, [3, 4])
        assert await load(snapshots=False) == (0, [1, 2, 3, 4])
        assert await load(upto=3) == (0, [1, 2, 3])
        assert await load(upto=1) == (0, [1])

    async def test_what_is_related_is_found(self, store: Store) -> None:
        """By transaction, by label, by stream: all records in log order, rejections of version 0 too (G7)."""
        label = msgspec.structs.replace(event("B/1", 1, tx="u"), correlation="label")
        rejected = msgspec.structs.replace(event("A/1", tx="u", kind="answer"), correlation="label")
        await store.commit([Batch((event("A/1", 1), label, rejected, event("A/1", 2, tx="u"), event("A/10", 1)))])

        async def positions(**which: object) -> list[int]:
            return [record.position for record in await store.related(**which)]  # type: ignore[arg-type]

        assert await positions(tx="u") == [2, 3, 4] and await positions(tx="u", limit=2) == [2, 3]
        assert await positions(correlation="label") == [2, 3] and await positions(correlation="la") == []
        assert await positions(stream="A/1") == [1, 3, 4] and await positions(stream="A/1", limit=2) == [1, 3]

    async def test_order_is_by_utf8_bytes(self, store: Store) -> None:
        """`scan` and `streams` go by UTF-8 bytes; `prefix` and `after` mean bytes too, wildcards mean nothing."""
        keys = [*ORDERED, "%", "_", "*", "a%b"]
        rows = Batch(rows=tuple(Row("view", key, b"1") for key in reversed(keys)))
        streams = [append(key, 0, 2) for key in keys if key]
        await store.commit([rows, *streams, Batch((event("rejected/only"),))])
        ordered = sorted(keys, key=str.encode)
        for prefix in ["", "a", "a/", "a/\U0010ffff", "%", "_", "é", "\U0001f600", "no"]:
            for after in ["", "a", "a/1", "a/ﬀ", "\U0010ffff"]:
                want = [key for key in ordered if key.startswith(prefix) and key > after]
                assert [key for key, _ in await store.scan("view", prefix=prefix, after=after)] == want
                assert await store.streams(prefix, after=after) == [(key, 2) for key in want]
        assert [key for key, _ in await store.scan("view", after="", limit=3)] == ordered[1:4]
        assert await store.streams("", limit=2) == [(key, 2) for key in ordered[1:3]]

    async def test_readers_race_committers(self, store: Store) -> None:
        """64 readers and 8 committers at once: no reader sees a gap, a reorder, or half a batch (G2)."""
        assert await race(store, groups=40) > 0

    async def test_a_hundred_thousand_records(self, store: Store) -> None:
        """10^5 records on 500 streams: each once, in order, in the log and in its stream; pages, counts and all."""
        for group in range(100):
            batches = [append(f"S/{n:03}", group * 2, 2) for n in range(500)]
            assert await store.commit(batches) == [Committed(group * 1000 + 2 * n + 1) for n in range(500)]
        assert [record.position for record in await everything(store, 5000)] == list(range(1, 100_001))
        assert await store.streams("S/", after="S/497") == [("S/498", 200), ("S/499", 200)]
        for one in await store.load([f"S/{n:03}" for n in range(500)]):
            assert [record.version for record in one.records] == list(range(1, 201))

    async def test_each_opening_is_an_incarnation(self, tmp_path: Path) -> None:
        """Each opening begins an incarnation at the next position; all it held is there, and it goes on from there."""
        store = await self.make(tmp_path)
        opened = await store.open("one", 1)
        assert (opened.head, opened.incarnations) == (0, (Incarnation("one", 1),))
        await store.commit([append("A/1", 0, 3), Batch(moves=(Move("c", 0, Cursor("i", 7)),))])
        before = await everything(store)
        store = await self.reopen(store)
        opened = await store.open("two", 2)
        assert (opened.head, opened.incarnations) == (3, (Incarnation("one", 1), Incarnation("two", 4)))
        assert await everything(store) == before and await store.cursors() == {"c": Cursor("i", 7)}
        moved = Batch((event("A/1", 4),), (("A/1", 3),), (Move("c", 7, Cursor("i", 8)),))
        assert await store.commit([append("A/1", 2), moved]) == [Conflict("A/1", 2, 3), Committed(4)]
        await store.close()

    async def test_a_leap_bridges_the_gap(self, store: Store) -> None:
        """After a leap positions go on at `first`; the gap is recorded, also over a reopening without any commit."""
        await store.commit([append("A/1", 0, 2)])
        for first in (0, 2):
            with pytest.raises(LimitExceeded):
                await store.leap("bad", 2, first)
        opened = await store.leap("two", 2, 100)
        one, two = Incarnation("one", 1), Incarnation("two", 100, bridged=99)
        assert (opened.head, opened.incarnations) == (99, (one, two))
        store = await self.reopen(store)
        opened = await store.open("three", 3)
        assert (opened.head, opened.incarnations) == (99, (one, two, Incarnation("three", 100)))
        assert (await store.read(2, 10)) == Page((), 99)
        assert await store.commit([append("A/1", 2, 2)]) == [Committed(100)]
        assert [record.position for record in await everything(store)] == [1, 2, 100, 101]
        await store.close()

    async def test_clear_removes_by_prefix_and_nothing_else(self, store: Store) -> None:
        """`clear` removes the rows and cursors of a view's old generation, for good; an empty prefix is refused."""
        names = ["view:v@1:a", "view:v@1:b", "view:v@10:a", "view:v@2:a", "w"]
        rows = [Row("view", key, b"1") for key in ("v@1/a", "v@1/\U0010ffff", "v@10/a", "v@2/a")]
        moves = tuple(Move(name, 0, Cursor("i", 3)) for name in names)
        await store.commit([Batch(moves=moves, rows=(*rows, Row("timer", "v@1/a", b"1")))])
        await store.clear("view", "v@1/", "view:v@1:")
        store = await self.reopen(store)
        await store.open("two", 2)
        assert [key for key, _ in await store.scan("view")] == ["v@10/a", "v@2/a"]
        assert [key for key, _ in await store.scan("timer")] == ["v@1/a"]
        assert sorted(await store.cursors()) == ["view:v@10:a", "view:v@2:a", "w"]
        assert await store.commit([Batch(moves=(Move("view:v@1:a", 0, Cursor("i", 1)),))]) == [Committed(1)]
        for prefix, cursor_prefix in (("", "x"), ("x", "")):
            with pytest.raises(ValueError, match="prefix"):
                await store.clear("view", prefix, cursor_prefix)
        await store.close()

    async def test_a_backup_is_consistent_or_refused(self, store: Store, tmp_path: Path) -> None:
        """With the capability: a copy, while commits go on, never over what is there. Without it: a refusal."""
        await store.commit([append("A/0", 0, 2)])
        target = tmp_path / "copy"
        if not store.capabilities.backup:
            with pytest.raises(StoreError, match="backup"):
                await store.backup(target)
            return
        running = asyncio.create_task(store.backup(target))
        for n in range(1, 50):
            await store.commit([append(f"A/{n}", 0, 2)])
        await running
        assert target.stat().st_size > 0
        with pytest.raises(StoreError):
            await store.backup(target)
        assert len(await everything(store)) == 100

    async def test_a_transaction_is_lent_or_refused(self, store: Store) -> None:
        """With the capability: batches are committed within it, all or none (G1). Without it: a refusal."""
        if not store.capabilities.transactions:
            with pytest.raises(StoreError):
                await store.begin()
            assert not store.capabilities.engine
            return
        assert store.capabilities.engine
        await store.commit([append("A/0", 0)])
        lent = await store.begin()
        await lent.mark()
        batches = [append("A/0", 1, 2), Batch(rows=(Row("request", "k", b"1", fresh=True),)), append("A/1", 0)]
        assert await store.commit(batches, within=lent) == [Committed(2), Committed(4), Committed(4)]
        await lent.end()
        await lent.end()
        bad = Batch((event("A/2", 1),), (("A/2", 0),), (), (Row("request", "k", b"2", fresh=True),))
        refusals = [
            ([append("A/3", 0), append("A/0", 1)], Conflict("A/0", 1, 3)),
            ([append("A/3", 0), bad], Duplicate("request", "k", b"1")),
        ]
        for refused, why in refusals:
            lent = await store.begin()
            await lent.mark()
            outcomes = await store.commit(refused, within=lent)
            assert outcomes == [Committed(5), why]
            await lent.end()
        lent = await store.begin()
        await lent.mark()
        await lent.undo()
        await lent.end()
        with pytest.raises(StoreError):
            await store.commit([append("A/4", 0)], within=lent)
        store = await self.reopen(store)
        await store.open("two", 2)
        assert [record.stream for record in await everything(store)] == ["A/0", "A/0", "A/0", "A/1"]
        assert await store.commit([append("A/3", 0)]) == [Committed(5)]
        await store.close()

    async def test_a_closed_store_refuses(self, store: Store, tmp_path: Path) -> None:
        """Use after close is a StoreError, never a hang; closing twice, or what never opened, is fine."""
        await (await self.make(tmp_path)).close()
        await store.close()
        await store.close()
        with pytest.raises(StoreError):
            await store.commit([append("A/1", 0)])
        with pytest.raises(StoreError):
            await store.read(0, 1)
