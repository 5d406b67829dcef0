"""The surface of a service over HTTP: one ASGI app for the nodes of a process.

Looks up the route, checks trust, runs the handler, sends its answer; every failure leaves as a problem. One node is
served at the root and under `/{service}`, several under `/{service}` each. Comes after the server (`web.serve`, or any
ASGI server it is mounted in); the nodes must be started by whoever made them. Never fails: what nobody foresaw is
logged and answered with a 500 that says nothing of it.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping
from functools import partial

from holdfast.core.declare.message import MessageType
from holdfast.core.wire.signature import HEADER, answer_path, sign, verify
from holdfast.errors import HoldfastError, Misuse, NotFound, Unauthorized, Unavailable
from holdfast.logs import correlation
from holdfast.runtime.node import Node
from holdfast.web import metrics
from holdfast.web.commands import asking, correlation_of, decode_command, run, transaction
from holdfast.web.events import EventRoutes
from holdfast.web.http import FRAME_BODY_BYTES_MAX, Answer, Receive, Request, Scope, Send, json_answer, send_answer
from holdfast.web.openapi import document
from holdfast.web.ops import OpsRoutes
from holdfast.web.problems import HttpError, Refused, problem_of
from holdfast.web.repairs import RepairRoutes
from holdfast.web.routes import Found, Table, handler_for, nothing_at
from holdfast.web.userroutes import UserRoute, look_up

logger = logging.getLogger("holdfast.web")

TRUSTED = frozenset({"exchange", "events", "ops"})
"""First parts of a path that are only for those who know the secret."""


def make_app(nodes: Mapping[str, Node], *, secret: str = "", operator_token: str = "") -> "App":
    """The ASGI app of these nodes. Raises Misuse for a route that cannot work.

    `secret` signs exchange, feeds and `/ops`; `operator_token` opens `/ops` to a person, and its writes to nobody else.
    """
    return App(nodes, secret=secret, operator_token=operator_token)


class App:
    """See `make_app`."""

    def __init__(self, nodes: Mapping[str, Node], *, secret: str = "", operator_token: str = "") -> None:
        if not nodes:
            raise Misuse("an app needs at least one node")
        self._secret, self._token = secret, operator_token
        self._stopping = asyncio.Event()
        self._sites = {name: Site(node, self._stopping) for name, node in nodes.items()}
        self._only = next(iter(self._sites.values())) if len(self._sites) == 1 else None

    def stop(self) -> None:
        """Say that the nodes drain, and answer those who wait for news at once: the server is about to stop."""
        self._stopping.set()
        for site in self._sites.values():
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
        except Exception as error:  # noqa: BLE001 - the last hand: nothing passes it
            answer = _problem(error)
        answer.headers = request.out | answer.headers
        if self._secret and (asked := request.headers.get(HEADER.lower())) and answer.stream is None:
            told = {name.lower(): value for name, value in answer.headers.items()}
            path = answer_path(asked, told)
            answer.headers[HEADER] = sign(self._secret, str(answer.status), path, answer.body, int(time.time()))
        if request.site is not None:
            request.site.requests[answer.status] = request.site.requests.get(answer.status, 0) + 1
        await send_answer(answer, request, send)

    async def _answer(self, request: Request) -> Answer:
        site, found = self._site(request)
        if found is None:
            raise nothing_at(request.path, f"{site.node.name} says what there is at {request.mount}/openapi.json")
        methods, request.params = found
        handler = handler_for(methods, request.method)
        await self._trust(request)
        correlation.set(correlation_of(request))
        return await handler(request)

    def _site(self, request: Request) -> "tuple[Site, Found | None]":
        """The service a path is for, and what that has there; a prefix goes over to where the service is mounted."""
        site, found = self._only, None
        if site is not None:
            found = site.table.find(request.path, request.method)
        if found is None:
            name, slash, _ = request.path[1:].partition("/")
            if name in self._sites:
                site = self._sites[name]
                request.mount += f"/{name}"
                request.path = request.path[len(name) + 1 :] if slash else "/"
                found = site.table.find(request.path, request.method)
        if site is None:
            raise nothing_at(request.path, f"services: {', '.join(f'/{name}' for name in self._sites)}")
        request.site = site
        return site, found

    async def _trust(self, request: Request) -> None:
        """Raises Unauthorized where the caller may not ask this."""
        part = request.path[1:].partition("/")[0]
        if part not in TRUSTED:
            return
        operator = self._is_operator(request)
        if part == "ops" and request.method == "POST" and not operator:
            raise Unauthorized(
                "writes under /ops take the operator's token (Authorization: Bearer ...)"
                if self._token
                else "writes under /ops take an operator's token, and none is configured: set operator_token"
            )
        if part == "ops" and operator:
            return
        if self._secret:
            if part == "exchange":
                request.body_bytes_max = FRAME_BODY_BYTES_MAX
            given = request.headers.get(HEADER.lower(), "")
            body = await request.body()
            verify(self._secret, given, request.method, request.target, body, int(time.time()))
        elif part == "ops" and self._token:
            raise Unauthorized("/ops takes the operator's token (Authorization: Bearer ...)")

    def _is_operator(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        return (
            bool(self._token)
            and kind.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
        )


class Site:
    """One service of the app: its table of routes."""

    def __init__(self, node: Node, stopping: asyncio.Event) -> None:
        self.node = node
        self.table = Table()
        self.requests: dict[int, int] = {}
        """Answers by status."""
        self._add_own()
        self._add_feeds(EventRoutes(node, stopping))
        self._add_ops(OpsRoutes(node), RepairRoutes(node))
        users = [UserRoute(node, route) for route in node.service.routes]
        for user in users:
            self.table.add(user.route.method, user.route.path, user)
        self._document = json_answer(document(node.service, users))

    def _add_own(self) -> None:
        for message in self.node.service.contract.by_name.values():
            if message.kind == "command":
                handler = partial(self._command, message, message.stored)
                self.table.add("POST", f"/commands/{message.stored}", handler)
                self.table.add("POST", f"/commands/{message.name}", handler)
        add = self.table.add
        add("POST", "/commands/{type}", self._other_command)
        add("GET", "/transactions/{tx}", partial(transaction, self.node))
        add("GET", "/views/{view}/{key}", self._view)
        add("GET", "/healthz", self._healthz)
        add("GET", "/readyz", self._readyz)
        add("GET", "/metrics", self._metrics)
        add("GET", "/openapi.json", self._openapi)

    def _add_feeds(self, feeds: EventRoutes) -> None:
        self.table.add("GET", "/events", feeds.events)
        self.table.add("POST", "/exchange", feeds.exchange)
        self.table.add("GET", "/exchange/{tx}", feeds.standing)

    def _add_ops(self, ops: OpsRoutes, repairs: RepairRoutes) -> None:
        add = self.table.add
        add("GET", "/ops/trail", ops.trail)
        add("GET", "/ops/log", ops.log)
        add("GET", "/ops/progress", ops.progress)
        add("GET", "/ops/sagas", ops.sagas)
        add("GET", "/ops/sagas/{id}", ops.saga)
        add("GET", "/ops/stages", ops.stages)
        add("GET", "/ops/aggregates/{type}", ops.aggregates)
        add("GET", "/ops/aggregates/{type}/{key}", ops.aggregate)
        add("POST", "/ops/views/{view}/rebuild", ops.rebuild)
        add("GET", "/ops/why", ops.why)
        add("GET", "/ops/stuck", ops.stuck)
        add("GET", "/ops/parked", ops.parked)
        add("GET", "/ops/unsettled", ops.unsettled)
        add("POST", "/ops/repairs", repairs.repair)
        add("POST", "/ops/plans", repairs.planned)

    async def _command(self, message: MessageType, stored: str, request: Request) -> Answer:
        how = asking(request)
        return await run(self.node, await decode_command(request, message, stored, how), request, how)

    async def _other_command(self, request: Request) -> Answer:
        """A command by an older version of its stored name, or one that is not there."""
        stored = request.params["type"]
        found = self.node.service.contract.find(stored)
        if found is None or found[0].kind != "command":
            commands = [one.name for one in self.node.service.contract.by_name.values() if one.kind == "command"]
            raise NotFound(f"{self.node.name} has no command {stored[:200]}; it has {', '.join(commands) or 'none'}")
        return await self._command(found[0], stored, request)

    async def _view(self, request: Request) -> Answer:
        return await look_up(self.node, request.params["view"], request.params["key"], request)

    async def _healthz(self, request: Request) -> Answer:
        """The process lives."""
        return json_answer({"service": self.node.name, "status": "ok"})

    async def _readyz(self, request: Request) -> Answer:
        """The service takes work."""
        if not self.node.ready:
            raise Unavailable(f"{self.node.name} does not take work now")
        return json_answer({"service": self.node.name, "status": "ready"})

    async def _metrics(self, request: Request) -> Answer:
        return Answer(metrics.render(self.node, self.requests), 200, {}, metrics.MEDIA_TYPE)

    async def _openapi(self, request: Request) -> Answer:
        return Answer(self._document.body)


def _problem(error: Exception) -> Answer:
    status, headers, body = problem_of(error)
    told = error.error if isinstance(error, Refused) else error
    if status == 500:
        cause = told.__cause__ or told
        logger.error("%s", told, exc_info=(type(cause), cause, cause.__traceback__))
    elif not isinstance(told, HoldfastError | HttpError):
        logger.warning("%s: %s", status, told)
    kind = headers.pop("Content-Type")
    return Answer(body, status, headers, kind)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nodes are started and closed by whoever made them; servers only want to be told that all is well."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
