"""The HTTP transport, which is a feed too: frames to a peer's `POST /exchange`, feeds from its `GET /events`.

If there is a secret, it signs its requests and checks the answers. Every network error, time-out, oversized or
unreadable answer is `Unreachable` (it is unknown what happened at the peer); a problem that the peer names is raised as
the exception that the peer raised. It keeps connections alive in one session, made when first needed.
"""

import io
import time
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.cloudevent import from_batch
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame, decode_frame, encode_frame
from holdfast.core.wire.problem import error_of
from holdfast.core.wire.signature import HEAD, HEADER, INCARNATION, UPTO, answer_path, sign, verify
from holdfast.errors import Garbled, Misuse, Unauthorized, Unreachable

WHOLE_BYTES_MAX = 512 * 1024
ANSWER_BYTES_MAX = 32 * 1024 * 1024
CONNECT_SECONDS = 5.0
EXCHANGE_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 30.0
"""Shorter than servers keep an idle connection, so that a connection is not closed just when it is used."""


class HttpTransport:
    """Peers by URL, such as `{"stock": "http://127.0.0.1:8001"}`."""

    def __init__(self, urls: Mapping[str, str], *, secret: str = "") -> None:
        self._urls: dict[str, str] = {}
        for peer, url in urls.items():
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise Misuse(f"{peer}: {url!r} is not a URL such as http://127.0.0.1:8001")
            self._urls[peer] = url.rstrip("/")
        self._secret = secret
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Send a frame to a peer and return its answer. Raises Unreachable, or the error that the peer named."""
        _, data = await self._ask(peer, "POST", "/exchange", encode_frame(frame), EXCHANGE_SECONDS)
        return decode_frame(data)

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of a producer's feed. Raises Unreachable, or the error that the producer named."""
        query: dict[str, str | int | float] = {"after": request.after, "limit": request.limit}
        if request.types:
            query["types"] = ",".join(request.types)
        if request.wait_ms:
            query["wait"] = request.wait_ms / 1000
        if request.incarnation:
            query["incarnation"] = request.incarnation
        seconds = EXCHANGE_SECONDS + request.wait_ms / 1000
        headers, data = await self._ask(producer, "GET", f"/events?{urlencode(query)}", b"", seconds)
        upto, head = headers.get(UPTO, ""), headers.get(HEAD, "")
        if not (upto.isascii() and upto.isdigit() and head.isascii() and head.isdigit()):
            raise Garbled(f"{producer} answered a feed without saying how far it goes ({UPTO}, {HEAD})")
        return FeedPage(from_batch(producer, data), int(upto), headers.get(INCARNATION, ""), int(head))

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows about a staged transaction. Raises Unreachable, or the error that the peer named."""
        _, data = await self._ask(peer, "GET", f"/exchange/{quote(tx, safe='')}", b"", EXCHANGE_SECONDS)
        try:
            return msgspec.json.decode(data, type=Standing)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Garbled(f"the answer of {peer} is not the standing of a transaction: {error}") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, peer: str, method: str, path: str, body: bytes, seconds: float
    ) -> tuple[Mapping[str, str], bytes]:
        if peer not in self._urls:
            raise Unreachable(f"the URL of {peer!r} is not known; name it in the settings")
        url = URL(self._urls[peer] + path, encoded=True)
        headers = {"Content-Type": "application/json"} if body else {}
        signature = ""
        if self._secret:
            signature = sign(self._secret, method, url.raw_path_qs, body, int(time.time()))
            headers[HEADER] = signature
        session = self._session = self._session or _session()
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with session.request(
                method, url, data=payload(body), headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                data = await _bounded(answer, peer)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{peer} does not answer: {error or type(error).__name__}") from None
        if self._secret:
            self._check(peer, signature, answer, data)
        if answer.status != 200:
            retry = answer.headers.get("Retry-After", "")
            raise error_of(answer.status, data, retry_after_seconds=float(retry) if retry.isdecimal() else 1.0)
        return answer.headers, data

    def _check(self, peer: str, asked: str, answer: aiohttp.ClientResponse, data: bytes) -> None:
        """Refuse an answer without a valid signature: its sender is unknown, so it proves nothing."""
        told = {name.lower(): value for name, value in answer.headers.items()}
        given = told.get(HEADER.lower(), "")
        try:
            verify(self._secret, given, str(answer.status), answer_path(asked, told), data, int(time.time()))
        except Unauthorized as error:
            raise Unreachable(f"{peer} answered {answer.status} without a valid signature: {error}") from None


def payload(body: bytes) -> bytes | io.BytesIO | None:
    """A body for aiohttp: a large one in parts, so that the loop goes on; None if there is no body."""
    return io.BytesIO(body) if len(body) > WHOLE_BYTES_MAX else body or None


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
    # No cookies and no proxy from the environment: these requests are between services.
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


async def _bounded(answer: aiohttp.ClientResponse, peer: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            answer.close()
            raise Unreachable(f"{peer} answered more than {ANSWER_BYTES_MAX} bytes")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
