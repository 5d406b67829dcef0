"""Who may ask what: the guard of a route, and the one place that judges a request by it.

A guard belongs to a route, and a request is judged by the guard of the route that was found for it, never by the text
of its path: a path can be written in many ways (RFC 3986, section 2.3), a route is one. Comes after the route is found,
before its handler. Fails with `Unauthorized`.
"""

import enum
import hmac
import time
from typing import Literal

from holdfast.core.wire.signature import HEADER, verify
from holdfast.errors import Unauthorized
from holdfast.web.http import Request

Proof = Literal["signature", "operator"]
"""The header `Holdfast-Signature`, or the operator's bearer token."""


class Guard(enum.Enum):
    """Who may ask a route."""

    PUBLIC = "public"
    """Anybody."""
    PEER = "peer"
    """Who knows the secret of the services; where none is configured, anybody."""
    READER = "reader"
    """Who knows that secret or the operator's token; where neither is configured, anybody."""
    OPERATOR = "operator"
    """Who knows the operator's token; where none is configured, nobody."""


class Trust:
    """What a caller has to know: the secret of the services, the operator's token; empty: none is configured."""

    def __init__(self, secret: str, operator_token: str) -> None:
        self._secret, self._token = secret, operator_token

    async def check(self, guard: Guard, request: Request) -> None:
        """Raises Unauthorized where the caller may not ask what is guarded so."""
        if guard is Guard.PUBLIC:
            return
        if guard is not Guard.PEER and self._is_operator(request):
            return
        if guard is Guard.OPERATOR and not self._token:
            raise Unauthorized("this request needs the operator's token, and none is configured; set operator_token")
        if guard is Guard.OPERATOR or (guard is Guard.READER and self._token and not self._secret):
            raise Unauthorized("this request needs the operator's token (Authorization: Bearer ...)")
        if self._secret:
            given = request.headers.get(HEADER.lower(), "")
            body = await request.body()
            verify(self._secret, given, request.method, request.target, body, int(time.time()))

    def proofs(self, guard: Guard) -> tuple[Proof, ...]:
        """What a caller may show to be let in, any of it; nothing: anybody is let in."""
        if guard is Guard.OPERATOR:
            return ("operator",)
        signed: tuple[Proof, ...] = ("signature",) if self._secret and guard is not Guard.PUBLIC else ()
        bearer: tuple[Proof, ...] = ("operator",) if self._token and guard is Guard.READER else ()
        return signed + bearer

    def _is_operator(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return (
            bool(self._token)
            and kind.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        )
