"""Handlers: commands decided in the store's own transaction, beside tables of the team's own, on every engine."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.orm.attributes import flag_modified

from holdfast import (
    Client,
    Command,
    Contract,
    Event,
    LocalTransaction,
    Rejected,
    Rejection,
    Running,
    Service,
    System,
    answer,
    decide,
    pivot,
    start,
    step,
    undo,
)  # fmt: skip
from holdfast.core.log.record import Record
from holdfast.errors import CommandFailed, ConfigInvalid, Misuse, Pending, StoreFailed, TransactionRefused, Unavailable
from holdfast.runtime.edge.commands import Outcome
from holdfast.runtime.ops.status import progress
from holdfast.sqlalchemy import joined
from support.servers import ENGINES, OwnServers, Server, database, shared
from support.wire import Wire

till = Contract("till")
desk = Contract("desk")
NAMES = count(1)


@till.event
class Charged(Event):
    order: str
    amount: int


@till.event
class Noted(Event):
    text: str


@till.event
class Refunded(Event):
    order: str


@till.command(key="account")
class Refund(Command[Refunded]):
    account: str
    order: str
    amount: int


@till.command(key="account")
class Charge(Command[Charged]):
    account: str
    order: str
    amount: int = 1
    how: str = ""


@desk.event
class Bought(Event):
    order: str


@desk.command(key="order")
class Buy(Command[Bought]):
    order: str
    account: str
    amount: int = 1


@desk.event
class Shipped(Event):
    order: str


@desk.command(key="order")
class Ship(Command[Shipped]):
    order: str


Body = Callable[[Charge, LocalTransaction], Awaitable[None]]


async def say(tx: LocalTransaction, sql: str, *values: Any) -> list[Any]:
    """A statement on a handler's connection; placeholders are ?."""
    if tx.engine == "sqlite":
        return list(tx.connection.execute(sql, values))
    if tx.engine == "postgres":
        found = await tx.connection.execute(sql.replace("?", "%s"), values)
        return await found.fetchall() if found.description else []
    async with tx.connection.cursor() as cursor:
        await cursor.execute(sql.replace("?", "%s"), values)
        return list(await cursor.fetchall())


async def pay(command: Charge, tx: LocalTransaction) -> None:
    """A row of the team's own for one charge, and the account's sum."""
    await say(tx, "INSERT INTO paid (order_id, amount) VALUES (?, ?)", command.order, command.amount)
    await say(tx, "UPDATE account SET balance = balance - ? WHERE name = ?", command.amount, command.account)


def service(body: Body = pay, *, seconds: float = 10.0) -> Service:
    """A till whose handler does what `body` does."""
    found = Service(till)

    @found.handle(seconds=seconds)
    async def charge(command: Charge, tx: LocalTransaction) -> Charged:
        await body(command, tx)
        tx.emit(Noted(f"for {command.order}"))
        return Charged(command.order, command.amount)

    @found.handle
    async def refund(command: Refund, tx: LocalTransaction) -> Refunded:
        await say(tx, "DELETE FROM paid WHERE order_id = ?", command.order)
        await say(tx, "UPDATE account SET balance = balance + ? WHERE name = ?", command.amount, command.account)
        return Refunded(command.order)

    return found


@pytest.fixture(params=["sqlite", *ENGINES])
def server(request: pytest.FixtureRequest) -> Server | None:
    """The server of this run; None for SQLite."""
    return None if request.param == "sqlite" else shared(request.param)


