"""`/ops`: what an operator asks of one service.

Every answer is JSON with sensitive fields masked; lists are pages with `next`. Reads come from the store and from what
the node keeps in memory; repairs are in `web.repairs`. Comes after trust is checked (`web.app`).
Fails with `NotFound`, `Invalid` and `StoreError`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast.core.declare.message import Rejection, message_of
from holdfast.core.log.record import REJECTED
from holdfast.core.saga.progress import SagaState
from holdfast.errors import Invalid, NotFound, Unavailable
from holdfast.ports.store import Loaded
from holdfast.runtime.inbox.doubt import coordinator_of
from holdfast.runtime.node import Node
from holdfast.runtime.ops import why as inquiry
from holdfast.runtime.ops.audit import reading
from holdfast.web.http import Answer, Request, json_answer
from holdfast.web.masking import Masking

PAGE_DEFAULT, PAGE_MAX, BRIEF_MAX = 100, 1000, 10_000
TRAIL_MAX = 10_000
POSITION_MAX = 2**63 - 1
STATUSES = ("running", "undoing", "committed", "cancelling", "stuck")


class OpsRoutes:
    """The handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._masking = Masking(node.service)

    async def trail(self, request: Request) -> Answer:
        """Every record of this service that belongs to one id."""
        asked = {name: request.query[name] for name in ("tx", "correlation", "stream") if request.query.get(name)}
        if len(asked) != 1:
            raise Invalid("name one of tx, correlation, stream", errors=[("tx", "exactly one of the three is given")])
        limit = max(1, request.number("limit", PAGE_MAX, TRAIL_MAX))
        records = await self._running().store.related(**asked, limit=limit)
        rows = [self._masking.record(self._node.name, record) for record in records]
        return json_answer({"records": rows, "complete": len(rows) < limit})

    async def log(self, request: Request) -> Answer:
        """Records of every kind after a position; `brief=1`: as an audit reads them, with what was received."""
        after = request.number("after", 0, POSITION_MAX)
        if request.query.get("brief") == "1":
            page = await reading(self._running(), after, max(1, request.number("limit", PAGE_DEFAULT, BRIEF_MAX)))
            records = tuple(self._masking.brief(record) for record in page.records)
            return json_answer(msgspec.structs.replace(page, records=records))
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        head = self._running().writer.head
        page = await self._node.store.read(after, limit, upto=head) if after < head else None
        rows = [self._masking.record(self._node.name, record) for record in (page.records if page else ())]
        return json_answer({"records": rows, "upto": page.upto if page else after, "head": head})

    async def progress(self, request: Request) -> Answer:
        """How far everything is."""
        return json_answer(self._node.progress())

    async def sagas(self, request: Request) -> Answer:
        """Sagas that have not ended."""
        status = request.query.get("status", "")
        if status not in ("", *STATUSES):
            raise Invalid(f"status: one of {', '.join(STATUSES)}", errors=[("status", "not a status of an open saga")])
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        found = await self._running().sagas(status=status, after=request.query.get("after", ""), limit=limit)
        items = [{"id": stream, **_entry(entry)} for stream, entry in found]
        return json_answer({"items": items, "next": items[-1]["id"] if len(items) == limit else None})

    async def saga(self, request: Request) -> Answer:
        """One saga, ended or not: what was asked, answered and undone."""
        stream = request.params["id"]
        name = stream.partition("/")[0]
        if name not in self._node.service.sagas:
            raise NotFound(f"{self._node.name} has no saga {name[:200]!r}; write Type/id")
        (loaded,) = await self._running().store.load([stream])
        state, _ = self._node.dispatch.folder_of(stream).fold(stream, loaded)
        if state is None:
            raise NotFound(f"{self._node.name} has no saga {stream[:200]}")
        return json_answer(self._saga(stream, state, loaded))

    def _saga(self, stream: str, state: SagaState, loaded: Loaded) -> Mapping[str, Any]:
        first, last = loaded.records[0], loaded.records[-1]
        steps = [
            {
                "version": version, "step": asked.step, "index": asked.index, "attempt": asked.attempt,
                "undoes": asked.undoes or None, "command": self._shown(asked.command),
                "answer": self._shown(state.answers[version]) if version in state.answers else None,
            }
            for version, asked in sorted(state.asked.items())
        ]  # fmt: skip
        return {
            "id": stream, "status": state.status, "tx": first.tx, "correlation": first.correlation,
            "begun_at": first.at, "at": last.at, "version": state.version,
            "message": self._shown(state.begun.message) if state.begun else None, "steps": steps,
            "skipped": sorted(state.skipped), "overdue": sorted(state.overdue),
            "cause": self._masking.by_name(msgspec.to_builtins(state.cause)) if state.cause else None,
            "stuck": msgspec.to_builtins(state.stuck) if state.stuck else None,
        }  # fmt: skip

    def _shown(self, message: Any) -> Mapping[str, Any]:
        value = msgspec.to_builtins(message, str_keys=True)
        stored = REJECTED if isinstance(message, Rejection) else message_of(message).stored
        return {"type": stored, "data": self._masking.message(stored, value)}

    async def stages(self, request: Request) -> Answer:
        """What staged transactions hold here, since when, and who waits for it; of one also what is known of it."""
        node, tx = self._running(), request.query.get("tx", "")
        held = [
            {
                "stream": stream, "tx": hold.tx, "correlation": hold.correlation, "stage": hold.stage,
                "coordinator": coordinator_of(hold.stage), "began": hold.at, "since": hold.since,
                "beside": hold.beside, "commands": len(hold.parts), "waiting": self._waiters(stream),
            }
            for stream, hold in node.dispatch.stages.items() if tx in ("", hold.tx)
        ]  # fmt: skip
        decisions = [msgspec.to_builtins(one) for one in node.dispatch.stages.decisions.values()]
        found: dict[str, Any] = {"held": held, "resolved": decisions}
        if tx:
            found["standing"] = msgspec.to_builtins(await node.standing(tx))
        return json_answer(found)

    def _waiters(self, stream: str) -> list[dict[str, Any]]:
        exchanged = [
            {"tx": one.record.tx, "type": one.record.type, "from": one.producer, "since": one.since}
            for one in self._node.waiting.on(stream)
        ]
        edge = [
            {"tx": tx, "type": stored, "from": "", "since": at}
            for found, tx, stored, at in self._node.turns.waiters() if found == stream
        ]  # fmt: skip
        return exchanged + edge

    async def aggregates(self, request: Request) -> Answer:
        """Aggregates of one type by key, with their state now."""
        name = self._aggregate(request)
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        after = request.query.get("after", "")
        rows = await self._running().store.streams(f"{name}/", after=f"{name}/{after}" if after else "", limit=limit)
        loaded = await self._load([stream for stream, _ in rows])
        items: list[dict[str, Any]] = []
        for (stream, _), found in zip(rows, loaded, strict=True):
            items.append({"key": stream.partition("/")[2], **self._folded(name, stream, found)})
        return json_answer({"items": items, "next": items[-1]["key"] if len(items) == limit else None})

    async def aggregate(self, request: Request) -> Answer:
        """One aggregate, now or as it was at a position of the log."""
        name, key = self._aggregate(request), request.params["key"]
        at, head = request.number("at", 0, POSITION_MAX), self._running().writer.head
        if at > head:
            raise Invalid(f"at: the log ends at {head}", errors=[("at", f"past the end of the log, {head}")])
        stream = f"{name}/{key}"
        (loaded,) = await self._load([stream], at)
        if not loaded.records and loaded.snapshot is None:
            raise NotFound(f"there is no {stream[:200]}" + (f" at position {at}" if at else ""))
        return json_answer({"key": key, **self._folded(name, stream, loaded), "at": at or head})

    async def _load(self, streams: list[str], at: int = 0) -> list[Loaded]:
        """Streams from their snapshots; from their records alone where a snapshot is of another shape."""
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

    def _folded(self, name: str, stream: str, loaded: Loaded) -> dict[str, Any]:
        """Version and state; where the log cannot be folded, why in the place of the state."""
        aggregate = self._node.service.aggregates[name]
        try:
            state, version = self._node.dispatch.folder_of(stream).fold(stream, loaded)
        except Exception as error:  # noqa: BLE001 - a user's evolver: the list goes on
            last = loaded.records[-1].version if loaded.records else 0
            return {"version": last, "state": None, "error": f"cannot be folded: {type(error).__name__}"}
        return {"version": version, "state": self._masking.state(aggregate.shape, state)}

    async def rebuild(self, request: Request) -> Answer:
        """Build a view anew; the old one serves meanwhile."""
        name = request.params["view"]
        await self._running().views.rebuild(name)
        return json_answer({"view": name, "generation": self._node.views.rebuilding().get(name)}, 202)

    async def why(self, request: Request) -> Answer:
        """All that is known here of an id, or of one transaction."""
        asked = {name: request.query[name] for name in ("id", "tx") if request.query.get(name)}
        if len(asked) != 1:
            raise Invalid("name one of id, tx", errors=[("id", "exactly one of the two is given")])
        found, records = await inquiry.why(self._running(), **asked)
        rows = [self._masking.record(self._node.name, record) for record in records]
        return json_answer({**found, "records": rows})

    async def stuck(self, request: Request) -> Answer:
        """Sagas that need a person."""
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        items = await inquiry.stuck(self._running(), after=request.query.get("after", ""), limit=limit)
        return _listed(request, items, _blocked, limit)

    async def parked(self, request: Request) -> Answer:
        """Messages that are parked; with `all=1` whatever waits."""
        items = inquiry.parked(self._running(), everything=request.query.get("all") == "1")
        return _listed(request, items, lambda one: str(one["error"]), 0)

    async def unsettled(self, request: Request) -> Answer:
        """Sagas that have not ended; `older`: seconds since they began."""
        limit = max(1, request.number("limit", PAGE_DEFAULT, PAGE_MAX))
        older = request.number("older", 0, 10**9) * 1_000_000
        after = request.query.get("after", "")
        items = await inquiry.unsettled(self._running(), older_us=older, after=after, limit=limit)
        return _listed(request, items, _blocked, limit)

    def _running(self) -> Node:
        if not self._node.takes_work:
            raise Unavailable(f"{self._node.name} is not running")
        return self._node


