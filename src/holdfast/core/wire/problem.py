"""Problems: turns an exception into `application/problem+json` (RFC 9457), and a problem into the exception again.

The last part of `type` is the name of the exception class. Comes after the code that raised, before `web` and
the HTTP transport. The exception of a failed handler and the message of an engine are never shown.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from holdfast import errors
from holdfast.errors import (
    Busy,
    CommandFailed,
    HoldfastError,
    Invalid,
    KeyReused,
    LimitExceeded,
    Pending,
    Rejected,
    StoreError,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
TYPE = "https://holdfast.invalid/problems/"
"""Names a kind of problem, not a page (RFC 9457, section 3.1.1)."""
STATUS: Mapping[str, int] = {
    "Invalid": 422,
    "KeyReused": 422,
    "Rejected": 409,
    "Contradicted": 409,
    "NotFound": 404,
    "Busy": 503,
    "Unavailable": 503,
    "Pending": 504,
    "CommandFailed": 500,
    "Garbled": 400,
    "ProtocolMismatch": 400,
    "Misdirected": 421,
    "Unauthorized": 401,
    "Gap": 409,
    "Forked": 409,
    "LimitExceeded": 413,
}
FAILED = "the service failed; nothing was recorded"


def problem(error: Exception) -> tuple[int, dict[str, Any]]:
    """(status, members) for an exception; an exception that is not meant for callers becomes a 500 without details."""
    if isinstance(error, StoreError) and not isinstance(error, LimitExceeded):
        error = Unavailable("the service's store does not answer now; nothing was recorded, try again")
    name = type(error).__name__
    if not isinstance(error, HoldfastError) or name not in STATUS:
        name, error = "CommandFailed", CommandFailed(FAILED)
    body: dict[str, Any] = {"type": TYPE + name, "title": name, "status": STATUS[name], "detail": str(error)}
    if isinstance(error, Rejected):
        body |= {"code": error.code, "facts": error.facts}
    elif isinstance(error, Invalid):
        body["errors"] = [{"path": path, "detail": reason} for path, reason in error.errors]
    elif isinstance(error, KeyReused):
        body |= {"key": error.key, "field": error.field}
    elif isinstance(error, Pending):
        body["transaction"] = error.tx
    return STATUS[name], body


def error_of(status: int, data: bytes, *, retry_after_seconds: float = 1.0) -> HoldfastError:
    """The exception that a problem stands for; any other answer becomes Unreachable."""
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errors.Unreachable(f"the service answered {status} with a body that is not problem+json")
    name = str(found.get("type", "")).removeprefix(TYPE)
    detail = str(found.get("detail") or found.get("title") or "")
    if name not in STATUS:
        return errors.Unreachable(f"the service answered {status}: {detail}")
    if name == "Rejected":
        no = Rejected(str(found.get("code", "")), detail)
        no.facts = _mapping(found.get("facts"))
        return no
    if name == "KeyReused":
        return KeyReused(str(found.get("key", "")), str(found.get("field", "")))
    if name == "Pending":
        return Pending(str(found.get("transaction", "")))
    if name == "Invalid":
        rows: Any = found.get("errors")
        listed = [_mapping(row) for row in cast(list[Any], rows)] if isinstance(rows, list) else []
        return Invalid(detail, errors=[(str(row.get("path", "$")), str(row.get("detail", ""))) for row in listed])
    made: HoldfastError = getattr(errors, name)(detail)
    if isinstance(made, Busy | Unavailable):
        made.retry_after_seconds = retry_after_seconds
    return made


def _mapping(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