class Place:
    """A store of its own, and the tables of the team in it."""

    def __init__(self, url: str, engine: str = "", folder: Path = Path()) -> None:
        self.url, self.engine, self.folder = url, engine, folder

    @contextlib.asynccontextmanager
    async def running(self, what: Service | System) -> AsyncIterator[Running]:
        """The service at work."""
        stores = {"till": self.url}
        others = {} if isinstance(what, Service) else {"store": "memory:"}
        async with start(what, stores=stores, **others) as found:
            yield found

    async def tell(self, *statements: str) -> list[Any]:
        """Statements in a transaction of their own, through a handler: the rows of the last."""
        found: list[Any] = []

        async def body(command: Charge, tx: LocalTransaction) -> None:
            nonlocal found
            for sql in statements:
                found = await say(tx, sql)

        async with self.running(service(body)) as running:
            await client(running).send(Charge("setup", f"s{next(NAMES)}"))
        return found

    async def paid(self) -> dict[str, int]:
        return dict(await self.tell("SELECT order_id, amount FROM paid ORDER BY order_id"))

    async def balance(self) -> int:
        return int((await self.tell("SELECT balance FROM account WHERE name = 'a'"))[0][0])


@pytest.fixture
async def place(server: Server | None, tmp_path: Path) -> Place:
    """An empty store with two tables of the team's own."""
    name = database()
    engine = server.name if server is not None else "sqlite"
    found = Place(server.url(name) if server is not None else f"sqlite:{tmp_path}/", engine, tmp_path)
    if server is not None and server.name == "mariadb":
        await made(server, name)
    else:
        await found.tell(*TABLES)
    return found


TABLES = (
    "CREATE TABLE paid (order_id VARCHAR(50) PRIMARY KEY, amount BIGINT NOT NULL)",
    "CREATE TABLE account (name VARCHAR(50) PRIMARY KEY, balance BIGINT NOT NULL)",
    "INSERT INTO account VALUES ('a', 100), ('b', 100)",
)


async def made(server: Server, name: str) -> None:
    """The tables on MariaDB, where making one commits by itself: not in a handler."""
    import asyncmy

    connection = await asyncmy.connect(host="127.0.0.1", port=server.port, user="holdfast", password="secret")
    async with connection.cursor() as cursor:
        for sql in (f"CREATE DATABASE {name}", f"USE {name}", *TABLES, "COMMIT"):
            await cursor.execute(sql)
    await connection.ensure_closed()


def client(running: Running) -> Client:
    return Client.of(running)


async def log(running: Running) -> list[Record]:
    """The till's log."""
    return list((await running.nodes["till"].store.read(0, 10_000)).records)


async def test_what_a_handler_did_and_what_it_emitted_are_one_commit(place: Place) -> None:
    """G1: the rows and the events are there together, with the events in order on the handler's stream."""
    async with place.running(service()) as running:
        before = len(await log(running))
        outcome = await client(running).send(Charge("a", "o1", 30), key="k1")
        assert outcome.answer == Charged("o1", 30)
        records = (await log(running))[before:]
        assert [(one.type, one.stream, one.version) for one in records] == [
            ("till.noted.v1", "charge/a", 1), ("till.charged.v1", "charge/a", 2),
        ]  # fmt: skip
        assert records[1].position == outcome.position and records[1].headers.outcome
    assert await place.paid() == {"o1": 30} and await place.balance() == 70


async def test_a_no_is_recorded_and_what_the_handler_did_is_not(place: Place) -> None:
    """G1, G3: a rejection leaves its record and its events, and nothing of the handler's work; again it is the same."""

    async def body(command: Charge, tx: LocalTransaction) -> None:
        await pay(command, tx)
        ((balance,),) = await say(tx, "SELECT balance FROM account WHERE name = ?", command.account)
        if balance < 0:
            raise Rejected("broke", "not enough", balance=int(balance), events=(Noted("tried"),))

    async with place.running(service(body)) as running:
        for _ in range(2):
            outcome = await client(running).send(Charge("a", "o1", 130), key="k1")
            assert outcome.answer == Rejection("broke", "not enough", {"balance": -30})
        accepted = await client(running).send(Charge("a", "o1", 40), key="k2")
        assert accepted.answer == Charged("o1", 40)
        types = [(one.type, one.version) for one in await log(running) if one.stream == "charge/a"]
        assert types == [
            ("till.noted.v1", 1), ("holdfast.rejected", 0), ("till.noted.v1", 2), ("till.charged.v1", 3),
        ]  # fmt: skip
    assert await place.paid() == {"o1": 40} and await place.balance() == 60


