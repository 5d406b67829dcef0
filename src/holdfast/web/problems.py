"""Refusals of the surface: the problems of `core.wire.problem` for every caller, and the errors that only HTTP has.

Comes after the handlers: every answer of the surface with a status of 400 or more is made here.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.core.wire.problem import MEDIA_TYPE, problem
from holdfast.errors import Busy, StoreError, Unauthorized, Unavailable


class HttpError(Exception):
    """A refusal that only HTTP has: of a method, a media type or a size."""

    def __init__(self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.headers = status, title, detail, dict(headers or {})


class Refused(Exception):
    """Another exception, with headers for its answer."""

    def __init__(self, error: Exception, headers: Mapping[str, str]) -> None:
        super().__init__(str(error))
        self.error, self.headers = error, dict(headers)


def problem_of(error: Exception) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) for an exception."""
    headers = {"Content-Type": MEDIA_TYPE}
    if isinstance(error, Refused):
        headers |= error.headers
        error = error.error
    if isinstance(error, HttpError):
        body: dict[str, Any] = {"type": "about:blank", "title": error.title, "status": error.status}
        return error.status, headers | error.headers, msgspec.json.encode(body | {"detail": error.detail})
    status, body = problem(error)
    if isinstance(error, Busy | Unavailable | StoreError) and status == 503:
        seconds = error.retry_after_seconds if isinstance(error, Busy | Unavailable) else 1.0
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Holdfast-Signature, Bearer"
    return status, headers, msgspec.json.encode(body, enc_hook=str)
