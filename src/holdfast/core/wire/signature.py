"""Trust between services: one shared secret signs requests and the answers of an exchange.

HMAC-SHA256 over time, method, path with query, and body. A signature is valid for a few minutes, so that an intercepted
request cannot be used later; a repeated exchange within that time does no harm, because its cursors refuse old records.
Fails with `Unauthorized`.
"""

import hashlib
import hmac
from collections.abc import Mapping

from holdfast.errors import Unauthorized

HEADER = "Holdfast-Signature"
AGE_SECONDS_MAX = 300
UPTO, INCARNATION, HEAD = "Holdfast-Upto", "Holdfast-Incarnation", "Holdfast-Head"
"""Response headers of a feed: how far the search went, which incarnation wrote that position, and where the log
ends."""


def answer_path(asked: str, headers: Mapping[str, str]) -> str:
    """The text that replaces the path when an answer is signed: the signature of its request, so that no answer fits
    another request, and the headers that matter (names in small letters)."""
    return " ".join([asked, *(headers.get(name.lower(), "") for name in (UPTO, INCARNATION, HEAD))])


def sign(secret: str, method: str, path: str, body: bytes, at: int) -> str:
    """The value of the `Holdfast-Signature` header at a time (seconds since 1970-01-01 UTC)."""
    text = f"{at}\n{method}\n{path}\n".encode() + body
    return f"t={at},v1={hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"


def verify(secret: str, signature: str, method: str, path: str, body: bytes, now: int) -> None:
    """Check a signature. Raises Unauthorized if it is missing, too old or wrong."""
    fields = {name: value for name, _, value in (part.partition("=") for part in signature.split(","))}
    at = fields.get("t", "")
    if not at.isascii() or not at.isdigit() or len(at) > 12 or "v1" not in fields:
        raise Unauthorized(f"the header {HEADER} is missing or does not have the form t=SECONDS,v1=HEX")
    if abs(now - int(at)) > AGE_SECONDS_MAX:
        raise Unauthorized("the signature is older than {AGE_SECONDS_MAX} seconds, or one of the two clocks is wrong")
    if not hmac.compare_digest(sign(secret, method, path, body, int(at)).encode(), signature.encode()):
        raise Unauthorized("the signature is wrong: check that both sides have the same secret")