def _entry(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("status", "step", "cause", "overdue", "tx", "at")}


def _blocked(saga: Mapping[str, Any]) -> str:
    """What a saga does not go on for."""
    waits = sorted({f"{'undo of ' if one['undo'] else ''}{one['step']} of {one['service']}" for one in saga["waits"]})
    return str(saga["stuck"] or (f"waits for {', '.join(waits)}" if waits else saga["status"]))


def _listed(
    request: Request, items: list[dict[str, Any]], cause: Callable[[dict[str, Any]], str], limit: int
) -> Answer:
    """A page of a list: filtered, with how many there are by cause. `limit` 0: all of it is here."""
    more = items[-1]["id"] if limit and len(items) == limit else None
    oldest = request.number("older", 0, 10**9) * 1_000_000
    for name in ("type", "fingerprint", "from", "stream", "message", "tx"):
        if name in request.query:
            items = [one for one in items if str(one.get(name, "")) == request.query[name]]
    if text := request.query.get("cause", ""):
        items = [one for one in items if text in cause(one) or text == one.get("cause")]
    if oldest:
        items = [one for one in items if one["now"] - one.get("begun", one["since"]) >= oldest]
    totals = Counter(map(cause, items))
    return json_answer({"items": items, "totals": dict(totals.most_common()), "next": more})