async def test_a_handler_that_fails_leaves_nothing(place: Place) -> None:
    """G1: it raises, it returns nonsense, it takes too long, its SQL fails: nothing is there, and the key is free."""
    kept: list[LocalTransaction] = []

    async def body(command: Charge, tx: LocalTransaction) -> None:
        await pay(command, tx)
        kept.append(tx)
        if command.how == "raises":
            raise RuntimeError("a bug")
        if command.how == "sleeps":
            await asyncio.sleep(30)
        if command.how == "sql":
            await say(tx, "INSERT INTO paid (order_id, amount) VALUES (?, ?)", command.order, 1)
        if command.how == "swallows":
            with contextlib.suppress(Exception):
                await say(tx, "SELECT * FROM nowhere")
        if command.how == "emits":
            tx.emit("nonsense")  # type: ignore[arg-type]

    async with place.running(service(body, seconds=0.3)) as running:
        before = len(await log(running))
        ways = ("raises", "sleeps", "sql", "emits")
        for how in ways:
            with pytest.raises(CommandFailed, match="took longer" if how == "sleeps" else None):
                await client(running).send(Charge("a", f"o-{how}", 10, how), key="k")
        # PostgreSQL ends a transaction with its first failing statement; the others go on. Neither is half done.
        with contextlib.suppress(CommandFailed):
            await client(running).send(Charge("b", "o-swallows", 10, "swallows"))
        assert len(await log(running)) in (before, before + 2)
        swallowed = len(await log(running)) - before
        assert await client(running).run(Charge("a", "o2", 10), key="k") == Charged("o2", 10)
        with pytest.raises(CommandFailed, match="has ended"):
            _ = kept[0].connection
        with pytest.raises(CommandFailed, match="has ended"):
            kept[0].emit(Noted("late"))
    assert set(await place.paid()) == {"o2"} | ({"o-swallows"} if swallowed else set())
    assert await place.balance() == 90


async def test_the_transaction_is_not_the_handlers_to_end(place: Place) -> None:
    """G1: neither commit nor rollback, by method or by SQL, leaves half of a command."""

    async def body(command: Charge, tx: LocalTransaction) -> None:
        await pay(command, tx)
        if command.how == "method" and tx.engine != "sqlite":
            await tx.connection.commit()
        elif command.how in ("COMMIT", "ROLLBACK", "method"):
            await say(tx, "COMMIT" if command.how == "method" else command.how)

    async with place.running(service(body)) as running:
        before = len(await log(running))
        for number, how in enumerate(("method", "COMMIT", "ROLLBACK")):
            with pytest.raises(CommandFailed):
                await client(running).send(Charge("a", f"o{number}", 10, how))
        assert len(await log(running)) == before
        assert await client(running).run(Charge("a", "o9", 10)) == Charged("o9", 10)
    paid = await place.paid()
    # A COMMIT said in SQL commits what was done before it, and the events with it nevertheless are not there: it is
    # refused where the engine lets us (SQLite), and on a server it is an error that says so.
    assert set(paid) - {"o1"} == {"o9"}


async def test_neighbours_go_through(place: Place) -> None:
    """G1: of many at once some raise and some say no, after their work: theirs is gone, and all the others' there."""

    async def body(command: Charge, tx: LocalTransaction) -> None:
        await pay(command, tx)
        if command.how == "raises":
            raise RuntimeError("a bug")
        if command.how == "no":
            raise Rejected("no")

    ways = {0: "raises", 1: "no"}
    async with place.running(service(body)) as running:
        charges = [Charge(f"x{number}", f"o{number:02}", 1, ways.get(number % 4, "")) for number in range(60)]
        asked = [client(running).send(one, key=one.order) for one in charges]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for one, found in zip(charges, answers, strict=True):
            if one.how == "raises":
                assert isinstance(found, CommandFailed)
            else:
                assert isinstance(found, Outcome) and isinstance(found.answer, Rejection if one.how else Charged)
    assert set(await place.paid()) == {one.order for one in charges if not one.how}


