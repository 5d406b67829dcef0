"""The stores on PostgreSQL and MariaDB are stores, and what only they can meet: servers that are killed, connections
that are cut in the middle of a commit, a log that another process takes over, engines that would lose a commit.

Real servers, started and killed by the tests. `Wire` cuts a connection at a chosen byte.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.app import call
from holdfast.compose import make_store
from holdfast.core.log.batch import Batch, Committed, Conflict, Cursor, Duplicate, Move, Row
from holdfast.errors import (
    ConfigInvalid,
    SchemaNewer,
    StoreError,
    StoreFailed,
    StoreForeign,
    StoreLocked,
    StoreMismatch,
)
from holdfast.ports.store import Store
from holdfast.stores.server.migrations import Migration
from holdfast.testing.conformance.records import append, event, everything
from holdfast.testing.conformance.store import StoreConformance
from support.servers import ENGINES, OwnServers, Server, database, shared
from support.wire import Wire


@pytest.fixture(params=list(ENGINES))
def server(request: pytest.FixtureRequest) -> Server:
    """The server of this run."""
    return shared(request.param)


@pytest.fixture(params=list(ENGINES))
def own_server(request: pytest.FixtureRequest, own_servers: OwnServers) -> Server:
    """A server that may be killed."""
    return own_servers.of(request.param)


class TestServerStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.server, self.name = server, database()

    async def make(self, folder: Path) -> Store:
        return make_store(self.server.url(self.name), "stock")

    async def reopen(self, store: Store) -> Store:
        await store.close()
        return make_store(self.server.url(self.name), "stock")


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    """A way to the server that can be cut."""
    async with Wire(server) as found:
        yield found


def full(number: int, marked: str = "") -> Batch:
    """A batch with something of everything: its record, a cursor's move, a row, a fresh row."""
    return Batch(
        (event(f"A/{number}", 1, data=f'"{number}{marked}"'.encode()),), ((f"A/{number}", 0),),
        (Move("c", number - 1, Cursor("i", number)),),
        (Row("view", "last", b"%d" % number), Row("request", f"r{number}", b"%d" % number, fresh=True)),
    )  # fmt: skip


async def whole(store: Store) -> int:
    """How many of those batches are there, each whole and once."""
    records = await everything(store)
    numbers = [int(record.data.strip(b'"').split(b"-")[0]) for record in records]
    last = len(records)
    assert numbers == list(range(1, last + 1)), "one is missing, or there twice"
    assert [record.position for record in records] == numbers
    assert (await store.cursors()).get("c", Cursor()).position == last
    assert await store.get("view", ["last"]) == [b"%d" % last if last else None]
    assert [key for key, _ in await store.scan("request", limit=10_000)] == sorted(f"r{n}" for n in numbers)
    return last


@pytest.mark.parametrize("moment", ["cut_before", "cut_after", "cut_late"])
async def test_a_commit_that_is_cut_off_is_found_out(server: Server, wire: Wire, moment: str) -> None:
    """G8: the connection breaks before the group has left, after it was committed, or while the server has yet to get
    it: in each case the commit says what is so, and the group is there once."""
    store = make_store(wire.url(name := database()), "stock")
    await store.open("one", 1)
    try:
        assert await store.commit([full(1)]) == [Committed(1)]
        setattr(wire, moment, b"2-marked")
        assert await store.commit([full(2, "-marked"), full(3)]) == [Committed(2), Committed(3)]
        assert wire.cuts == 1
        assert await whole(store) == 3
        moves = Batch(moves=(Move("c", 3, Cursor("cut-here", 4)),))
        setattr(wire, moment, b"cut-here")
        assert await store.commit([moves]) == [Committed(4)], "a group without a record is found out too"
        assert (await store.cursors())["c"] == Cursor("cut-here", 4) and wire.cuts == 2
    finally:
        await store.close()
    again = make_store(server.url(name), "stock")
    await again.open("two", 2)
    assert len(await everything(again)) == 3 and (await again.cursors())["c"] == Cursor("cut-here", 4)
    await again.close()


