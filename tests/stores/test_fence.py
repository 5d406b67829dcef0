"""Whatever writes carries the fence: every verb, tried on a store on a server whose log was taken over meanwhile (G2).

The lock is taken away here, and the connection of the first holder stands: only the row `head` is left to refuse it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from holdfast.compose import make_store
from holdfast.core.log.batch import Batch, Committed, Conflict, Cursor, Move, Row
from holdfast.errors import StoreLocked
from holdfast.testing.conformance.records import append, everything
from support.servers import ENGINES, Server, database, shared

KEPT = Batch(append("A/1", 0).records, (("A/1", 0),), (Move("c", 0, Cursor("i", 1)),), (Row("view", "old/1", b"row"),))


@pytest.fixture(params=list(ENGINES))
def server(request: pytest.FixtureRequest) -> Server:
    """The server of this run."""
    return shared(request.param)


class Stores:
    """The first holder, and who takes the log from it."""

    def __init__(self, url: str) -> None:
        self.first: Any = make_store(url, "stock")
        self.second: Any = make_store(url, "stock")

    async def take_over(self) -> None:
        """By another incarnation, though the first holder's lock is held."""

        async def free(_: object) -> None:
            return None

        self.second.engine.lock = free
        await self.second.open("two", 2)


@pytest.fixture
async def stores(server: Server) -> AsyncIterator[Stores]:
    """A log with something of everything, held by the first."""
    found = Stores(server.url(database()))
    await found.first.open("one", 1)
    assert await found.first.commit([KEPT]) == [Committed(1)]
    yield found
    await found.first.close()
    await found.second.close()


async def lent(store: Any) -> None:
    """A handler's transaction that was begun before the log was taken over."""
    await store.commit([append("A/2", 0)], within=store.lent)


VERBS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "records": lambda store: store.commit([append("A/1", 1)]),
    "a row": lambda store: store.commit([Batch(rows=(Row("view", "new", b"lost"),))]),
    "a cursor": lambda store: store.commit([Batch(moves=(Move("c", 1, Cursor("lost", 2)),))]),
    "a read of a stream that is known": lambda store: store.commit([Batch(reads=(("A/1", 1),))]),
    "a read of a stream that is not known": lambda store: store.commit([Batch(reads=(("A/9", 0),))]),
    "nothing": lambda store: store.commit([Batch()]),
    "what memory refuses": lambda store: store.commit([Batch(reads=(("A/1", 7),))]),
    "a handler's transaction": lent,
    "clear": lambda store: store.clear("view", "old/", "c"),
    "leap": lambda store: store.leap("three", 3, 1000),
}


@pytest.mark.parametrize("verb", list(VERBS))
async def test_no_verb_gets_past_another_holder(stores: Stores, verb: str) -> None:
    """G2: the holder that lost the log is told so by whichever verb it tries first, and nothing has changed."""
    first, second = stores.first, stores.second
    first.lent = await first.begin() if verb == "a handler's transaction" else None
    await stores.take_over()
    before = await state(second)
    with pytest.raises(StoreLocked, match="another process has begun to write"):
        await VERBS[verb](first)
    for again in (first.read(0, 1), first.commit([append("A/3", 0)])):
        with pytest.raises(StoreLocked):
            await again
    assert await state(second) == before
    assert await second.commit([append("A/1", 1)]) == [Committed(2)], "the log goes on with its holder"


@pytest.mark.parametrize("verb", list(VERBS))
async def test_every_verb_works_for_who_holds_the_log(stores: Stores, verb: str) -> None:
    """The same verbs on a log that nobody took: what refuses them above is the other holder."""
    first = stores.first
    first.lent = await first.begin() if verb == "a handler's transaction" else None
    outcome = await VERBS[verb](first)
    if verb == "what memory refuses":
        assert outcome == [Conflict("A/1", 7, 1)]
    assert await first.recover() >= 1


async def state(store: Any) -> object:
    """All that a log holds, from the engine: rows and cursors past what memory knows of them."""
    connection = store.writer.connection
    cursors = await store.engine.query(connection, "SELECT name, incarnation, position FROM cursors ORDER BY name", ())
    head = await store.engine.query(connection, "SELECT position, group_count, incarnation FROM head", ())
    openings = await store.engine.query(connection, "SELECT id FROM incarnations ORDER BY number", ())
    return await everything(store), await store.scan("view"), cursors, head, openings


async def test_a_group_that_writes_nothing_is_answered_for_on_a_new_connection(stores: Stores) -> None:
    """G2: where the connection is gone the fence is asked on a new one: what memory knows is not enough."""
    first = stores.first
    await first.engine.disconnect(first.writer.connection)
    assert await first.commit([Batch(), Batch(reads=(("A/1", 7),))]) == [Committed(2), Conflict("A/1", 7, 1)]
    await first.engine.disconnect(first.writer.connection)
    await stores.second.open("two", 2)
    await stores.second.close()
    with pytest.raises(StoreLocked, match="another process has begun to write"):
        await first.commit([Batch()])
