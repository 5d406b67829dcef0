"""Requests and answers: the part of HTTP that the surface needs, on raw ASGI.

A request is read whole, up to a limit; an answer is a value. Comes before the routes, after the ASGI server.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from holdfast.errors import Invalid
from holdfast.web.problems import HttpError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FRAME_BODY_BYTES_MAX = 16 * 1024 * 1024
"""The limit on the body of a frame: its payloads and the JSON around them."""
BODY_BYTES_MAX = 1024 * 1024
"""The limit on any other body: a quarter of the largest record of a store, because a saga keeps messages inside its
own."""


class Response(msgspec.Struct):
    """Status, headers and body; `stream` replaces the body for server-sent events."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = {}
    type: str = "application/json"
    stream: AsyncGenerator[bytes] | None = None


class Request:
    """One request; its body is read on demand."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.raw_query: bytes = scope.get("query_string", b"")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        query = f"?{self.raw_query.decode('latin-1')}" if self.raw_query else ""
        self.target = raw.partition(b"?")[0].decode("latin-1") + query
        """The requested path with its query, as a signature covers it."""
        path = self.target.partition("?")[0]
        self.mount = _mount(scope.get("root_path", ""), path)
        """The prefix where this service is mounted; it comes before `path`."""
        self.path = path[len(self.mount) :] or "/"
        """The path, not decoded, so that an escaped slash stays inside its part."""
        self.headers: dict[str, str] = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        """Headers by name in small letters; the last one of each name."""
        self.params: dict[str, str] = {}
        """Path parameters, decoded."""
        self.out: dict[str, str] = {}
        """Headers for the answer, whichever it is."""
        self.site: Any = None
        """The service that answers the request, once it is known (for its counters)."""
        self.body_bytes_max = BODY_BYTES_MAX
        self._receive = receive
        self._body: bytes | None = None
        self._query: dict[str, str] | None = None

    @property
    def query(self) -> dict[str, str]:
        """Query parameters by name; the last one of each name."""
        if self._query is None:
            self._query = dict(parse_qsl(self.raw_query.decode("latin-1"), keep_blank_values=True))
        return self._query

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from the query, bounded. Raises Invalid."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Invalid(f"{name}: {text!r} is not a whole number", errors=[(name, "not a whole number")])
        return min(int(text), most)

    def seconds(self, name: str, default: float, most: float) -> float:
        """Seconds from the query, bounded. Raises Invalid."""
        return bounded_seconds(name, self.query.get(name, ""), default, most)

    async def body(self) -> bytes:
        """The whole body. Raises HttpError 413 if it is too large."""
        if self._body is None:
            parts: list[bytes] = []
            size, more = 0, True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise HttpError(400, "Bad Request", "the request ended before its body did")
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > self.body_bytes_max:
                    raise HttpError(413, "Content Too Large", f"the body may have at most {self.body_bytes_max} bytes")
                parts.append(part)
                more = message.get("more_body", False)
            self._body = parts[0] if len(parts) == 1 else b"".join(parts)
        return self._body

    async def json_body(self) -> bytes:
        """The body of a request that must be JSON. Raises HttpError 415."""
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise HttpError(415, "Unsupported Media Type", f"send application/json, not {kind}")
        return await self.body()

    async def gone(self) -> None:
        """Return when the caller has disconnected."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _mount(root: str, path: str) -> str:
    """The beginning of a path that matches the root (which is decoded); empty if the path does not begin with the
    root."""
    root = root.rstrip("/")
    if not root:
        return ""
    begins = "/".join(path.split("/")[: root.count("/") + 1])
    return begins if unquote(begins, errors="replace") == root else ""


def bounded_seconds(name: str, text: str, default: float, most: float) -> float:
    """Seconds written as a decimal number. Raises Invalid."""
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise Invalid(f"{name}: {text!r} is not a number of seconds", errors=[(name, "not a number of seconds")])
    return min(value, most)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer with any plain value."""
    return Response(msgspec.json.encode(value, enc_hook=str), status, dict(headers or {}))


async def send_answer(answer: Response, request: Request, send: Send) -> None:
    """Send an answer; a stream is sent until it ends or the caller disconnects."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    headers.append((b"content-type", answer.type.encode("latin-1")))
    if answer.stream is None:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.stream is None:
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})
        return
    sending = asyncio.ensure_future(_pump(answer.stream, send))
    await race(sending, request.gone())
    await asyncio.gather(sending, return_exceptions=True)


async def race(first: Awaitable[Any], *others: Awaitable[Any]) -> bool:
    """Wait until one of them ends, and cancel the others; True if it was the first one."""
    tasks = [asyncio.ensure_future(one) for one in (first, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)


async def _pump(stream: AsyncGenerator[bytes], send: Send) -> None:
    async with contextlib.aclosing(stream):
        async for part in stream:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
