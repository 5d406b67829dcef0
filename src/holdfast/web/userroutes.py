"""A service's own routes and views, declared with `service.get`, `service.post` and `service.view`.

Compiles a route's function once: path parameters by name, converted by their annotation, and `body` decoded by its
annotation. Comes after the routes, before `web.commands` and `runtime.feeds.views`. Fails with `Misuse` when a route is
compiled, and with `Invalid` on a caller's input.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from holdfast.core.declare.aggregate import parameters
from holdfast.core.declare.message import Command, MessageType, invalid
from holdfast.core.declare.service import DeclaredRoute, Every, Keyed, Query
from holdfast.core.log.key import join_key
from holdfast.core.log.record import parse_record_id
from holdfast.errors import CommandError, CommandFailed, Invalid, Misuse, NotFound, Unavailable
from holdfast.runtime.feeds.views import AT_LEAST_SECONDS_MAX
from holdfast.runtime.node import Node
from holdfast.web.commands import asking, run, run_every
from holdfast.web.http import Request, Response, json_answer
from holdfast.web.problems import Refused
from holdfast.web.routes import Parameter, Route, plain
from holdfast.web.surface import ASKING, DECIDED, LOOKING, RESERVED, summary_of
from holdfast.web.trust import Guard

POSITIONS, BEHIND, STALE = "Holdfast-Positions", "Holdfast-Behind", "Holdfast-Stale"
VIEW_WAIT_SECONDS = 5.0


class UserRoute:
    """One route of a service, compiled."""

    def __init__(self, node: Node, route: DeclaredRoute) -> None:
        self.node, self.route = node, route
        where = f"{node.name}: {route.method} {route.path}"
        first = plain(route.path).split("/")[1]
        if first in RESERVED:
            raise Misuse(f"{where}: holdfast itself answers /{first}; choose another path")
        self.hints, _ = parameters(route.function, where)
        self.names: list[str] = re.findall(r"\{(\w+)\}", route.path)
        for name in self.names:
            if name not in self.hints:
                raise Misuse(
                    f"{where}: {route.function.__name__} must take a parameter {name!r}, because the path names it"
                )
        for name in self.hints:
            if name not in self.names and (name != "body" or route.method == "GET"):
                raise Misuse(f"{where}: parameter {name!r} is neither in the path nor the body")
        self.body: Any = self.hints.get("body") if "body" not in self.names else None
        self._decode = self._decoder(where) if self.body is not None else None

    def row(self) -> Route:
        """The description of the route: any caller may use it, and its answer is the user's."""
        method, path, function = self.route.method, self.route.path, self.route.function
        parameters = tuple(Parameter(name, self.hints[name], place="path") for name in self.names)
        about = (method, path, Guard.PUBLIC, "", summary_of(function), self.node.name)
        if method == "GET":
            return Route(*about, parameters + LOOKING, answer=Any)
        return Route(*about, parameters + ASKING, body=self.body, statuses=DECIDED)

    def _decoder(self, where: str) -> Any:
        found = vars(self.body).get("__holdfast__") if isinstance(self.body, type) else None
        if isinstance(found, MessageType):
            return found.decode
        try:
            decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.body)
        except TypeError as error:
            raise Misuse(f"{where}: the type of `body` cannot be decoded: {error}") from None
        what = getattr(self.body, "__name__", "body")

        def decode(data: bytes) -> Any:
            try:
                return decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise invalid(error, what) from None

        return decode

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        how = asking(request)
        values = {name: self._convert(name, request.params[name]) for name in self.names}
        if self._decode is not None:
            values["body"] = self._decode(await request.json_body())
        try:
            asked = self.route.function(**values)
        except CommandError:
            raise
        except Exception as error:
            raise CommandFailed("the route's function failed; nothing was recorded") from error
        if isinstance(asked, Query):
            key = join_key(asked.key, asked.view.__name__)
            return await look_up(self.node, asked.view.__name__, key, request, asked.shape)
        if isinstance(asked, Every | list):
            sweeps = cast("list[Any]", asked if isinstance(asked, list) else [asked])
            if self.route.method == "GET" or not all(isinstance(one, Every) for one in sweeps):
                raise CommandFailed(
                    f"{self.route.function.__name__} must return a command, one or more `Every`, or a query; a get may"
                    " only return a query"
                )
            return await run_every(self.node, sweeps, request, how)
        if isinstance(asked, Keyed):
            how.key = how.key or asked.key
            asked = asked.command
        if not isinstance(asked, Command) or self.route.method == "GET":
            raise CommandFailed(f"{self.route.function.__name__} must return a command; a get must return a query")
        return await run(self.node, asked, request, how)  # pyright: ignore[reportUnknownArgumentType]

    def _convert(self, name: str, text: str) -> Any:
        try:
            value = msgspec.convert(text, self.hints[name], strict=False)
        except (msgspec.ValidationError, ValueError) as error:
            raise Invalid(f"{name}: {error}", errors=[(name, str(error))]) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise Invalid(f"{name} must be a finite number", errors=[(name, "not a finite number")])
        return value


async def look_up(
    node: Node, view: str, key: str, request: Request, shape: Callable[[Any], Any] | None = None
) -> Response:
    """Answer with the row of a view; headers say how far the view has come. Raises NotFound, Invalid."""
    if not node.takes_work:
        raise Unavailable(f"{node.name} is not running")
    wait = request.seconds("wait", VIEW_WAIT_SECONDS, AT_LEAST_SECONDS_MAX)
    positions, tx = at_least(request), request.query.get("transaction", "")
    found = await node.views.query(view, key, at_least=positions, transaction=tx, wait_seconds=wait)
    positions = ",".join(f"{name}@{position}" for name, position in found.positions.items())
    headers = {POSITIONS: positions, BEHIND: "true" if found.behind else "false"}
    if found.stale:
        headers[STALE] = "true"
    if found.row is None:
        raise Refused(NotFound(f"{view} has no row {key[:200]}"), headers)
    if shape is None:
        return json_answer(found.row, 200, headers)
    try:
        return json_answer(shape(found.row), 200, headers)
    except Exception as error:
        raise CommandFailed("the `shape` function of the route failed") from error


def at_least(request: Request) -> Mapping[str, int]:
    """`at_least=stock@17,order@4` as positions by service. Raises Invalid."""
    found: dict[str, int] = {}
    for text in request.query.get("at_least", "").split(","):
        parsed = parse_record_id(text.strip()) if len(text) < 100 else None
        if text and (parsed is None or parsed[1] >= 2**63):
            raise Invalid("at_least: write service@position[,..]", errors=[("at_least", "not service@position")])
        if parsed is not None:
            found[parsed[0]] = max(parsed[1], found.get(parsed[0], 0))
    return found
