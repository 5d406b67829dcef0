"""The client over HTTP: what `Client.http` uses to run commands and ask views of services by URL.

The outcomes are the same as in process: a recorded rejection is an Outcome with a Rejection, and every other problem is
raised as the exception that the service raised. A network error is `Unreachable`: the outcome of the command is
unknown, and the caller should ask again with the same key.
"""

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from holdfast.core.declare.message import Command, Rejection, decode_stored, encode, message_of
from holdfast.core.log.key import label
from holdfast.core.log.record import parse_record_id
from holdfast.core.wire.problem import error_of
from holdfast.errors import NotFound, Rejected, Unreachable
from holdfast.runtime.decide.outcomes import Outcome
from holdfast.runtime.feeds.views import ViewAnswer
from holdfast.transports.http import payload
from holdfast.web.commands import CORRELATION, POSITION, TRANSACTION, TYPE
from holdfast.web.userroutes import BEHIND, POSITIONS, STALE

MARGIN_SECONDS = 10.0
"""How much longer the caller waits than the service."""


class HttpCaller:
    """Services by URL."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = {name: url.rstrip("/") for name, url in urls.items()}
        self._session: aiohttp.ClientSession | None = None

    async def run(
        self, service: str, command: Command[Any], *, key: str, correlation: str, debug: bool, wait_seconds: float
    ) -> Outcome:
        """Run a command. Raises CommandErrors, Unreachable."""
        message = message_of(command)
        headers = {"Content-Type": "application/json", "Prefer": f"wait={wait_seconds:g}"}
        if key:
            headers["Idempotency-Key"] = label(key, "key")
        if correlation:
            headers[CORRELATION] = label(correlation, "correlation")
        if debug:
            headers["debug-log-enabled"] = "true"
        path = f"/commands/{message.stored}"
        try:
            told, data = await self._ask(service, "POST", path, encode(command), headers, wait_seconds)
        except _Refusal as refusal:
            if not isinstance(refusal.error, Rejected):
                raise refusal.error from None
            no = Rejection(refusal.error.code, refusal.error.message, refusal.error.facts)
            return Outcome(refusal.headers.get(TRANSACTION, ""), no, _number(refusal.headers.get(POSITION, "")))
        event = decode_stored(message.home, told.get(TYPE, ""), data)
        return Outcome(told.get(TRANSACTION, ""), event, _number(told.get(POSITION, "")))

    async def query(
        self, service: str, view: str, key: str, at_least: Mapping[str, int], transaction: str, wait_seconds: float
    ) -> ViewAnswer:
        """Ask a view; the row is None if there is none with that key. Raises NotFound, Invalid, Unreachable."""
        parts = [part.replace("%2F", "/").replace("%25", "%") for part in key.split("/")]
        path = f"/views/{quote(view, safe='')}/{'/'.join(quote(part, safe='') for part in parts)}"
        asked = {"wait": f"{wait_seconds:g}"}
        if at_least:
            asked["at_least"] = ",".join(f"{name}@{position}" for name, position in at_least.items())
        if transaction:
            asked["transaction"] = transaction
        row: Any = None
        try:
            told, data = await self._ask(service, "GET", f"{path}?{urlencode(asked)}", b"", {}, wait_seconds)
            row = msgspec.json.decode(data)
        except _Refusal as refusal:
            told = refusal.headers
            if not isinstance(refusal.error, NotFound) or POSITIONS not in told:
                raise refusal.error from None
        found = [parse_record_id(text) for text in told.get(POSITIONS, "").split(",")]
        positions = dict(one for one in found if one is not None)
        return ViewAnswer(row, positions, told.get(BEHIND) == "true", told.get(STALE, ""))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, service: str, method: str, path: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[Mapping[str, str], bytes]:
        if service not in self._urls:
            raise NotFound(f"the URL of {service!r} is not known; name it in Client.http")
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        url = URL(self._urls[service] + path, encoded=True)
        limit = aiohttp.ClientTimeout(total=seconds + MARGIN_SECONDS)
        try:
            async with self._session.request(
                method, url, data=payload(body), headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                data = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{service} does not answer: {error or type(error).__name__}") from None
        told = cast(Mapping[str, str], answer.headers)
        if answer.status == 200:
            return told, data
        retry = told.get("Retry-After", "")
        seconds = float(retry) if retry.isdecimal() else 1.0
        raise _Refusal(error_of(answer.status, data, retry_after_seconds=seconds), told)


class _Refusal(Exception):
    """A problem, with the headers of its answer."""

    def __init__(self, error: Exception, headers: Mapping[str, str]) -> None:
        super().__init__(str(error))
        self.error, self.headers = error, headers


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