async def test_a_key_finds_its_answer_without_the_handler(place: Place) -> None:
    """G3: asked again, also after a restart, the handler does not run: its own rows would be in its way."""
    runs = 0

    async def body(command: Charge, tx: LocalTransaction) -> None:
        nonlocal runs
        runs += 1
        await pay(command, tx)

    async with place.running(service(body)) as running:
        first = await asyncio.gather(*(client(running).send(Charge("a", "o1", 5), key="k") for _ in range(5)))
    async with place.running(service(body)) as running:
        again = await client(running).send(Charge("a", "o1", 5), key="k")
    assert {(one.tx, one.position) for one in [*first, again]} == {(first[0].tx, first[0].position)} and runs == 1
    assert await place.paid() == {"o1": 5}


async def test_many_at_once(place: Place) -> None:
    """G2: a hundred callers on two accounts and beside them: each stream in order, no gap, nothing lost."""
    async with place.running(service()) as running:
        before = len(await log(running))
        charges = [Charge("a" if number % 2 else f"x{number}", f"o{number:03}", 1) for number in range(100)]
        outcomes = await asyncio.gather(*(client(running).send(one, key=one.order) for one in charges))
        assert all(one.answer == Charged(two.order, 1) for one, two in zip(outcomes, charges, strict=True))
        records = (await log(running))[before:]
        assert [one.position for one in records] == list(range(before + 1, before + 201))
        assert [one.version for one in records if one.stream == "charge/a"] == list(range(1, 101))
    assert len(await place.paid()) == 100 and await place.balance() == 50


def shop(body: Body = pay) -> System:
    """A desk whose saga charges at the till, and then ships; where that is refused, the till refunds."""
    one, two = Service(desk), service(body)

    @one.aggregate
    class Parcel:
        @decide(creates=True)
        def ship(self, command: Ship) -> Shipped:
            if command.order.startswith("bad"):
                raise Rejected("no_truck")
            return Shipped(command.order)

    @one.saga
    class Purchase:
        buy: Buy

        @step
        def charge(self) -> Charge:
            return Charge(self.buy.account, self.buy.order, self.buy.amount)

        @undo(charge)
        def give_back(self, charged: Charged) -> Refund:
            return Refund(self.buy.account, charged.order, charged.amount)

        @pivot
        def ship(self) -> Ship:
            return Ship(self.buy.order)

        @answer
        def bought(self, charge: Charged, ship: Shipped) -> Bought:
            return Bought(ship.order)

    return System([one, two])


async def test_a_saga_charges_and_refunds(place: Place) -> None:
    """Commands that come by exchange run in a transaction too: each order paid or paid back, in the team's own tables
    as in the log, each stream in order, and what fails is tried again until it works, holding up its stream only."""
    failures = Counter[str]()

    async def body(command: Charge, tx: LocalTransaction) -> None:
        if command.account == "b" and failures[command.order] < 2:
            failures[command.order] += 1
            await pay(command, tx)
            raise RuntimeError("a bug that goes away")
        await pay(command, tx)

    async with place.running(shop(body)) as running:
        buys = [Buy(f"{'bad' if number % 3 == 0 else 'good'}{number}", f"x{number % 5}") for number in range(30)]
        outcomes = await asyncio.gather(*(client(running).send(one, key=one.order) for one in buys))
        for one, outcome in zip(buys, outcomes, strict=True):
            assert isinstance(outcome.answer, Rejection if one.order.startswith("bad") else Bought)
        slow = asyncio.ensure_future(client(running).send(Buy("good-b", "b", 7), key="b"))
        assert (await client(running).send(Buy("good-a", "a", 30), key="a")).answer == Bought("good-a")
        assert not slow.done(), "a handler that fails holds up its own stream only"
        async with asyncio.timeout(10):
            while not any(one.error for one in progress(running.nodes["till"]).waiting):  # noqa: ASYNC110 - asked
                await asyncio.sleep(0.005)
        waits = progress(running.nodes["till"]).waiting
        assert [(one.stream, one.error) for one in waits] == [("charge/b", "RuntimeError: a bug that goes away")]
        assert (await slow).answer == Bought("good-b") and failures == {"good-b": 2}
        assert await running.nodes["till"].store.scan("waiting") == []
        types = Counter(one.type for one in await log(running) if one.stream != "charge/setup")
        assert types["till.charged.v1"] == 32 and types["till.refunded.v1"] == 10
    paid = await place.paid()
    assert set(paid) == {one.order for one in buys if one.order.startswith("good")} | {"good-a", "good-b"}
    assert await place.balance() == 70


