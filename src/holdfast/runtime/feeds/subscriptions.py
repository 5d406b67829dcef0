"""Feeds: bring the events of a log, in commit order, to all its consumers.

Each view, reaction and saga that events begin has its own checkpoint in each producer's log. Consumers at the same
position share one fetch; a consumer that lags behind catches up alone and then joins. One batch handles a page together
with its checkpoint (G1, G3). A consumer that fails is separated and tried again with backoff; the others go on. A
consumer that meets an event of a newer version than it knows stops before this event until its service is deployed with
the new contract. `ports.feed` comes before it, the writer after it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from holdfast.core.log.batch import Batch, Cursor, Move
from holdfast.core.log.record import Record, record_id
from holdfast.core.wire.frame import FeedPage, FeedRequest
from holdfast.errors import HoldfastError, Invalid, StoreError
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import Periodic, cancel_all

logger = logging.getLogger("holdfast.feeds")

PAGE_RECORDS_MAX = 256
POLL_SECONDS = 20.0
IDLE_SAVE_SECONDS = 1.0
NEWER_ASKED = 2
"""Versions past the one a reader knows that it asks for by itself. A producer adds those that it knows; one that was
taken back to an earlier release has events in its log that it does not know."""
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_LAST_SECONDS = 10.0


class Consumer(Protocol):
    """A consumer of events: a view, a reaction, or a saga that events begin."""

    name: str
    types: tuple[str, ...]
    begins: str

    async def take(self, feed: "Subscription", page: FeedPage) -> None:
        """Handle a page and move the checkpoint to its end, durably. Raises what its handler raises, having handled
        what came before."""
        ...


class Subscription:
    """One consumer in one producer's log."""

    def __init__(self, consumer: Consumer, producer: str, writer: Writer) -> None:
        self.consumer = consumer
        self.producer = producer
        self.writer = writer
        self.types = tuple(t for t in consumer.types if t.startswith(producer + "."))
        self._names = {stored.rpartition(".v")[0] for stored in self.types}
        self.wants = (*self.types, *newer_names(self.types))
        """What is asked for: newer versions too, which its producer itself may not know (any more)."""
        self.cursor_name = f"{consumer.name}:{producer}"
        self.durable = Cursor()
        self.position = 0
        self.incarnation = ""
        self.producer_head = 0
        self.asked = False
        self.failure: Exception | None = None
        self.failures = 0
        self._watched: asyncio.Event | None = None
        self.known = False
        self.lock = asyncio.Lock()

    @property
    def caught_up(self) -> bool:
        """True if it has taken all events that the producer had at the last fetch."""
        return self.asked and self.failure is None and self.position >= self.producer_head

    def mine(self, page: FeedPage) -> tuple[list[Record], Record | None]:
        """What of a page is for this consumer, up to the first event of a version that is newer than it knows; and that
        event, where there is one."""
        found: list[Record] = []
        for record in page.records:
            if record.type in self.types:
                found.append(record)
            elif record.type.rpartition(".v")[0] in self._names:
                return found, record
        return found, None

    def move(self, page: FeedPage, to: int) -> Move:
        """The move of this checkpoint to a position of the page."""
        return Move(self.cursor_name, self.durable.position, Cursor(page.incarnation, to))

    async def commit(self, batch: Batch, page: FeedPage, to: int) -> None:
        """Commit a batch that moves this checkpoint. Raises Unavailable."""
        work = BatchWork(batch)
        self.writer.submit(work)
        await work.done
        self.durably_at(Cursor(page.incarnation, to))

    def durably_at(self, cursor: Cursor) -> None:
        """Set the checkpoint, which is durable."""
        self.durable = cursor
        self.known = True
        self.at(cursor)

    def at(self, cursor: Cursor) -> None:
        """Set the checkpoint in memory; no event between it and the durable checkpoint is for this consumer."""
        self.position = cursor.position
        self.incarnation = cursor.incarnation
        if self._watched is not None:
            self._watched.set()
            self._watched = None

    async def moved(self) -> None:
        """Wait until the checkpoint moves."""
        if self._watched is None:
            self._watched = asyncio.Event()
        await self._watched.wait()