@pytest.mark.parametrize(("moment", "head"), [("cut_before", 1), ("cut_after", 3)])
async def test_while_the_outcome_is_unknown_nothing_is_said(
    own_server: Server, moment: str, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G2, G8: with the server gone in a commit everything is refused, reads too, whether the group is there or not;
    when the server is back that is found out, and only then is anything said."""
    async with Wire(own_server) as wire:
        store = make_store(wire.url(database()), "stock")
        await store.open("one", 1)
        await store.commit([full(1)])
        setattr(wire, moment, b"2-marked")
        wire.then = own_server.kill
        monkeypatch.setattr("holdfast.stores.server.writer.SETTLE_SECONDS", 0.2)
        try:
            for refused in (
                store.commit([full(2, "-marked"), full(3)]), store.read(0, 1), store.get("view", ["last"]),
                store.cursors(), store.recover(), store.commit([full(4)]),
            ):  # fmt: skip
                with pytest.raises(StoreFailed, match="cannot be reached"):
                    await refused
        finally:
            await asyncio.to_thread(own_server.start)
        monkeypatch.undo()
        assert await store.recover() == head and await whole(store) == head
        assert await store.commit([full(head + 1)]) == [Committed(head + 1)]
        await store.close()


async def settled(store: Store, killing: "asyncio.Future[None]") -> int:
    """The head, once the server answers again; raises what ended the killing, if it failed."""
    while True:
        if killing.done():
            await killing
        try:
            return await store.recover()
        except StoreFailed:
            await asyncio.sleep(0.02)


async def test_a_server_killed_again_and_again_loses_nothing(own_server: Server) -> None:
    """G1, G8: twelve SIGKILLs of the server under commits: what was acknowledged is there, each batch whole, once."""
    store = make_store(own_server.url(database()), "stock")
    await store.open("one", 1)
    chance, done, failed = random.Random(7), 0, 0

    async def kill() -> None:
        for _ in range(12):
            await asyncio.sleep(0.02 + chance.random() / 10)
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)

    killing = asyncio.ensure_future(kill())
    while not killing.done():
        try:
            outcomes = await store.commit([full(number) for number in range(done + 1, done + 6)])
        except StoreFailed:
            failed += 1
            head = await settled(store, killing)
            assert head in (done, done + 5), "a group is there whole or not at all"
            done = head
            continue
        assert outcomes == [Committed(number) for number in range(done + 1, done + 6)]
        done += 5
    await killing
    assert await whole(store) == done > 100
    await store.close()


async def test_a_second_writer_is_refused_with_the_holder_named(server: Server) -> None:
    """One process writes a log: another is told who has it; when it is gone the other takes over at once."""
    name = database()
    one, two = make_store(server.url(name), "stock"), make_store(server.url(name), "stock")
    await one.open("one", 1)
    with pytest.raises(StoreLocked, match=r"(process \d+ on|connection \d+ from)"):
        await two.open("two", 2)
    await one.commit([full(1)])
    await one.close()
    opened = await two.open("two", 2)
    assert opened.head == 1 and [found.id for found in opened.incarnations] == ["one", "two"]
    await two.close()


async def test_who_lost_the_log_can_change_nothing(server: Server, wire: Wire) -> None:
    """G2: a writer whose connection was cut, and whose log another process has taken over meanwhile, is told so."""
    name = database()
    one: Any = make_store(wire.url(name), "stock")
    two = make_store(server.url(name), "stock")
    await one.open("one", 1)
    await one.commit([full(1)])
    await one.engine.disconnect(one.writer.connection)
    await two.open("two", 2)
    await two.commit([full(2)])
    with pytest.raises(StoreError, match=r"(writes to|begun to write to) the log"):
        await one.commit([full(2, "-lost")])
    await two.close()
    with pytest.raises(StoreLocked, match="another process has begun to write"):
        await one.commit([full(2, "-lost")])
    with pytest.raises(StoreLocked):
        await one.read(0, 10)
    await one.close()


async def test_the_fence_alone_keeps_a_second_writer_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """G2: with the lock gone, and the connection standing, a writer that is not in the row `head` changes nothing."""
    name = database()
    one = make_store(server.url(name), "stock")
    two: Any = make_store(server.url(name), "stock")
    await one.open("one", 1)
    await one.commit([full(1)])

    async def free(_: object) -> None:
        return None

    monkeypatch.setattr(two.engine, "lock", free)
    await two.open("two", 2)
    for lost in ([full(2, "-lost")], [Batch(rows=(Row("view", "last", b"lost"),))]):
        with pytest.raises(StoreLocked, match="another process has begun to write"):
            await one.commit(lost)
    assert await two.commit([full(2)]) == [Committed(2)] and await whole(two) == 2
    await one.close()
    await two.close()


async def test_half_a_group_is_never_committed_by_who_looks_for_it(server: Server) -> None:
    """G1: a group that waited too long for a row stands half done on its connection. Who looks for it while that goes
    does not meet it, where the beginning of a transaction would commit the half."""
    if server.name != "mariadb":
        pytest.skip("a group is one statement there: it cannot stand half done")
    store: Any = make_store(server.url(database()), "stock")
    await store.open("one", 1)
    await store.commit([full(1)])
    engine, disconnect = store.engine, store.engine.disconnect
    other = await engine.connect(writer=False)
    looking: list[asyncio.Future[int]] = []

    async def slowly(connection: Any) -> None:
        looking.append(asyncio.ensure_future(store.recover()))
        await asyncio.sleep(0.1)
        await engine._say(other, "ROLLBACK")
        await disconnect(connection)

    await engine._say(store.writer.connection, "SET innodb_lock_wait_timeout = 1")
    await engine._say(other, "START TRANSACTION; UPDATE small SET bytes = '' WHERE name = 'last'")
    engine.disconnect = slowly
    try:
        assert await store.commit([full(2)]) == [Committed(2)]
        assert await asyncio.gather(*looking) == [1], "nothing of it was there when it was looked for"
        assert await whole(store) == 2
    finally:
        engine.disconnect = disconnect
        await disconnect(other)
        await store.close()


async def test_a_store_that_is_closed_keeps_no_connection(server: Server) -> None:
    """A transaction that is lent, and a question that is asked, when the store closes: their connections go too."""
    store: Any = make_store(server.url(database()), "stock")
    await store.open("one", 1)
    engine, made = store.engine, list[Any]()
    connect, query = engine.connect, engine.query

    async def connected(**named: Any) -> Any:
        made.append(await connect(**named))
        return made[-1]

    async def slowly(*asked: Any) -> Any:
        found = await query(*asked)
        answered.set()
        await closing
        return found

    engine.connect = connected
    lent = await store.begin()
    answered, closing = asyncio.Event(), asyncio.get_running_loop().create_future()
    engine.query = slowly
    asking = asyncio.ensure_future(store.get("view", ["last"]))
    await answered.wait()
    engine.query = query
    await store.close()
    closing.set_result(None)
    assert await asking == [None]
    await lent.end()
    assert len(made) == 2
    assert [getattr(one, "closed", None) or not getattr(one, "connected", True) for one in made] == [True, True]


async def test_what_is_read_waits_for_the_commit_that_it_may_have_seen(wire: Wire, server: Server) -> None:
    """G8: where an engine shows a commit before it is on the disk, a row of it is handed out after the commit only."""
    store: Any = make_store(wire.url(database()), "stock")
    await store.open("one", 1)
    await store.commit([full(1)])
    await store.get("view", ["last"])
    wire.hold = b"2-marked"
    ended: list[str] = []
    committing = asyncio.ensure_future(store.commit([full(2, "-marked")]))
    committing.add_done_callback(lambda _: ended.append("commit"))
    await asyncio.sleep(0.2)  # it is there by now, and its answer is held back
    row = await store.get("view", ["last"])
    ended.append("read")
    await committing
    assert row == [b"2"]
    assert ended == (["commit", "read"] if server.name == "mariadb" else ["read", "commit"])
    await store.close()


async def test_what_memory_does_not_know_is_looked_up(server: Server) -> None:
    """Versions and fresh rows of an earlier process are conflicts and duplicates, as they must be, in any mixture."""
    name = database()
    store = make_store(server.url(name), "stock")
    await store.open("one", 1)
    await store.commit([append("A/1", 0, 3), append("A/2", 0), Batch(rows=(Row("request", "k", b"first"),))])
    await store.close()
    store = make_store(server.url(name), "stock")
    await store.open("two", 2)
    again = Row("request", "k", b"again", fresh=True)
    outcomes = await store.commit([
        append("A/1", 2), append("A/1", 3), append("A/2", 0), Batch(rows=(again,)), append("A/9", 0),
        Batch(reads=(("A/2", 1),), rows=(Row("request", "new", b"1", fresh=True), Row("request", "new", None))),
    ])  # fmt: skip
    assert outcomes == [
        Conflict("A/1", 2, 3), Committed(5), Conflict("A/2", 0, 1), Duplicate("request", "k", b"first"), Committed(6),
        Committed(7),
    ]  # fmt: skip
    await store.close()
    store = make_store(server.url(name), "stock")
    await store.open("three", 3)
    reads = [Batch(reads=(("A/1", 3),)), Batch(reads=(("A/2", 1), ("A/1", 4)), rows=(Row("view", "v", b"1"),))]
    assert await store.commit(reads) == [Conflict("A/1", 3, 4), Committed(7)], "where nothing is appended, too"
    gone = Row("request", "k", b"2", fresh=True), Row("request", "k", None)
    assert await store.commit([Batch(rows=gone)]) == [Duplicate("request", "k", b"first")]
    await store.close()


async def test_versions_that_do_not_follow_fail_the_group(server: Server) -> None:
    """A batch whose records do not continue what it read is refused by the unique index, and nothing is there."""
    store = make_store(server.url(database()), "stock")
    await store.open("one", 1)
    await store.commit([append("A/1", 0, 2)])
    with pytest.raises(StoreFailed, match="versions"):
        await store.commit([append("A/2", 0), Batch((event("A/1", 2),), (("A/1", 2),))])
    assert await store.commit([append("A/1", 2)]) == [Committed(3)]
    await store.close()


async def test_another_log_and_what_is_not_ours_are_refused(server: Server) -> None:
    """The store of another service, of a later release, and tables of somebody else's are named and left alone."""
    name = database()
    store: Any = make_store(server.url(name), "stock")
    await store.open("one", 1)
    await store.close()
    with pytest.raises(StoreMismatch, match="'stock'"):
        await make_store(server.url(name), "order").open("two", 2)
    await store.open("two", 2)
    await say(store, "UPDATE meta SET value = '99' WHERE name = 'needs'")
    await store.close()
    with pytest.raises(SchemaNewer, match="99"):
        await store.open("three", 3)
    other: Any = make_store(server.url(database()), "stock")
    await other.open("one", 1)
    await say(other, "DROP TABLE meta")
    await other.close()
    with pytest.raises(StoreForeign, match="log"):
        await other.open("two", 2)


async def say(store: Any, statement: str) -> None:
    """A statement on the writer's connection."""
    await store.engine._say(store.writer.connection, statement)


async def test_tables_are_migrated_while_the_service_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expand, then contract: old code runs on expanded tables, new code refuses old tables and says what to do, two
    migrations at once are one, and after the contraction old code is refused."""
    name, adds = database(), "ALTER TABLE log ADD COLUMN IF NOT EXISTS note varchar(10)"
    two = Migration(2, {"postgres": adds, "mysql": adds}, {"postgres": "SELECT 1", "mysql": "DO 1"})

    def made() -> Any:
        return make_store(server.url(name), "stock")

    told = await asyncio.to_thread(call, ["migrate-store", "stock", "--store", server.url(name), "--json"])
    assert told == 0 and await made().migrate() == (1, 1), "absent tables are made, once"
    old = made()
    await old.open("one", 1)
    await old.commit([full(1)])
    monkeypatch.setattr("holdfast.stores.server.migrations.MIGRATIONS", [two])
    with pytest.raises(StoreError, match="run holdfast migrate-store"):
        await made().open("two", 2)
    assert await asyncio.gather(made().migrate(), made().migrate()) == [(2, 1), (2, 1)]
    await old.commit([full(2)])
    monkeypatch.undo()
    await old.close()
    await old.open("two", 2)
    await old.commit([full(3)])
    assert await whole(old) == 3, "old code on the new tables"
    await old.close()
    monkeypatch.setattr("holdfast.stores.server.migrations.MIGRATIONS", [two])
    assert await made().migrate(contract=True) == (2, 2)
    new = made()
    await new.open("three", 3)
    await new.commit([full(4)])
    assert await whole(new) == 4
    await new.close()
    monkeypatch.undo()
    with pytest.raises(SchemaNewer, match="needs schema"):
        await made().open("four", 4)


@pytest.mark.parametrize(
    ("engine", "setting", "value"),
    [("postgres", "fsync", "off"), ("postgres", "synchronous_commit", "off"),
     ("mariadb", "innodb-flush-log-at-trx-commit", "2")],
)  # fmt: skip
async def test_an_engine_that_would_lose_a_commit_is_refused(
    engine: str, setting: str, value: str, own_servers: OwnServers
) -> None:
    """G8: durability is looked at when a store opens; only a URL that says so gets a server without it."""
    found = own_servers.of(engine)
    url = found.url(database())

    def again() -> None:
        found.kill()
        found.start()

    found.settings[setting] = value
    await asyncio.to_thread(again)
    try:
        with pytest.raises(StoreFailed, match=setting.replace("-", "_")):
            await make_store(url, "stock").open("one", 1)
        store = make_store(url + ("&" if "?" in url else "?") + "unsafe=true", "stock")
        await store.open("one", 1)
        await store.close()
    finally:
        del found.settings[setting]
        await asyncio.to_thread(again)


async def test_a_url_that_cannot_work_is_refused_without_its_password() -> None:
    """G10: a bad URL, or a server that is not there, is named in one sentence, and no password is in it."""
    for url in (
        "mysql://u:pa55word@/x",
        "mysql://u:pa55word@h/x?ssl=maybe",
        "postgresql://u:pa55word@h:x/y?no=1",
        "db://u:pa55word@h/x",
    ):
        with pytest.raises((ConfigInvalid, ValueError)) as refused:
            make_store(url, "stock")
        assert "pa55word" not in str(refused.value)
    for url in ("mysql://u:pa55word@127.0.0.1:1/x", "postgresql://u:pa55word@127.0.0.1:1/x"):
        with pytest.raises(StoreFailed, match="cannot be reached") as failed:
            await make_store(url, "stock").open("one", 1)
        assert "pa55word" not in str(failed.value)
