"""The surface of a service over HTTP: one ASGI app for the nodes of a process.

It finds the route, checks trust, runs the handler and sends the answer; every failure is answered as a problem. A
single node is served at the root and under `/{service}`, several nodes only under `/{service}` each. Comes after the
server (`web.serve`, or any ASGI server that mounts it); the code that made the nodes must start them. It never raises:
an unexpected error is logged and answered with a 500 without details.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial

from holdfast.core.declare.message import MessageType
from holdfast.core.wire.signature import HEADER, answer_path, sign
from holdfast.errors import HoldfastError, Misuse, NotFound, Unavailable
from holdfast.logs import correlation
from holdfast.runtime.node import Node
from holdfast.runtime.system import Running
from holdfast.web import metrics
from holdfast.web.commands import asking, correlation_of, decode_command, run, transaction
from holdfast.web.events import EventRoutes
from holdfast.web.http import Receive, Request, Response, Scope, Send, json_answer, send_answer
from holdfast.web.openapi import document
from holdfast.web.ops import OpsRoutes
from holdfast.web.problems import HttpError, Refused, problem_of
from holdfast.web.repairs import RepairRoutes
from holdfast.web.routes import Found, Handler, Table, nothing_at, plain, taken
from holdfast.web.surface import RESERVED, ROUTES, command_route, view_route
from holdfast.web.trust import Trust
from holdfast.web.userroutes import UserRoute, look_up

logger = logging.getLogger("holdfast.web")


class RunningApp:
    """The app of services that may be closed and started again: it always serves the running ones. Raises Misuse for a
    route that cannot work."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._starts = running.starts
        self._app = self._made()

    def _made(self) -> "App":
        running = self._running
        return make_app(running.nodes, secret=running.secret, operator_token=running.operator_token)

    def stop(self) -> None:
        """Say that the services drain: the server is about to stop."""
        self._app.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._starts != self._running.starts:
            self._starts = self._running.starts
            self._app = self._made()
        await self._app(scope, receive, send)


def make_app(nodes: Mapping[str, Node], *, secret: str = "", operator_token: str = "") -> "App":
    """The ASGI app of these nodes. Raises Misuse for a route that cannot work.

    `secret` signs exchange, feeds and `/ops`; `operator_token` opens `/ops` to an operator, and only an operator may
    use its writes.
    """
    return App(nodes, secret=secret, operator_token=operator_token)


class App:
    """See `make_app`."""

    def __init__(self, nodes: Mapping[str, Node], *, secret: str = "", operator_token: str = "") -> None:
        if not nodes:
            raise Misuse("an app needs at least one node")
        self._secret = secret
        self._trust = Trust(secret, operator_token)
        self._stopping = asyncio.Event()
        self.sites = {name: Site(node, self._trust, self._stopping) for name, node in nodes.items()}
        self._only = next(iter(self.sites.values())) if len(self.sites) == 1 else None

    def stop(self) -> None:
        """Say that the nodes drain, and answer waiting feed readers at once: the server is about to stop."""
        self._stopping.set()
        for site in self.sites.values():
            site.node.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - the last handler: no exception may leave the app
            answer = _problem(error, request.site.node.name if request.site is not None else "no service")
        answer.headers = request.out | answer.headers
        if self._secret and (asked := request.headers.get(HEADER.lower())) and answer.stream is None:
            told = {name.lower(): value for name, value in answer.headers.items()}
            path = answer_path(asked, told)
            answer.headers[HEADER] = sign(self._secret, str(answer.status), path, answer.body, int(time.time()))
        if request.site is not None:
            request.site.requests[answer.status] = request.site.requests.get(answer.status, 0) + 1
        await send_answer(answer, request, send)

    async def _answer(self, request: Request) -> Response:
        site, found = self._site(request)
        if found is None:
            raise nothing_at(request.path, f"{site.node.name} lists its routes at {request.mount}/openapi.json")
        methods, request.params = found
        route, handler = taken(methods, request.method)
        request.body_bytes_max = route.body_bytes_max
        await self._trust.check(route.guard, request)
        correlation.set(correlation_of(request))
        return await handler(request)

    def _site(self, request: Request) -> "tuple[Site, Found | None]":
        """The service that a path is for, and its route; the service's prefix moves from the path to the mount."""
        site, found = self._only, None
        if site is not None:
            found = site.table.find(request.path, request.method)
        if found is None:
            first, slash, rest = request.path[1:].partition("/")
            name = plain(first)
            if name in self.sites:
                site = self.sites[name]
                request.mount += f"/{name}"
                request.path = slash + rest or "/"
                found = site.table.find(request.path, request.method)
        if site is None:
            raise nothing_at(request.path, f"the services are at {', '.join(f'/{name}' for name in self.sites)}")
        request.site = site
        return site, found


