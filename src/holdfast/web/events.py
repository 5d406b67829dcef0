"""The feed over HTTP: `GET /events` as a page, as a page that waits, or as server-sent events.

A page is a CloudEvents batch. Headers say how far the search went, so that a reader moves on even if nothing matches.
Comes after the routes, before `Node.feed`. Fails with `Forked` for a checkpoint this log has never given out.
"""

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from holdfast.core.log.record import Record
from holdfast.core.wire.cloudevent import BATCH_TYPE, to_batch, to_event
from holdfast.core.wire.frame import FeedPage, FeedRequest, decode_frame, encode_frame
from holdfast.core.wire.signature import HEAD, INCARNATION, UPTO
from holdfast.errors import HoldfastError, Unavailable
from holdfast.runtime.node import FEED_WAIT_SECONDS_MAX, Node
from holdfast.web.http import Request, Response, race

EVENTS_DEFAULT, EVENTS_MAX = 100, 1000
PAGE_BYTES_MAX = 4 * 1024 * 1024
"""The limit on the payload bytes of one page; a page that reaches it ends early, and its `upto` says where."""
HEARTBEAT_SECONDS = 15.0


class EventRoutes:
    """`GET /events` and `POST /exchange` of one node."""

    def __init__(self, node: Node, stopping: asyncio.Event) -> None:
        self._node, self._stopping = node, stopping

    async def standing(self, request: Request) -> Response:
        """Answer with what this service knows about a staged transaction."""
        return Response(msgspec.json.encode(await self._node.standing(request.params["tx"])))

    async def exchange(self, request: Request) -> Response:
        """Take a peer's frame and answer with one."""
        return Response(encode_frame(await self._node.exchange(decode_frame(await request.json_body()))))

    async def events(self, request: Request) -> Response:
        """Answer with a page of the feed, or with a stream."""
        types = tuple(filter(None, request.query.get("types", "").split(",")))
        asked = FeedRequest(
            request.number("after", 0, 10**18),
            types,
            request.number("limit", EVENTS_DEFAULT, EVENTS_MAX),
            round(request.seconds("wait", 0.0, FEED_WAIT_SECONDS_MAX) * 1000),
            request.query.get("incarnation", "")[:100],
        )
        if "text/event-stream" in request.headers.get("accept", ""):
            return await self._stream(asked, request)
        page = _bounded(await self._page(asked, request))
        return Response(to_batch(self._node.name, page.records), 200, _headers(page), BATCH_TYPE)

    async def _page(self, asked: FeedRequest, request: Request) -> FeedPage:
        """A page; a waiting request ends early if the service stops or the caller disconnects."""
        if not asked.wait_ms:
            return await self._node.feed(asked)
        await request.body()
        if self._stopping.is_set():  # an empty page at once would only make the reader ask again at once
            page = await self._node.feed(msgspec.structs.replace(asked, wait_ms=0))
            if not page.records:
                raise Unavailable(f"{self._node.name} is about to stop", retry_after_seconds=1.0)
            return page
        feeding = asyncio.ensure_future(self._node.feed(asked))
        if not await race(feeding, self._stopping.wait(), request.gone()):
            asked = msgspec.structs.replace(asked, wait_ms=0)
            return await self._node.feed(asked)
        return await feeding

    async def _stream(self, asked: FeedRequest, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        if last.isascii() and last.isdigit() and len(last) <= 18:
            asked = msgspec.structs.replace(asked, after=int(last))
        asked = msgspec.structs.replace(asked, limit=min(max(asked.limit, 1), EVENTS_DEFAULT), wait_ms=0)
        first = await self._node.feed(asked)  # an error in the request is answered before the stream begins
        await request.body()
        headers = _headers(first) | {"Cache-Control": "no-store"}
        return Response(b"", 200, headers, "text/event-stream", self._events(asked, first))

    async def _events(self, asked: FeedRequest, page: FeedPage) -> AsyncGenerator[bytes]:
        yield b"retry: 1000\n\n"
        while True:
            yield b"".join(self._event(record) for record in page.records) or b": \n\n"
            if page.upto > (page.records[-1].position if page.records else asked.after):
                yield b"id: %d\n\n" % page.upto
            if self._stopping.is_set() or not self._node.takes_work:
                return
            wait = round(HEARTBEAT_SECONDS * 1000)
            asked = msgspec.structs.replace(asked, after=page.upto, wait_ms=wait, incarnation=page.incarnation)
            feeding = asyncio.ensure_future(self._node.feed(asked))
            if not await race(feeding, self._stopping.wait()):
                return
            try:
                page = await feeding
            except HoldfastError:
                return  # the reader comes back and gets the error then

    def _event(self, record: Record) -> bytes:
        data = msgspec.json.encode(to_event(self._node.name, record))
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (record.position, record.type.encode(), data)


def _headers(page: FeedPage) -> dict[str, str]:
    return {UPTO: str(page.upto), INCARNATION: page.incarnation, HEAD: str(page.head)}


def _bounded(page: FeedPage) -> FeedPage:
    size = 0
    for number, record in enumerate(page.records):
        size += len(record.data)
        if number and size > PAGE_BYTES_MAX:
            return FeedPage(page.records[:number], page.records[number - 1].position, page.incarnation, page.head)
    return page
