"""Trust: the guard of a route says who may call it, and this module alone checks a request against it.

A guard belongs to a route. A request is checked by the guard of the route that was found for it, never by the text of
its path, because a path can be written in many ways (RFC 3986, section 2.3). Comes after the route is found,
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
    """The callers that may use a route."""

    PUBLIC = "public"
    """Any caller."""
    PEER = "peer"
    """A caller that knows the secret of the services; any caller if no secret is configured."""
    READER = "reader"
    """A caller that knows that secret or the operator's token; any caller if neither is configured."""
    OPERATOR = "operator"
    """A caller that knows the operator's token; no caller if no token is configured."""


class Trust:
    """The secrets that a caller has to know: the services' secret and the operator's token; an empty one is not
    configured."""

    def __init__(self, secret: str, operator_token: str) -> None:
        self._secret, self._token = secret, operator_token

    async def check(self, guard: Guard, request: Request) -> None:
        """Raise Unauthorized if the caller may not use a route with this guard."""
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
        """The proofs that let a caller in, any one of them; none: every caller is let in."""
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
