"""The table of routes: which handler answers which method and path.

Fixed paths are one look-up, so that commands and exchange cost nothing; the others are compared part by part. Comes
after the request, before the handlers. A path nobody has is a 404, one that takes other methods a 405.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from holdfast.errors import NotFound
from holdfast.web.http import Answer, Request
from holdfast.web.problems import HttpError

Handler = Callable[[Request], Awaitable[Answer]]
Found = tuple[dict[str, Handler], dict[str, str]]
"""Handlers by method, and the path's parameters."""

ROUTES = (
    "POST /commands/{type}",
    "GET /transactions/{tx}",
    "GET /views/{view}/{key}",
    "GET /events",
    "POST /exchange",
    "GET /exchange/{tx}",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /ops/trail",
    "GET /ops/log",
    "GET /ops/progress",
    "GET /ops/sagas",
    "GET /ops/sagas/{id}",
    "GET /ops/stages",
    "GET /ops/aggregates/{type}",
    "GET /ops/aggregates/{type}/{key}",
    "POST /ops/views/{view}/rebuild",
    "POST /ops/repairs",
)
"""What every service answers, beside its own routes."""
RESERVED = frozenset(route.split("/")[1] for route in ROUTES)
"""First parts of a path that are no service's own."""
REST = ("key", "id")
"""Parameters that take all parts to the end: `/views/Shelf/a/b` is the composite key (a, b), `a%2Fb` one part."""


class Table:
    """Routes of one service."""

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._patterns: dict[str, dict[str, dict[str, Handler]]] = {}
        """First part of a path (or nothing, where that is a parameter) -> pattern -> handlers by method."""

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Let a handler answer a method and a path; `{name}` stands for one part of it."""
        first = path.split("/")[1]
        patterns = self._patterns.setdefault("" if first.startswith("{") else first, {})
        found = patterns if "{" in path else self._fixed
        found.setdefault(path, {})[method] = handler

    def find(self, path: str, method: str) -> Found | None:
        """(handlers by method, path parameters) of a path that is not decoded yet; None where there is none.

        Of several patterns that fit the first that takes the method is meant; where none does, all they take is told.
        """
        if fixed := self._fixed.get(path):
            return fixed, {}
        method = "GET" if method == "HEAD" else method
        parts = path.split("/")[1:]
        others: dict[str, Handler] = {}
        for first in (unquote(parts[0], errors="replace"), ""):
            for pattern, handlers in self._patterns.get(first, {}).items():
                params = _match(pattern.split("/")[1:], parts)
                if params is not None:
                    if method in handlers:
                        return handlers, params
                    others |= handlers
        plain = unquote(path, errors="replace")
        found = self._fixed.get(plain) or others
        return (found, {}) if found else None


def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    rest = pattern[-1][1:-1] if pattern[-1][1:-1] in REST else ""
    if len(parts) < len(pattern) or (len(parts) > len(pattern) and not rest):
        return None
    params: dict[str, str] = {}
    for wanted, part in zip(pattern, parts, strict=False):
        if wanted.startswith("{"):
            if not part:
                return None
            params[wanted[1:-1]] = unquote(part, errors="replace")
        elif wanted != unquote(part, errors="replace"):
            return None
    if rest:
        params[rest] = "/".join(_escaped(part) for part in parts[len(pattern) - 1 :])
    return params


def _escaped(part: str) -> str:
    """A part of a path as a part of a key (`core.log.key.join_key`)."""
    return unquote(part, errors="replace").replace("%", "%25").replace("/", "%2F")


def handler_for(methods: dict[str, Handler], method: str) -> Handler:
    """The handler of a method; HEAD is a GET without a body. Raises HttpError 405."""
    found = methods.get("GET" if method == "HEAD" else method)
    if found is None:
        allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
        raise HttpError(405, "Method Not Allowed", f"{method} is not taken here; {allowed} is", {"Allow": allowed})
    return found


def nothing_at(path: str, services: str) -> NotFound:
    """The refusal of a path that nobody has."""
    return NotFound(f"there is nothing at {path[:200]}; {services}")
