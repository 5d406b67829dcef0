"""`/ops`: an operator's questions to one service.

Every answer is JSON with sensitive fields masked; lists are pages with `next`. Reads use the store and the node's
memory; repairs are in `web.repairs`. Comes after trust is checked (`web.app`).
Fails with `NotFound`, `Invalid` and `StoreError`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from holdfast.core.explain.overview import (
    AggregateList,
    AggregateStatus,
    ListedSaga,
    ListedWaiting,
    LogPage,
    RecordList,
    SagaDetail,
    SagaEntries,
    SagaEntry,
    SagaList,
    StepDetail,
    ViewRebuild,
    WaitingList,
)
from holdfast.core.saga.progress import SagaState
from holdfast.errors import Invalid, NotFound, Unavailable
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.sagas import OpenSaga
from holdfast.runtime.node import Node
from holdfast.runtime.ops import why
from holdfast.runtime.ops.audit import reading
from holdfast.runtime.ops.status import progress, stages
from holdfast.web.http import Request, Response, json_answer
from holdfast.web.masking import Masking

Listed = TypeVar("Listed", ListedSaga, ListedWaiting)

PAGE_DEFAULT, PAGE_MAX, BRIEF_MAX = 100, 1000, 10_000
TRAIL_MAX = 10_000
POSITION_MAX = 2**63 - 1
FILTERS = ("type", "fingerprint", "from", "stream", "message", "tx")
"""The fields by which a query may filter a list."""
STATUSES = ("running", "undoing", "committed", "cancelling", "stuck")


class OpsRoutes:
    """The handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._masking = Masking(node.service)

    async def trail(self, request: Request) -> Response:
        """Every record of this service that belongs to one id."""
        asked = {name: request.query[name] for name in ("tx", "correlation", "stream") if request.query.get(name)}
        if len(asked) != 1:
            raise Invalid(
                "give exactly one of tx, correlation and stream", errors=[("tx", "exactly one of the three is given")]
            )
        limit = max(1, request.number("limit", PAGE_MAX, TRAIL_MAX))
        records = await self._running().store.related(**asked, limit=limit)
        rows = tuple(self._masking.record(self._node.name, record) for record in records)
        return json_answer(RecordList(rows, complete=len(rows) < limit))

    async def log(self, request: Request) -> Response:
        """Records of every kind after a position; `brief=1`: in the form for an audit, with the received positions."""
        after = request.number("after", 0, POSITION_MAX)
        if request.query.get("brief") == "1":
            page = await reading(self._running(), after, max(1, request.number("limit", PAGE_DEFAULT, BRIEF_MAX)))
            records = tuple(self._masking.brief(record) for record in page.records)
            return json_answer(msgspec.structs.replace(page, records=records))
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        head = self._running().writer.head
        page = await self._node.store.read(after, limit, upto=head) if after < head else None
        rows = tuple(self._masking.record(self._node.name, record) for record in (page.records if page else ()))
        return json_answer(LogPage(rows, page.upto if page else after, head))

    async def progress(self, request: Request) -> Response:
        """The progress of everything in the service."""
        return json_answer(progress(self._node))

    async def sagas(self, request: Request) -> Response:
        """Sagas that have not ended."""
        status = request.query.get("status", "")
        if status not in ("", *STATUSES):
            raise Invalid(
                f"status must be one of {', '.join(STATUSES)}", errors=[("status", "not a status of an open saga")]
            )
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        found = await self._running().sagas(status=status, after=request.query.get("after", ""), limit=limit)
        items = tuple(_entry(stream, entry) for stream, entry in found)
        return json_answer(SagaEntries(items, next=items[-1].id if len(items) == limit else None))

    async def saga(self, request: Request) -> Response:
        """One saga, ended or not: what was asked, answered and undone."""
        stream = request.params["id"]
        name = stream.partition("/")[0]
        if name not in self._node.service.sagas:
            raise NotFound(f"{self._node.name} has no saga {name[:200]!r}; write the name as Type/id")
        (loaded,) = await self._running().store.load([stream])
        state, _ = self._node.dispatch.folder_of(stream).fold(stream, loaded)
        if state is None:
            raise NotFound(f"{self._node.name} has no saga {stream[:200]}")
        return json_answer(self._saga(stream, state, loaded))

    def _saga(self, stream: str, state: SagaState, loaded: Loaded) -> SagaDetail:
        first, last, masking = loaded.records[0], loaded.records[-1], self._masking
        steps = (
            StepDetail(
                version=version,
                step=asked.step,
                index=asked.index,
                attempt=asked.attempt,
                undoes=asked.undoes or None,
                command=masking.kept(asked.command),
                answer=masking.kept(state.answers[version]) if version in state.answers else None,
            )
            for version, asked in sorted(state.asked.items())
        )
        return SagaDetail(
            id=stream,
            status=state.status,
            tx=first.tx,
            correlation=first.correlation,
            begun_at=first.at,
            at=last.at,
            version=state.version,
            message=masking.kept(state.begun.message) if state.begun else None,
            steps=tuple(steps),
            skipped=tuple(sorted(state.skipped)),
            overdue=tuple(sorted(state.overdue)),
            cause=masking.rejection(state.cause) if state.cause else None,
            stuck=state.stuck,
        )

    async def stages(self, request: Request) -> Response:
        """Streams that staged transactions hold, since when, and how many messages wait; for one transaction also its
        status."""
        return json_answer(await stages(self._running(), request.query.get("tx", "")))

    async def aggregates(self, request: Request) -> Response:
        """Aggregates of one type by key, with their state now."""
        name = self._aggregate(request)
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        after = request.query.get("after", "")
        rows = await self._running().store.streams(f"{name}/", after=f"{name}/{after}" if after else "", limit=limit)
        loaded = await self._load([stream for stream, _ in rows])
        items = tuple(self._folded(name, stream, found) for (stream, _), found in zip(rows, loaded, strict=True))
        return json_answer(AggregateList(items, next=items[-1].key if len(items) == limit else None))

    async def aggregate(self, request: Request) -> Response:
        """One aggregate, now or as it was at a position of the log."""
        name, key = self._aggregate(request), request.params["key"]
        at, head = request.number("at", 0, POSITION_MAX), self._running().writer.head
        if at > head:
            raise Invalid(
                f"at: the log ends at {head}; give a position up to it",
                errors=[("at", f"past the end of the log, {head}")],
            )
        stream = f"{name}/{key}"
        (loaded,) = await self._load([stream], at)
        if not loaded.records and loaded.snapshot is None:
            raise NotFound(f"there is no {stream[:200]}" + (f" at position {at}" if at else ""))
        return json_answer(msgspec.structs.replace(self._folded(name, stream, loaded), at=at or head))

    async def _load(self, streams: list[str], at: int = 0) -> list[Loaded]:
        """Load streams from their snapshots, or from their records alone if a snapshot has another shape."""
        found = await self._node.store.load(streams, upto=at) if streams else []
        if all(self._node.streams.fits(stream, one) for stream, one in zip(streams, found, strict=True)):
            return found
        return await self._node.store.load(streams, upto=at, snapshots=False)

    def _aggregate(self, request: Request) -> str:
        name = request.params["type"]
        if name not in self._node.service.aggregates:
            there = ", ".join(self._node.service.aggregates) or "none"
            raise NotFound(f"{self._node.name} has no aggregate {name[:200]!r}; it has {there}")
        return name

    def _folded(self, name: str, stream: str, loaded: Loaded) -> AggregateStatus:
        """Version and state; if the log cannot be folded, the reason replaces the state."""
        key = stream.partition("/")[2]
        try:
            state, version = self._node.dispatch.folder_of(stream).fold(stream, loaded)
        except Exception as error:  # noqa: BLE001 - a user's evolver failed: the list goes on
            last = loaded.records[-1].version if loaded.records else 0
            return AggregateStatus(key, last, None, error=f"cannot be folded: {type(error).__name__}")
        return AggregateStatus(key, version, self._masking.state(self._node.service.aggregates[name].shape, state))

    async def rebuild(self, request: Request) -> Response:
        """Rebuild a view; the old one serves meanwhile."""
        name = request.params["view"]
        await self._running().views.rebuild(name)
        return json_answer(ViewRebuild(name, self._node.views.rebuilding().get(name)), 202)

    async def why(self, request: Request) -> Response:
        """All that this service knows about an id, or about one transaction."""
        asked = {name: request.query[name] for name in ("id", "tx") if request.query.get(name)}
        if len(asked) != 1:
            raise Invalid("give exactly one of id and tx", errors=[("id", "exactly one of the two is given")])
        found, records = await why.why(self._running(), **asked)
        rows = tuple(self._masking.record(self._node.name, record) for record in records)
        return json_answer(msgspec.structs.replace(found, records=rows))

    async def stuck(self, request: Request) -> Response:
        """Sagas that need an operator."""
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        found = await why.stuck(self._running(), after=request.query.get("after", ""), limit=limit)
        return _saga_list(request, found, limit)

    async def parked(self, request: Request) -> Response:
        """Messages that are parked; with `all=1` all waiting messages."""
        found = why.parked(self._running(), everything=request.query.get("all") == "1")
        items, totals = _filtered(request, found, lambda message: message.error)
        return json_answer(WaitingList(items, totals))

    async def unsettled(self, request: Request) -> Response:
        """Sagas that have not ended; `older`: seconds since they began."""
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        older = request.number("older", 0, 10**9) * 1_000_000
        after = request.query.get("after", "")
        found = await why.unsettled(self._running(), older_us=older, after=after, limit=limit)
        return _saga_list(request, found, limit)

    def _running(self) -> Node:
        if not self._node.takes_work:
            raise Unavailable(f"{self._node.name} is not running")
        return self._node