async def test_what_waits_is_decided_after_a_restart(place: Place) -> None:
    """G3: a received command that was set aside is decided once, by whichever process comes next."""

    async def broken(command: Charge, tx: LocalTransaction) -> None:
        await pay(command, tx)
        raise RuntimeError("a bug")

    folder = f"sqlite:{place.folder}/"
    one = start(shop(broken), store=folder, stores={"till": place.url})
    async with one as running:
        with pytest.raises(Pending):
            await client(running).send(Buy("good", "a", 5), key="k", wait_seconds=0.7)
        assert len(progress(running.nodes["till"]).waiting) == 1
    for _ in range(2):
        async with start(shop(), store=folder, stores={"till": place.url}) as running:
            assert (await client(running).send(Buy("good", "a", 5), key="k")).answer == Bought("good")
            assert progress(running.nodes["till"]).waiting == ()
    assert await place.paid() == {"good": 5} and await place.balance() == 95


async def test_who_waits_for_a_slow_handler(place: Place) -> None:
    """Where each handler has its own transaction others pass a slow one; where they share the writer's they wait. On
    one stream they always wait."""
    go, begun = asyncio.Event(), asyncio.Event()

    async def body(command: Charge, tx: LocalTransaction) -> None:
        if command.how == "slow":
            begun.set()
            await go.wait()
        await pay(command, tx)

    async with place.running(service(body)) as running:
        slow = asyncio.ensure_future(client(running).run(Charge("a", "slow", 1, "slow")))
        await begun.wait()
        same = asyncio.ensure_future(client(running).run(Charge("a", "same")))
        other = asyncio.ensure_future(client(running).run(Charge("b", "other")))
        await asyncio.wait([other], timeout=0.5)
        own = running.nodes["till"].store.capabilities.transactions == "own"
        assert (other.done(), same.done()) == (own, False)
        go.set()
        await asyncio.gather(slow, same, other)
        assert [one.type for one in await log(running) if one.stream == "charge/a"].count("till.charged.v1") == 2


async def test_a_refused_commit_is_its_handlers_failure(place: Place) -> None:
    """What only the COMMIT finds out, a deferred constraint, fails the handler to blame, and none beside it."""
    if place.engine == "mariadb":
        return  # it has no deferred constraints
    await place.tell(
        "CREATE TABLE item (name VARCHAR(50), of VARCHAR(50) REFERENCES paid (order_id) DEFERRABLE INITIALLY DEFERRED)"
    )

    async def body(command: Charge, tx: LocalTransaction) -> None:
        await say(tx, "INSERT INTO item VALUES (?, ?)", command.order, command.order)
        if command.how != "bad":
            await pay(command, tx)

    async with place.running(service(body)) as running:
        charges = [Charge(f"x{n}", f"o{n}", 1, "bad" if n == 4 else "") for n in range(9)]
        done = await asyncio.gather(*(client(running).run(one) for one in charges), return_exceptions=True)
        assert [isinstance(one, CommandFailed) for one in done] == [n == 4 for n in range(9)]
    assert len(await place.paid()) == 8


