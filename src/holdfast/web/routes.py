"""Routes as values, and the table that finds the handler and the guard for a method and a path.

A `Route` describes a route without its handler; the description (`web.openapi`) is made of the same values. Two paths
are the same if their parts are equal, each decoded once; an escaped slash stays inside its part. A fixed path takes one
look-up, so that commands and exchange are cheap; the other paths are compared part by part. Comes after the request,
before `web.trust` and the handlers. An unknown path is a 404, and a path that takes other methods is a 405.
"""

from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from holdfast.errors import NotFound
from holdfast.web.http import BODY_BYTES_MAX, Request, Response
from holdfast.web.problems import HttpError
from holdfast.web.trust import Guard

Handler = Callable[[Request], Awaitable[Response]]


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a route, as the description shows it."""

    name: str
    type: Any = str
    """The type of the parameter; `Annotated` with `msgspec.Meta` for bounds."""
    text: str = ""
    place: Literal["query", "path", "header"] = "query"


class Route(msgspec.Struct, frozen=True):
    """A route without its handler. It must have a guard (`TypeError`)."""

    method: str
    path: str
    """The path; `{name}` stands for one part."""
    guard: Guard
    name: str
    """The name of its handler and operation; empty for a user's route."""
    summary: str
    tag: str
    parameters: tuple[Parameter, ...] = ()
    """The parameters; those of the path only if they are not text."""
    body: Any = None
    """The type of its body; None: it takes no body."""
    answer: Any = None
    """The type of its answer, or a union; None: an object that is not described further."""
    statuses: Mapping[int, str] = msgspec.field(default_factory=lambda: {200: "What was asked for"})
    """The statuses of its answers, and what each means; the first one has the `answer`."""
    media_type: str = "application/json"
    """The media type of the `answer`."""
    body_bytes_max: int = BODY_BYTES_MAX

    def __post_init__(self) -> None:
        if not isinstance(self.guard, Guard):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{self}: a route must have a guard")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Mounted(NamedTuple):
    """A route with its handler."""

    route: Route
    handler: Handler


Found = tuple[dict[str, Mounted], dict[str, str]]
"""The mounted routes by method, and the path's parameters."""

REST = ("key", "id")
"""Parameters that take all parts to the end: `/views/Shelf/a/b` is the composite key (a, b), `a%2Fb` one part."""


class Table:
    """The routes of one service. A reserved first part is never taken for a parameter."""

    def __init__(self, reserved: Set[str] = frozenset()) -> None:
        self.mounted: list[Mounted] = []
        self._reserved = reserved
        self._fixed: dict[str, dict[str, Mounted]] = {}
        self._patterns: dict[str, dict[tuple[str, ...], dict[str, Mounted]]] = {}
        """First part of a path (empty if that is a parameter) -> pattern -> mounted routes by method."""

    def add(self, route: Route, handler: Handler, *, also: str = "") -> None:
        """Mount a handler for a route; `also`: another path of the same route."""
        mounted = Mounted(route, handler)
        self.mounted.append(mounted)
        for path in filter(None, (route.path, also)):
            parts = tuple(path.split("/")[1:])
            if "{" in path:
                patterns = self._patterns.setdefault("" if parts[0].startswith("{") else parts[0], {})
                methods = patterns.setdefault(parts, {})
            else:
                methods = self._fixed[path] = self._fixed.setdefault(plain(path), {})
            methods[route.method] = mounted

    def find(self, path: str, method: str) -> Found | None:
        """(mounted routes by method, path parameters) for a path that is not decoded yet; None if no route fits.

        If several patterns fit, the first one that takes the method wins; if none takes it, all their methods are
        returned.
        """
        if fixed := self._fixed.get(path) or ("%" in path and self._fixed.get(plain(path))):
            return fixed, {}
        method = "GET" if method == "HEAD" else method
        parts = path.split("/")[1:]
        others: dict[str, Mounted] = {}
        first = _decoded(parts[0])
        for begins in (first,) if first in self._reserved else (first, ""):
            for pattern, methods in self._patterns.get(begins, {}).items():
                params = _match(pattern, parts)
                if params is not None:
                    if method in methods:
                        return methods, params
                    others |= methods
        return (others, {}) if others else None


def _match(pattern: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    rest = pattern[-1][1:-1] if pattern[-1][1:-1] in REST else ""
    if len(parts) < len(pattern) or (len(parts) > len(pattern) and not rest):
        return None
    params: dict[str, str] = {}
    for wanted, part in zip(pattern, parts, strict=False):
        if wanted.startswith("{"):
            if not part:
                return None
            params[wanted[1:-1]] = _decoded(part)
        elif wanted != _decoded(part):
            return None
    if rest:
        params[rest] = "/".join(_escaped(part) for part in parts[len(pattern) - 1 :])
    return params


def plain(path: str) -> str:
    """The one normal form of a path: only `%` and a slash inside a part are escaped."""
    return "/".join(_escaped(part) for part in path.split("/"))


def _escaped(part: str) -> str:
    """A part of a path as a part of a key (`core.log.key.join_key`)."""
    return _decoded(part).replace("%", "%25").replace("/", "%2F")


def _decoded(part: str) -> str:
    return unquote(part, errors="replace")


def taken(methods: dict[str, Mounted], method: str) -> Mounted:
    """The route that is mounted for a method; HEAD is a GET without a body. Raises HttpError 405."""
    found = methods.get("GET" if method == "HEAD" else method)
    if found is None:
        allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
        raise HttpError(
            405, "Method Not Allowed", f"{method} is not allowed here; the path takes {allowed}", {"Allow": allowed}
        )
    return found


def nothing_at(path: str, services: str) -> NotFound:
    """The refusal of an unknown path."""
    return NotFound(f"there is nothing at {path[:200]}; {services}")