def _entry(stream: str, saga: OpenSaga) -> SagaEntry:
    return SagaEntry(stream, saga.status, saga.step, saga.cause, saga.overdue, saga.tx, saga.at)


def _saga_list(request: Request, found: list[ListedSaga], limit: int) -> Response:
    """A page of sagas, filtered; the next page begins after the last saga that was found, even if it was filtered
    out."""
    items, totals = _filtered(request, found, lambda saga: saga.blocked_by)
    return json_answer(SagaList(items, totals, next=found[-1].id if len(found) == limit else None))


def _filtered(
    request: Request, found: Sequence[Listed], cause: Callable[[Listed], str]
) -> tuple[tuple[Listed, ...], dict[str, int]]:
    """The items that match the query, and their number by cause."""
    items = list(found)
    for name in FILTERS:
        if name in request.query:
            items = [one for one in items if _field(one, name) == request.query[name]]
    if text := request.query.get("cause", ""):
        items = [one for one in items if text in cause(one) or text == _field(one, "cause")]
    if oldest := request.number("older", 0, 10**9) * 1_000_000:
        items = [one for one in items if one.now - one.counted_from >= oldest]
    totals = Counter(map(cause, items))
    return tuple(items), dict(totals.most_common())


def _field(one: ListedSaga | ListedWaiting, name: str) -> str:
    """A field by its name in the query; empty if the item has no such field."""
    return str(getattr(one, "producer" if name == "from" else name, ""))