@pytest.mark.parametrize("name", list(ENGINES))
async def test_a_deadlock_is_run_again(name: str) -> None:
    """Two handlers that wait for each other: the server ends one, and it runs again by itself."""
    found, schema = shared(name), database()
    place = Place(found.url(schema))
    if name == "mariadb":
        await made(found, schema)
    else:
        await place.tell(*TABLES)
    both, tries = asyncio.Barrier(2), 0

    async def body(command: Charge, tx: LocalTransaction) -> None:
        nonlocal tries
        tries += 1
        one, two = ("a", "b") if command.account == "a" else ("b", "a")
        await say(tx, "UPDATE account SET balance = balance - 1 WHERE name = ?", one)
        if tries <= 2:
            await both.wait()
        await say(tx, "UPDATE account SET balance = balance - 1 WHERE name = ?", two)

    async with place.running(service(body)) as running:
        await asyncio.gather(client(running).run(Charge("a", "1")), client(running).run(Charge("b", "2")))
    assert await place.balance() == 98 and tries >= 3


@pytest.mark.parametrize("name", list(ENGINES))
async def test_a_server_killed_under_handlers_loses_nothing(name: str, own_servers: OwnServers) -> None:
    """G1, G8: SIGKILLs under handlers: each order's row and event are both there or neither, and with its key once."""
    found, schema = own_servers.of(name), database()
    place = Place(found.url(schema))
    if name == "mariadb":
        await made(found, schema)
    else:
        await place.tell(*TABLES)
    async with place.running(service()) as running:

        async def buy(number: int) -> None:
            command, key = Charge(f"x{number % 7}", f"o{number}", 1), f"k{number}"
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await client(running).run(command, key=key) == Charged(command.order, 1)
                    except (Unavailable, CommandFailed):
                        await asyncio.sleep(0.05)
                    else:
                        return

        async def caller(first: int) -> None:
            for number in range(first, first + 40):
                await buy(number)

        callers = asyncio.gather(*(caller(first) for first in range(0, 320, 40)))
        for _ in range(4):
            await asyncio.sleep(0.15)
            await asyncio.to_thread(found.kill)
            await asyncio.to_thread(found.start)
        await callers
        charged = [one for one in await log(running) if one.type == "till.charged.v1" and one.stream != "charge/setup"]
        assert len(charged) == 320
    assert len(await place.paid()) == 320


@pytest.mark.parametrize("moment", ["cut_before", "cut_after", "cut_late"])
async def test_a_commit_that_is_cut_off_is_found_out(server: Server | None, moment: str) -> None:
    """G1, G8: the connection of a handler breaks before its COMMIT has left, after it was done, or while the server has
    yet to get it: the caller gets the answer that is so, and all of it is there once."""
    if server is None:
        return  # SQLite's has no network
    name, runs = database(), 0
    place = Place(server.url(name), server.name)
    await (made(server, name) if server.name == "mariadb" else place.tell(*TABLES))

    async def body(command: Charge, tx: LocalTransaction) -> None:
        nonlocal runs
        runs += 1
        await pay(command, tx)
        if runs == 1:
            setattr(wire, moment, b"COMMIT")

    async with Wire(server) as wire:
        place.url = wire.url(name)
        async with place.running(service(body)) as running:
            first = await client(running).send(Charge("a", "o1", 5), key="k")
            assert first.answer == Charged("o1", 5) and wire.cuts == 1
            # PostgreSQL has locked the row `head` by then: who looks waits until the late COMMIT has come.
            late = 1 if server.name == "postgres" else 2
            assert runs == {"cut_after": 1, "cut_before": 2, "cut_late": late}[moment]
            assert await client(running).send(Charge("a", "o1", 5), key="k") == first
            assert await client(running).run(Charge("a", "o2", 5)) == Charged("o2", 5)
            assert [one.version for one in await log(running) if one.stream == "charge/a"] == [1, 2, 3, 4]
        place.url = server.url(name)
    assert await place.paid() == {"o1": 5, "o2": 5} and await place.balance() == 90


