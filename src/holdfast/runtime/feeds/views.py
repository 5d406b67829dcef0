"""Views at run time: which generation serves, which one is being built, and questions to it.

A view whose class has changed, or that is told to, is built again from the start of its logs under a new generation
while the old one serves; when the new one has caught up it takes over and the old rows go. Comes after feeds; answers
`query`. A question may name positions it must have seen (`at_least`): it waits a bounded time, then says it is stale.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from holdfast.core.declare.message import encode
from holdfast.core.declare.service import Service
from holdfast.core.declare.view import ViewType
from holdfast.core.log.batch import Batch, Row
from holdfast.core.saga.stage import Standing
from holdfast.errors import ExchangeError, HoldfastError, Invalid, NotFound, StoreError, Unavailable
from holdfast.ports.store import Store
from holdfast.runtime.feeds.consumers import ViewConsumer, ViewRow
from holdfast.runtime.feeds.subscriptions import Feeds, Subscription
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.views")

AT_LEAST_SECONDS_MAX = 30.0
STANDING_SECONDS = 0.05
"""Between two questions whether a transaction is through."""


class _Meta(msgspec.Struct, omit_defaults=True):
    generation: int
    fingerprint: str
    """The fingerprint of the generation that answers queries."""
    building: int = 0
    building_fingerprint: str = ""


class ViewAnswer(msgspec.Struct, frozen=True):
    """The answer of a view for one key."""

    row: Any
    """The row as plain values; None if the view has no row for the key."""
    positions: Mapping[str, int]
    """How far the view has come in each log that feeds it."""
    behind: bool = False
    """True when `at_least` was not reached in time."""
    stale: str = ""
    """Why this row is not updated any more; empty while it is."""


class Views:
    """The views of one service."""

    def __init__(
        self,
        service: Service,
        store: Store,
        writer: Writer,
        feeds: Feeds,
        standing: Callable[[str, str], Awaitable[Standing]],
    ) -> None:
        self._service, self._store, self._writer, self._feeds = service, store, writer, feeds
        self._standing = standing
        """(service, transaction) -> what that service knows of it."""
        self._meta: dict[str, _Meta] = {}
        self._serving: dict[str, ViewConsumer] = {}
        self._building: dict[str, ViewConsumer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self) -> list[ViewConsumer]:
        """The consumers to feed: of each view the generation that serves. One of another shape is built again."""
        names = list(self._service.views)
        rows = await self._store.get("service", [f"view:{name}" for name in names])
        for name, data in zip(names, rows, strict=True):
            view = self._service.views[name]
            meta = msgspec.json.decode(data, type=_Meta) if data else _Meta(1, view.fingerprint)
            if data is None:
                await self._save(name, meta)
            self._meta[name] = meta
            self._serving[name] = ViewConsumer(view, meta.generation, self._store)
        return [consumer for name, consumer in self._serving.items() if self._fits(name)]

    def _fits(self, name: str) -> bool:
        return self._meta[name].fingerprint == self._service.views[name].fingerprint

    async def start(self) -> None:
        """Go on with what was being built, and begin to build what has changed."""
        for name, meta in self._meta.items():
            if meta.building and meta.building_fingerprint != self._service.views[name].fingerprint:
                given_up, meta.building = meta.building, 0  # its rows are of another class
                await self._store.clear("view", f"{name}@{given_up}/", f"view:{name}@{given_up}:")
                await self._build(name, given_up + 1)
            elif meta.building or not self._fits(name):
                await self._build(name, meta.building or meta.generation + 1)

    async def close(self) -> None:
        """Stop building; it goes on at the next start."""
        await cancel_all(self._tasks, self._service.name)

    async def rebuild(self, name: str) -> None:
        """Build a view again from the start of its logs; the old one serves meanwhile. Raises NotFound."""
        self._view(name)
        if name not in self._building:
            await self._build(name, self._meta[name].generation + 1)

    def rebuilding(self) -> dict[str, int]:
        """View -> generation that is being built."""
        return {name: consumer.generation for name, consumer in self._building.items()}

    async def query(
        self,
        name: str,
        key: str,
        *,
        at_least: Mapping[str, int] | None = None,
        transaction: str = "",
        wait_seconds: float = 5.0,
    ) -> ViewAnswer:
        """The row of one key, as of these positions, and with all that a transaction has committed in the logs that
        feed it. Raises NotFound, or Invalid if `at_least` names a log that does not feed this view."""
        self._view(name)
        behind = not await self._reach(name, at_least or {}, transaction, min(wait_seconds, AT_LEAST_SECONDS_MAX))
        consumer = self._serving[name]
        (data,) = await self._store.get("view", [consumer.row_key(key)])
        positions = {found.producer: found.position for found in self.subscriptions(name)}
        if data is None:
            return ViewAnswer(None, positions, behind)
        row = msgspec.json.decode(data, type=ViewRow)
        return ViewAnswer(msgspec.json.decode(row.state), positions, behind, row.stale)

    def subscriptions(self, name: str) -> list[Subscription]:
        """The feeds of the generation of a view that serves."""
        return [found for found in self._feeds.subscriptions if found.consumer is self._serving[name]]

    def _view(self, name: str) -> ViewType:
        view = self._service.views.get(name)
        if view is None:
            raise NotFound(
                f"{self._service.name} has no view {name!r}; it has {', '.join(self._service.views) or 'none'}"
            )
        return view

    async def _reach(self, name: str, at_least: Mapping[str, int], tx: str, seconds: float) -> bool:
        feeds = {found.producer: found for found in self.subscriptions(name)}
        for producer in at_least:
            if producer not in feeds:
                raise Invalid(
                    f"view {name} is not fed by {producer!r}", errors=[("at_least", f"not fed by {producer!r}")]
                )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                wanted = dict(at_least)
                for producer in feeds if tx else ():
                    wanted[producer] = max(wanted.get(producer, 0), await self._confirmed(producer, tx))
                for producer, position in wanted.items():
                    while feeds[producer].position < position:
                        await feeds[producer].moved()
                return True
        return False

    async def _confirmed(self, producer: str, tx: str) -> int:
        """The position of the last record of a transaction in a log, as soon as the service has no lock for it."""
        while True:
            try:
                found = await self._standing(producer, tx)
                if not found.held:
                    return found.position
            except (ExchangeError, Unavailable, StoreError) as error:
                logger.debug(
                    "%s cannot learn from %s how far the transaction %s is; it asks again: %s",
                    self._service.name,
                    producer,
                    tx,
                    error,
                    extra={"service": self._service.name, "peer": producer},
                )
            await asyncio.sleep(STANDING_SECONDS)

    async def _save(self, name: str, meta: _Meta) -> None:
        work = BatchWork(Batch(rows=(Row("service", f"view:{name}", encode(meta)),)))
        self._writer.submit(work)
        await work.done

    async def _build(self, name: str, generation: int) -> None:
        meta = self._meta[name]
        if not meta.building:
            # What an attempt given up earlier left under this generation must not be built upon.
            await self._store.clear("view", f"{name}@{generation}/", f"view:{name}@{generation}:")
            meta.building, meta.building_fingerprint = generation, self._service.views[name].fingerprint
            await self._save(name, meta)
        consumer = ViewConsumer(self._service.views[name], generation, self._store)
        self._building[name] = consumer
        task = asyncio.get_running_loop().create_task(self._take_over(name, consumer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_over(self, name: str, consumer: ViewConsumer) -> None:
        """When the new generation has come as far as the old one and the logs, it serves."""
        while True:
            try:
                fed = await self._feeds.feed(consumer)
                break
            except HoldfastError as error:
                logger.warning(
                    "%s cannot feed generation %d of the view %s yet; it tries again: %s",
                    self._service.name,
                    consumer.generation,
                    name,
                    error,
                    extra={"service": self._service.name, "view": name},
                )
                await asyncio.sleep(1.0)
        for found in fed:
            while not found.caught_up:
                await found.moved()
        old = self._serving[name]
        self._serving[name] = consumer
        meta = _Meta(consumer.generation, consumer.view.fingerprint)
        while True:
            try:
                await self._save(name, meta)
                break
            except HoldfastError as error:
                logger.warning(
                    "%s could not record generation %d of the view %s yet; it tries again: %s",
                    self._service.name,
                    consumer.generation,
                    name,
                    error,
                    extra={"service": self._service.name, "view": name},
                )
                await asyncio.sleep(1.0)
        self._meta[name] = meta
        self._building.pop(name, None)
        self._feeds.remove(old)
        with contextlib.suppress(StoreError):  # what is left is never read, and cleared before that number is used
            await self._store.clear("view", f"{name}@{old.generation}/", f"{old.name}:")
        logger.info(
            "generation %d of the view %s of %s answers queries from now on",
            consumer.generation,
            name,
            self._service.name,
            extra={"service": self._service.name, "view": name},
        )
