"""Real HTTP for the tests: services on uvicorn on free loopback ports, a caller that checks every refusal's form, and a
small service whose handlers misbehave on demand."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp
import msgspec

from holdfast import (
    Command,
    Contract,
    Event,
    Every,
    Keyed,
    Query,
    Rejected,
    Sensitive,
    Service,
    System,
    answer,
    decide,
    evolve,
    pivot,
    step,
)
from holdfast.core.wire.problem import MEDIA_TYPE
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.runtime.system import Running
from holdfast.stores.memory import MemoryStore
from holdfast.transports.http import HttpTransport, payload
from holdfast.transports.local import LocalTransport
from holdfast.web.app import App, make_app
from holdfast.web.serve import serve

LEAK = "the database password is hunter2"
lab = Contract("lab")
lab_service = Service(lab, owner="team-lab")


@lab.event
class Poked(Event):
    room: str
    shelf: str
    times: int
    pin: Sensitive[str] = ""


@lab.command(key=("room", "shelf"))
class Poke(Command[Poked]):
    """Poke a shelf."""

    room: str
    shelf: str
    times: int = 1
    pin: Sensitive[str] = ""


@lab.event
class Ended(Event):
    room: str


@lab.command(key="room")
class Errand(Command[Ended]):
    """A saga that pokes one shelf, and ends when that was done."""

    room: str
    shelf: str
    times: int = 1


@lab_service.aggregate
class Shelf:
    times: int = 0
    pin: Sensitive[str] = ""

    @decide(creates=True)
    def poke(self, command: Poke) -> Poked:
        if command.times == 13:
            raise RuntimeError(LEAK)
        if command.times < 0:
            raise Rejected("negative", "nobody pokes less than not at all", times=command.times)
        return Poked(command.room, command.shelf, command.times, command.pin)

    @evolve
    def poked(self, event: Poked) -> None:
        self.times += event.times
        self.pin = event.pin


@lab_service.saga
class ErrandSaga:
    errand: Errand

    @pivot
    def poke(self) -> Poke:
        return Poke(self.errand.room, self.errand.shelf, self.errand.times)

    @step
    def again(self) -> Poke:
        return Poke(self.errand.room, self.errand.shelf, 1)

    @answer
    def ended(self, poke: Poked) -> Ended:
        return Ended(poke.room)


@lab_service.view
class Shelves:
    times: int = 0

    @evolve(key=lambda event: (event.room, event.shelf))
    def poked(self, event: Poked) -> None:
        self.times += event.times


@lab_service.view
class Totals:
    """Pokes by room, by shelf, and of all; a row knows its own key."""

    name: str = ""
    times: int = 0

    @evolve(key=lambda event: [event.room, (event.room, event.shelf), "all", "all"])
    def poked(self, event: Poked, key: str) -> None:
        self.name = key
        self.times += event.times


@lab_service.get("/totals/{name}")
def total(name: str):
    return Query(Totals, name, shape=lambda row: [row["name"], row["times"]])


@lab_service.get("/broken/{name}")
def broken(name: str):
    return Query(Totals, name, shape=lambda row: row[LEAK])


@lab_service.patch("/once/{tid}")
def once(tid: str):
    return Keyed(Poke("once", "s", 1), tid)


@lab_service.post("/everything/{times}")
def poke_every(times: int):
    return Every(Shelf, Poke, times=times)


@lab_service.post("/rooms/{room}/{times}")
def poke_room(room: str, times: int) -> Poke:
    if times == 7:
        raise RuntimeError(LEAK)
    return Poke(room, "a", times)


@lab_service.put("/rooms/{room}")
def put_room(room: str, body: Poke) -> Poke:
    return body


@lab_service.get("/rooms/{room}/{shelf}")
def room_page(room: str, shelf: str):
    return Query(Shelves, room, shelf)


class Reply(NamedTuple):
    """An answer, read whole. `headers` by name in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self, status: int = 200) -> Any:
        """The body of an answer of that status."""
        assert self.status == status, (self.status, self.body)
        return msgspec.json.decode(self.body)

    def problem(self, status: int, name: str = "") -> dict[str, Any]:
        """The problem of a refusal: its form is checked, and that nothing internal is in it."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == MEDIA_TYPE
        found = msgspec.json.decode(self.body)
        assert found["status"] == status and found["title"] and found["detail"] and found["type"]
        assert not name or found["type"].rpartition("/")[2] == name, found
        assert LEAK not in self.body.decode() and "Traceback" not in self.body.decode()
        return found


class Web:
    """A caller of one base URL."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base, self.session = base, session

    async def ask(
        self, method: str, path: str, json: Any = None, *, data: bytes | None = None, headers: Any = None
    ) -> Reply:
        """One request. `path` goes out as it is written."""
        from yarl import URL

        body = msgspec.json.encode(json) if json is not None else data
        kind = {"Content-Type": "application/json"} if json is not None else {}
        url = URL(self.base + path, encoded=True)
        async with self.session.request(
            method, url, data=payload(body or b""), headers=kind | (headers or {})
        ) as found:
            return Reply(found.status, {k.lower(): v for k, v in found.headers.items()}, await found.read())

    async def get(self, path: str, **headers: str) -> Reply:
        """A GET; header names with _ for -."""
        return await self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, json: Any, **headers: str) -> Reply:
        """A POST of JSON; header names with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", path, json, headers=named)


@contextlib.asynccontextmanager
async def listening(app: Any, port: int = 0) -> AsyncGenerator[str]:
    """Serve an app; its base URL."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(app, host="127.0.0.1", port=port, ready=ready.set_result))
    await asyncio.wait([ready, serving], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        yield f"http://127.0.0.1:{ready.result()}"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


class Site(NamedTuple):
    """A served system."""

    web: Web
    nodes: dict[str, Node]
    app: App


@contextlib.asynccontextmanager
async def site(
    system: System | Service, *, only: str = "", secret: str = "", operator_token: str = ""
) -> AsyncGenerator[Site]:
    """Services in memory behind one listener; `only` starts one of them."""
    whole = system if isinstance(system, System) else System([system], name=system.name)
    transport = LocalTransport()
    chosen = {only: whole.services[only]} if only else whole.services
    running = Running(
        whole,
        lambda: {
            name: Node(service, MemoryStore(name), transport, SystemClock(), peers=whole.services)
            for name, service in chosen.items()
        },
    )
    transport.peers.update(running.nodes)
    async with running, aiohttp.ClientSession() as session:
        app = make_app(running.nodes, secret=secret, operator_token=operator_token)
        async with listening(app) as base:
            yield Site(Web(base, session), running.nodes, app)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Far:
    """A system whose services reach each other by HTTP alone; each can be taken away and brought back."""

    def __init__(
        self, system: System, secret: str = "", secrets: Mapping[str, str] | None = None, operator_token: str = ""
    ) -> None:
        self.system, self.secret, self.secrets, self.operator_token = system, secret, secrets or {}, operator_token
        self.ports = dict(zip(system.services, free_ports(len(system.services)), strict=True))
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        self.stores = {name: MemoryStore(name) for name in system.services}
        self.nodes: dict[str, Node] = {}
        self._up: dict[str, contextlib.AsyncExitStack] = {}

    async def up(self, name: str) -> None:
        """Start a service and serve it."""
        secret = self.secrets.get(name, self.secret)
        transport = HttpTransport({k: v for k, v in self.urls.items() if k != name}, secret=secret)
        node = Node(self.system.services[name], self.stores[name], transport, SystemClock(), peers=self.system.services)
        stack = self._up[name] = contextlib.AsyncExitStack()
        await node.start()
        stack.push_async_callback(transport.close)
        stack.push_async_callback(node.close)
        app = make_app({name: node}, secret=secret, operator_token=self.operator_token)
        await stack.enter_async_context(listening(app, self.ports[name]))
        self.nodes[name] = node

    async def down(self, name: str) -> None:
        """Take a service away."""
        del self.nodes[name]
        await self._up.pop(name).aclose()

    async def __aenter__(self) -> "Far":
        for name in self.system.services:
            await self.up(name)
        return self

    async def __aexit__(self, *error: object) -> None:
        for name in list(self._up):
            await self.down(name)


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.01)