class Site:
    """One service of the app: its table of routes."""

    def __init__(self, node: Node, trust: Trust, stopping: asyncio.Event) -> None:
        self.node = node
        self.table = Table(RESERVED)
        self.requests: dict[int, int] = {}
        """The number of answers by status."""
        self.handlers = self._handlers(EventRoutes(node, stopping), OpsRoutes(node), RepairRoutes(node))
        """The handlers of the routes of every service, by the name of the route."""
        for route in ROUTES:
            self.table.add(route, self.handlers[route.name])
        self._add_commands()
        for user in [UserRoute(node, declared) for declared in node.service.routes]:
            self.table.add(user.row(), user)
        views = [view_route(name, view.shape.struct) for name, view in node.service.views.items()]
        routes = [*(mounted.route for mounted in self.table.mounted), *views]
        self._document = document(node.name, node.service.owner, routes, trust)

    def _handlers(self, feeds: EventRoutes, ops: OpsRoutes, repairs: RepairRoutes) -> dict[str, Handler]:
        return {
            "command": self._other_command,
            "transaction": partial(transaction, self.node),
            "view": self._view,
            "events": feeds.events,
            "exchange": feeds.exchange,
            "standing": feeds.standing,
            "healthz": self._healthz,
            "readyz": self._readyz,
            "metrics": self._metrics,
            "openapi": self._openapi,
            "trail": ops.trail,
            "log": ops.log,
            "progress": ops.progress,
            "sagas": ops.sagas,
            "saga": ops.saga,
            "stages": ops.stages,
            "why": ops.why,
            "stuck": ops.stuck,
            "parked": ops.parked,
            "unsettled": ops.unsettled,
            "aggregates": ops.aggregates,
            "aggregate": ops.aggregate,
            "rebuild": ops.rebuild,
            "repair": repairs.repair,
            "plan": repairs.planned,
        }

    def _add_commands(self) -> None:
        """Give each command a path of its own, so that one look-up finds it."""
        for message in self.node.service.contract.by_name.values():
            if message.kind == "command":
                handler = partial(self._command, message, message.stored)
                self.table.add(command_route(message), handler, also=f"/commands/{message.name}")

    async def _command(self, message: MessageType, stored: str, request: Request) -> Response:
        how = asking(request)
        return await run(self.node, await decode_command(request, message, stored, how), request, how)

    async def _other_command(self, request: Request) -> Response:
        """Run a command by an older version of its stored name; refuse an unknown one."""
        stored = request.params["type"]
        found = self.node.service.contract.find(stored)
        if found is None or found[0].kind != "command":
            commands = [one.name for one in self.node.service.contract.by_name.values() if one.kind == "command"]
            raise NotFound(f"{self.node.name} has no command {stored[:200]}; it has {', '.join(commands) or 'none'}")
        return await self._command(found[0], stored, request)

    async def _view(self, request: Request) -> Response:
        return await look_up(self.node, request.params["view"], request.params["key"], request)

    async def _healthz(self, request: Request) -> Response:
        """Say that the process is alive."""
        return json_answer({"service": self.node.name, "status": "ok"})

    async def _readyz(self, request: Request) -> Response:
        """Say that the service takes work."""
        if not self.node.ready:
            raise Unavailable(f"{self.node.name} does not take work now; try again later")
        return json_answer({"service": self.node.name, "status": "ready"})

    async def _metrics(self, request: Request) -> Response:
        return Response(metrics.render(self.node, self.requests), 200, {}, metrics.MEDIA_TYPE)

    async def _openapi(self, request: Request) -> Response:
        """The description; its paths begin at the mount of this service, as the caller sees it."""
        return json_answer({**self._document, "servers": [{"url": request.mount or "/"}]})


def _problem(error: Exception, service: str) -> Response:
    """The answer to a request that failed; an unexpected error is logged with the service's name."""
    status, headers, body = problem_of(error)
    told = error.error if isinstance(error, Refused) else error
    if status == 500:
        cause = told.__cause__ or told
        logger.error(
            "unexpected error in a request to %s, answered with 500: %s",
            service,
            told,
            exc_info=(type(cause), cause, cause.__traceback__),
        )
    elif not isinstance(told, HoldfastError | HttpError):
        logger.warning("a request to %s was answered with %s: %s", service, status, told)
    kind = headers.pop("Content-Type")
    return Response(body, status, headers, kind)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's lifespan messages; the code that made the nodes starts and closes them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