def newer_names(types: Sequence[str]) -> list[str]:
    """The next stored names of the same messages, `NEWER_ASKED` of each."""
    last: dict[str, int] = {}
    for stored in types:
        name, _, version = stored.rpartition(".v")
        last[name] = max(last.get(name, 0), int(version))
    return [f"{name}.v{version + n}" for name, version in last.items() for n in range(1, NEWER_ASKED + 1)]


def _idle(member: Subscription) -> bool:
    return member.position > member.durable.position and member.failure is None


class _Group:
    """Subscriptions of one producer at the same position; they share a fetch."""

    def __init__(self, members: list[Subscription]) -> None:
        self.members = members
        self.fetch: asyncio.Task[FeedPage] | None = None
        self.joined = False

    @property
    def position(self) -> int:
        return self.members[0].position


Fetch = Callable[[str, FeedRequest], Coroutine[Any, Any, FeedPage]]
"""A page of the feed of a service, by its name: of another over the feed port, of its own from its log."""


class Feeds:
    """All feeds that one service takes in."""

    def __init__(self, store: Store, writer: Writer, fetch: Fetch, clock: Clock) -> None:
        self._store = store
        self._writer = writer
        self._fetch_page = fetch
        self._clock = clock
        self.subscriptions: list[Subscription] = []
        self._groups: dict[str, list[_Group]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._saving = Periodic(
            IDLE_SAVE_SECONDS,
            lambda: any(map(_idle, self.subscriptions)),
            self._save_idle,
            service=writer.service,
        )

    async def start(self, consumers: Sequence[Consumer]) -> None:
        """Continue every feed from its checkpoint; consumers at the same position share a fetch."""
        await self._subscribe(consumers)
        self._saving.start()

    async def _subscribe(self, consumers: Sequence[Consumer]) -> list[tuple[str, Subscription]]:
        cursors = await self._store.cursors()
        made: list[tuple[str, Subscription]] = []
        together: dict[tuple[str, int], list[Subscription]] = {}
        for consumer in consumers:
            for producer in sorted({stored.partition(".")[0] for stored in consumer.types}):
                found = Subscription(consumer, producer, self._writer)
                if cursor := cursors.get(found.cursor_name):
                    found.durably_at(cursor)
                made.append((producer, found))
                together.setdefault((producer, found.position), []).append(found)
        self.subscriptions += [found for _, found in made]
        for (producer, _), members in together.items():
            self._begin(producer, members)
        return made

    async def feed(self, consumer: Consumer) -> list[Subscription]:
        """Feed one more consumer, from its checkpoints or the start of each of its logs."""
        return [found for _, found in await self._subscribe([consumer])]

    def remove(self, consumer: Consumer) -> None:
        """Stop feeding a consumer."""
        self.subscriptions = [found for found in self.subscriptions if found.consumer is not consumer]
        for groups in self._groups.values():
            for group in groups:
                group.members = [found for found in group.members if found.consumer is not consumer]
                if not group.members and group.fetch is not None:
                    group.fetch.cancel()

    async def close(self) -> None:
        """Stop all feeds."""
        await self._saving.stop()
        await cancel_all(self._tasks, self._writer.service)

    def _spawn(self, coroutine: "asyncio._CoroutineLike[None]") -> None:  # pyright: ignore[reportPrivateUsage]
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, producer: str, members: list[Subscription]) -> None:
        group = _Group(members)
        self._groups.setdefault(producer, []).append(group)
        self._spawn(self._run(producer, group))

    async def _run(self, producer: str, group: _Group) -> None:
        failures = 0
        try:
            while group.members and not self._join(producer, group):
                try:
                    page = await self._fetch(producer, group)
                    failures = 0
                    if page is not None:
                        await self._give(producer, group, page)
                except Exception as error:
                    if not isinstance(error, HoldfastError):
                        logger.exception(
                            "unexpected error while %s reads the feed of %s; it tries again",
                            self._writer.service,
                            producer,
                            extra={"service": self._writer.service, "peer": producer},
                        )
                    failures += 1
                    for member in group.members:
                        member.failure = error
                    delay = min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(failures, 10))
                    await asyncio.sleep(delay * (0.5 + self._clock.random()))
        finally:
            self._groups[producer].remove(group)
            if group.fetch is not None:
                group.fetch.cancel()

    def _join(self, producer: str, group: _Group) -> bool:
        """Join a group that stands at the same position; its fetch begins again, with the types of both."""
        for other in self._groups[producer]:
            if other is not group and other.members and other.fetch is not None and other.position == group.position:
                other.members += group.members
                other.fetch.cancel()
                group.members = []
                return True
        return False

    async def _fetch(self, producer: str, group: _Group) -> FeedPage | None:
        types = tuple(sorted({stored for member in group.members for stored in member.wants}))
        first = group.members[0]
        begins_now = [m for m in group.members if not m.known and m.consumer.begins == "now"]
        if begins_now:
            page = await self._fetch_page(producer, FeedRequest(0, types, 0))
            for member in begins_now:
                move = Move(member.cursor_name, 0, Cursor(page.incarnation, page.head))
                await member.commit(Batch(moves=(move,)), page, page.head)
            if len(begins_now) < len(group.members):
                group.members = [m for m in group.members if m not in begins_now]
                self._begin(producer, begins_now)
            return None
        request = FeedRequest(group.position, types, PAGE_RECORDS_MAX, round(POLL_SECONDS * 1000), first.incarnation)
        group.fetch = asyncio.get_running_loop().create_task(self._fetch_page(producer, request))
        try:
            return await group.fetch
        except asyncio.CancelledError:
            if group.fetch.cancelled() and not asyncio.current_task().cancelling():  # pyright: ignore[reportOptionalMemberAccess]
                return None
            raise
        finally:
            group.fetch = None

    async def _give(self, producer: str, group: _Group, page: FeedPage) -> None:
        members = list(group.members)
        for member in members:
            member.producer_head, member.asked = page.head, True
        if len(members) == 1:  # without a task of its own
            results = [await self._take(members[0], page)]
        else:
            results = await asyncio.gather(*(self._take(member, page) for member in members))
        apart = [member for member, fine in zip(members, results, strict=True) if not fine]
        if apart:
            group.members = [member for member in group.members if member not in apart]
            for member in apart:
                self._spawn(self._recover(producer, member))

    async def _take(self, member: Subscription, page: FeedPage) -> bool:
        mine, newer = member.mine(page)
        upto = page.upto if newer is None else newer.position - 1
        try:
            async with member.lock:
                if mine:
                    await member.consumer.take(member, FeedPage(tuple(mine), upto, page.incarnation, page.head))
                elif upto > member.position:
                    member.at(Cursor(page.incarnation, upto))
                if newer is not None and member.position > member.durable.position:
                    await self._save(member)  # so that it does not go back while it stands here
            if newer is not None:
                where = record_id(member.producer, newer.position)
                raise Invalid(f"{where} is a {newer.type}, newer than this service knows: deploy its new contract here")
            member.failure = None
            member.failures = 0
        except Exception as error:
            if member.failures == 0:
                logger.warning(
                    "the consumer %s of %s failed on the feed of %s after position %d; it tries again",
                    member.consumer.name,
                    self._writer.service,
                    member.producer,
                    member.position,
                    extra={"service": self._writer.service, "peer": member.producer, "consumer": member.consumer.name},
                    exc_info=error,
                )
            member.failure = error
            member.failures += 1
            return False
        return True

    async def _recover(self, producer: str, member: Subscription) -> None:
        delay = min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(member.failures, 10))
        await asyncio.sleep(delay * (0.5 + self._clock.random()))
        while True:
            try:
                cursor = (await self._store.cursors()).get(member.cursor_name)
                break
            except StoreError as error:
                member.failure = error
                await asyncio.sleep(BACKOFF_LAST_SECONDS)
        if cursor is not None:
            member.durably_at(cursor)
        elif not member.known:
            member.at(Cursor())
        if member in self.subscriptions:
            self._begin(producer, [member])

    async def _save_idle(self) -> None:
        """Save checkpoints that moved past events which are not for their consumers."""
        for member in list(self.subscriptions):
            if _idle(member):
                async with member.lock:
                    await self._save(member)

    async def _save(self, member: Subscription) -> None:
        here = Cursor(member.incarnation, member.position)
        work = BatchWork(Batch(moves=(Move(member.cursor_name, member.durable.position, here),)))
        try:
            self._writer.submit(work)
            await work.done
            member.durable = here
            member.known = True
        except HoldfastError as error:
            logger.debug(
                "%s could not save the checkpoint of %s; it tries again: %s",
                self._writer.service,
                member.cursor_name,
                error,
                extra={"service": self._writer.service, "peer": member.producer},
            )