async def test_a_handler_does_not_outlive_a_failed_store(place: Place) -> None:
    """G1, G3: while a handler works the store fails, and all that waits is read again: what the handler did is not
    committed then, so that its message is decided once, by the try that comes after."""
    runs = Counter[str]()

    async def body(command: Charge, tx: LocalTransaction) -> None:
        runs[command.order] += 1
        if runs[command.order] == 1:
            running.nodes["till"].writer._crash(StoreFailed("the disk is full"), [])
            await asyncio.sleep(0.8)  # by then all has been read again
        await pay(command, tx)

    async with place.running(shop(body)) as running:
        asked = asyncio.ensure_future(client(running).send(Buy("good", "a", 5), key="k"))
        assert (await asked).answer == Bought("good")
        with pytest.raises(Unavailable):
            await client(running).send(Charge("b", "edge", 5), key="e")
        while running.nodes["till"].writer._shut is not None:  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.05)
        assert await client(running).run(Charge("b", "edge", 5), key="e") == Charged("edge", 5)
        types = Counter(one.type for one in await log(running) if one.stream != "charge/setup")
        assert types["till.charged.v1"] == 2 and runs == {"good": 2, "edge": 2}
        assert await running.nodes["till"].store.scan("waiting") == []
    assert await place.paid() == {"edge": 5, "good": 5}


async def test_a_store_in_memory_lends_nothing() -> None:
    """A service with a handler does not start on it, and says why."""
    with pytest.raises(ConfigInvalid, match="charge works in a transaction"):
        async with start(service(), store="memory:"):
            pass


def test_what_cannot_be_a_handler_is_refused() -> None:
    """Each mistake in one sentence that names the place."""
    found = Service(till)

    def plain(command: Charge, tx: LocalTransaction) -> Charged:
        return Charged("", 0)

    async def bare(command, tx):  # type: ignore[no-untyped-def]
        return Charged("", 0)

    async def other(command: Buy, tx: LocalTransaction) -> Bought:
        return Bought("")

    async def wrong(command: Charge, tx: LocalTransaction) -> Noted:
        return Noted("")

    for function, says in (
        (plain, "async def"),
        (bare, "annotated"),
        (other, "another contract"),
        (wrong, "answered by"),
    ):
        with pytest.raises(Misuse, match=says):
            found.handle(function)
    with pytest.raises(Misuse, match="seconds"):
        service(seconds=0)


class Rows(DeclarativeBase):
    pass


class Paid(Rows):
    __tablename__ = "paid"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Account(Rows):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


async def test_a_session_of_sqlalchemy_is_joined(place: Place) -> None:
    """G1: what the team's own AsyncSession flushes is committed with the events; its commit and rollback end nothing
    but a savepoint; and a handler that fails takes it along."""
    sessions = async_sessionmaker(expire_on_commit=False)

    async def body(command: Charge, tx: LocalTransaction) -> None:
        async with joined(tx, sessions) as session:
            session.add(Paid(order_id="rolled back", amount=1))
            await session.flush()
            await session.rollback()
            account = await session.get_one(Account, command.account)
            account.balance -= command.amount
            session.add(Paid(order_id=command.order, amount=command.amount))
            await session.commit()
            found = (await session.scalars(select(Paid).where(Paid.order_id == "nobody"))).all()
            assert list(found) == []
            flag_modified(account, "balance")
            await session.flush()
            flag_modified(account, "balance")  # an update that changes nothing still finds its row
        await say(tx, "UPDATE account SET balance = balance - 1 WHERE name = ?", command.account)
        if command.how == "raises":
            raise RuntimeError("a bug")
        if command.how == "no":
            raise Rejected("no")
        if command.how == "twice":
            async with joined(tx, sessions) as session:
                session.add(Paid(order_id=command.order, amount=command.amount))

    async with place.running(service(body)) as running:
        for how in ("raises", "no", "twice"):
            with contextlib.suppress(CommandFailed):
                answer = (await client(running).send(Charge("a", "o1", 9, how))).answer
                assert isinstance(answer, Rejection)
        assert await client(running).run(Charge("a", "o1", 9)) == Charged("o1", 9)
        assert await client(running).run(Charge("a", "o2", 9)) == Charged("o2", 9)
    assert await place.paid() == {"o1": 9, "o2": 9} and await place.balance() == 80


