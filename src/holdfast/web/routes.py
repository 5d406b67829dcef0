"""Routes as values, and the table that finds them: which handler answers which method and path, and who may ask it.

A `Route` says all that is known of a route but its handler; the description (`web.openapi`) is made of the same values.
Two paths are the same when their parts are, each decoded once; an escaped slash stays inside its part. Fixed paths are
one look-up, so that commands and exchange cost nothing; the others are compared part by part. Comes after the request,
before `web.trust` and the handlers. A path nobody has is a 404, one that takes other methods a 405.
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
    """A parameter of a route, as it is described."""

    name: str
    type: Any = str
    """What it may be; `Annotated` with `msgspec.Meta` for bounds."""
    text: str = ""
    place: Literal["query", "path", "header"] = "query"


class Route(msgspec.Struct, frozen=True):
    """What is said of a route, without its handler. A route has a guard, or it is none (`TypeError`)."""

    method: str
    path: str
    """`{name}` stands for one part of it."""
    guard: Guard
    name: str
    """Of its handler and of its operation; empty for a user's own, whose function has no name of its own here."""
    summary: str
    tag: str
    parameters: tuple[Parameter, ...] = ()
    """Those of the path only where they are something else than text."""
    body: Any = None
    """The type of its body; None: it takes none."""
    answer: Any = None
    """The type of its answer, or a union; None: an object that is not described further."""
    statuses: Mapping[int, str] = msgspec.field(default_factory=lambda: {200: "What was asked for"})
    """Of its answers, and what each means; the first of them has the `answer`."""
    media_type: str = "application/json"
    """Of the `answer`."""
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
"""What is mounted by method, and the path's parameters."""

REST = ("key", "id")
"""Parameters that take all parts to the end: `/views/Shelf/a/b` is the composite key (a, b), `a%2Fb` one part."""


class Table:
    """Routes of one service. What begins with a reserved part is never taken for a parameter."""

    def __init__(self, reserved: Set[str] = frozenset()) -> None:
        self.mounted: list[Mounted] = []
        self._reserved = reserved
        self._fixed: dict[str, dict[str, Mounted]] = {}
        self._patterns: dict[str, dict[tuple[str, ...], dict[str, Mounted]]] = {}
        """First part of a path (or nothing, where that is a parameter) -> pattern -> what is mounted by method."""

    def add(self, route: Route, handler: Handler, *, also: str = "") -> None:
        """Let a handler answer a route to whom its guard lets in; `also`: another path of the same route."""
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
        """(what is mounted by method, path parameters) of a path that is not decoded yet; None where there is nothing.

        Of several patterns that fit the first that takes the method is meant; where none does, all they take is told.
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
    """The one way to write a path of which there are many: nothing escaped but `%` and the slash inside a part."""
    return "/".join(_escaped(part) for part in path.split("/"))


def _escaped(part: str) -> str:
    """A part of a path as a part of a key (`core.log.key.join_key`)."""
    return _decoded(part).replace("%", "%25").replace("/", "%2F")


def _decoded(part: str) -> str:
    return unquote(part, errors="replace")


def taken(methods: dict[str, Mounted], method: str) -> Mounted:
    """What is mounted for a method; HEAD is a GET without a body. Raises HttpError 405."""
    found = methods.get("GET" if method == "HEAD" else method)
    if found is None:
        allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
        raise HttpError(
            405, "Method Not Allowed", f"{method} is not allowed here; the path takes {allowed}", {"Allow": allowed}
        )
    return found


def nothing_at(path: str, services: str) -> NotFound:
    """The refusal of a path that nobody has."""
    return NotFound(f"there is nothing at {path[:200]}; {services}")