async def test_a_session_that_does_not_wait(place: Place) -> None:
    """A plain Session is joined on SQLite; on a server it is refused by name, and run_sync brings one."""
    sessions = sessionmaker()

    async def body(command: Charge, tx: LocalTransaction) -> None:
        if tx.engine == "sqlite":
            async with joined(tx, sessions) as session:
                session.add_all([Paid(order_id=command.order, amount=2), Paid(order_id="x", amount=3)])
            return
        with pytest.raises(Misuse, match="asynchronous"):
            joined(tx, sessions)
        async with joined(tx, async_sessionmaker()) as waiting:
            await waiting.run_sync(lambda session: session.add(Paid(order_id=command.order, amount=2)))

    async with place.running(service(body)) as running:
        await client(running).run(Charge("a", "o1"))
    assert (await place.paid())["o1"] == 2


async def test_handlers_on_sqlite_share_a_flush(tmp_path: Path) -> None:
    """What waits while one transaction is committed runs in the next, all of it: far fewer commits than commands."""
    async with Place(f"sqlite:{tmp_path}/").running(service(nothing)) as running:
        node = running.nodes["till"]
        before, groups = len(await log(running)), node.writer.groups
        await asyncio.gather(*(client(running).run(Charge(f"x{n}", f"o{n}")) for n in range(200)))
        assert len(await log(running)) - before == 400 and node.writer.groups - groups < 50


TRIGGER = "CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT 1; END"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM log", "UPDATE rows SET data = ''", "INSERT INTO cursors VALUES ('x', 'y', 1)", "DROP TABLE log",
        "ALTER TABLE Log ADD COLUMN x", "CREATE INDEX i ON rows (data)", TRIGGER,
        "INSERT INTO writing (what) VALUES ('put')", "PRAGMA synchronous = OFF",
        "PRAGMA foreign_keys = 0", "ATTACH ':memory:' AS other", "BEGIN", "COMMIT", "ROLLBACK", "END",
        "ROLLBACK TO holdfast_handler", "RELEASE holdfast_handler", "SAVEPOINT holdfast_handler",
        "COMMIT -- of holdfast", "ROLLBACK -- of holdfast",
    ],
)  # fmt: skip
async def test_what_a_handler_may_not_do_on_sqlite(tmp_path: Path, sql: str) -> None:
    """holdfast's own tables, the transaction and the file's settings are refused by name, also when swallowed; the
    store goes on."""
    refused: list[Exception] = []

    async def body(command: Charge, tx: LocalTransaction) -> None:
        await pay(command, tx)
        if command.how:
            try:
                tx.connection.execute(command.how)
            except Exception as error:
                refused.append(error)
                raise

    place = Place(f"sqlite:{tmp_path}/")
    await place.tell(*TABLES)
    async with place.running(service(body)) as running:
        before = len(await log(running))
        with pytest.raises(CommandFailed, match="TransactionRefused"):
            await client(running).run(Charge("a", "o1", 1, sql))
        assert isinstance(refused[0], TransactionRefused) and len(await log(running)) == before
        assert await client(running).run(Charge("a", "o1", 1, "SELECT count(*) FROM log")) == Charged("o1", 1)
        assert await client(running).run(Charge("a", "o2", 1, "PRAGMA table_info('paid')")) == Charged("o2", 1)
    assert await place.paid() == {"o1": 1, "o2": 1} and await place.balance() == 98


async def nothing(command: Charge, tx: LocalTransaction) -> None:
    """A handler that does nothing."""
