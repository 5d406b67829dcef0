"""The four walks of docs/architecture.md, done for real: which modules of holdfast are entered, and in which order.

`Steps` is a profiler: it notes each module when a function of it is called for the first time. A walk is done on the
smallest system that has it (`support.systems.sales`), in memory, with nothing else going on. Peers are played: what
they say is a frame of the wire protocol, and they have no code of holdfast that could be noted beside the service's.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import Any

from msgspec import Raw
from msgspec.json import encode

from holdfast import Client, Retry
from holdfast.cli.app import call
from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import Headers
from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame, WireRecord, decode_frame, encode_frame
from holdfast.errors import Pending, Unreachable
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.transports.local import LocalTransport
from support.architecture import PACKAGE
from support.http_services import Far, Web, listening, until
from support.systems.sales import Faults, Sell, Take, Taken, system

INSIDE = f"{PACKAGE}/"
QUIET_SECONDS = 0.3
"""After what was to happen: acknowledgements still go to and fro."""


class Steps:
    """The modules entered while it looks, in the order of the first call of one of their functions."""

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.calls: list[tuple[str, str]] = []
        """(module, function) each time that a walk goes over to another module: to see where it turns back."""

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Look at what this thread does in here."""
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        """Bodies of modules and classes, which run when they are imported, are no functions."""
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(INSIDE):
            module = code.co_filename[len(INSIDE) :].removesuffix(".py").removesuffix("/__init__")
            if not self.calls or self.calls[-1][0] != module:
                self.calls.append((module, code.co_name))
            if module not in self.modules:
                self.modules.append(module)


class Played:
    """A peer that takes every frame, and says what it is told to say."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[WireRecord] = []
        self.heard_something = asyncio.Event()
        self._upto, self._cursor = 0, Cursor()

    async def exchange(self, frame: Frame) -> Frame:
        """Take a frame."""
        self._cursor = Cursor(frame.incarnation, frame.upto)
        self.heard += frame.records
        if frame.records:
            self.heard_something.set()
        return self.frame(frame.sender)

    def frame(self, receiver: str, *records: WireRecord) -> Frame:
        """A frame of this peer, which has received all that it was sent."""
        after, self._upto = self._upto, max([self._upto, *(record.position for record in records)])
        have = self._cursor.position
        return Frame(self.name, receiver, f"{self.name}-1", 1, after, self._upto, self._cursor, have, records)

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Nobody follows it."""
        raise Unreachable(self.name)

    async def standing(self, tx: str) -> Standing:
        """It knows of no staged commit."""
        return Standing(self.name)


@contextlib.asynccontextmanager
async def alone(name: str) -> AsyncGenerator[tuple[Node, dict[str, Played]]]:
    """One service of the sales, and its peers played."""
    whole = system()
    played = {other: Played(other) for other in whole.services if other != name}
    transport = LocalTransport()
    transport.peers.update(played)
    node = Node(whole.services[name], MemoryStore(name), transport, SystemClock(), peers=played)
    await node.start()
    try:
        yield node, played
    finally:
        await node.close(drain=False)


@contextlib.asynccontextmanager
async def served(name: str) -> AsyncGenerator[tuple[Web, dict[str, Played]]]:
    """One service of the sales, served over HTTP."""
    import aiohttp

    from holdfast.web.app import make_app

    async with contextlib.AsyncExitStack() as stack:
        node, played = await stack.enter_async_context(alone(name))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Web(await stack.enter_async_context(listening(make_app({name: node}))), session), played


async def posted(steps: Steps, web: Web, path: str, body: bytes) -> bytes:
    """What the service answers a caller that has no code of holdfast."""
    headers = {"Content-Type": "application/json"}
    with steps.noted():
        async with web.session.post(web.base + path, data=body, headers=headers) as reply:
            said = await reply.read()
    assert reply.status == 200, said
    return said


async def command() -> Steps:
    """A command over HTTP: `depot` takes one unit of tea."""
    steps = Steps()
    async with served("depot") as (web, _):
        await posted(Steps(), web, "/commands/take", encode(Take("tea", "o0")))
        said = await posted(steps, web, "/commands/take", encode(Take("tea", "o1")))
        assert said == encode(Taken("tea", "o1"))
    return steps


async def message() -> Steps:
    """A message of a peer: `desk` asks `depot` for one unit of tea, over HTTP."""
    steps = Steps()
    async with served("depot") as (web, played):
        await posted(Steps(), web, "/commands/take", encode(Take("tea", "o0")))
        asked = WireRecord(
            7, "command", "depot.take.v1", Raw(encode(Take("tea", "o1"))), "TX", "TX", 1_000_000,
            stream="Sale/TX", version=2, headers=Headers(key="tea", step="take"),
        )  # fmt: skip
        sent = encode_frame(played["desk"].frame("depot", asked))
        assert decode_frame(await posted(steps, web, "/exchange", sent)).ack.position == 7
    return steps


async def saga_step() -> Steps:
    """A saga step: `desk` hears from `depot` that tea was taken, and asks `till` for the payment."""
    steps = Steps()
    async with alone("desk") as (node, played):
        running = asyncio.ensure_future(node.edge.run(Sell("o1")))
        await asyncio.wait_for(played["depot"].heard_something.wait(), 10)
        (take,) = played["depot"].heard
        taken = WireRecord(
            3, "event", "depot.taken.v1", Raw(encode(Taken("tea", "o1"))), take.tx, f"desk@{take.position}", take.at,
            stream="Item/tea", version=1, headers=Headers(answers=f"{take.stream}#{take.version}"),
        )  # fmt: skip
        said = played["depot"].frame("desk", taken)
        with steps.noted():
            await asyncio.wait_for(asyncio.gather(node.exchange(said), played["till"].heard_something.wait()), 10)
        assert [record.type for record in played["till"].heard] == ["till.pay.v1"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return steps


async def why() -> Steps:
    """`holdfast why` of a sale whose payment is parked, asked of the four services over HTTP."""
    steps = Steps()
    async with Far(system(Faults(broken={"pay:o1"}), retry=Retry(attempts_max=1, first_seconds=0.01))) as far:
        client = Client.http(far.urls)
        with contextlib.suppress(Pending):
            await client.send(Sell("o1"), correlation="web-1", wait_seconds=0.05)
        await client.close()
        await until(lambda: far.nodes["till"].waiting.parked("Payment/o1"))
        talks = [talk for node in far.nodes.values() for talk in node.conversations.conversations.values()]
        await until(lambda: all(talk.idle or talk.state.drained for talk in talks))
        await asyncio.sleep(QUIET_SECONDS)
        flags = [flag for name, url in far.urls.items() for flag in ("--url", f"{name}={url}")]
        codes: list[int] = []

        def asked() -> None:
            with steps.noted():
                codes.append(call(["why", "web-1", *flags]))

        await asyncio.to_thread(call, ["why", "web-1", *flags])  # so that all it needs is imported

        with steps.noted():
            asking = threading.Thread(target=asked)
            asking.start()
            await until(lambda: not asking.is_alive())
        assert codes == [1]
    return steps


WALKS = {
    "A command over HTTP": command,
    "A message of a peer": message,
    "A saga step": saga_step,
    "`holdfast why`": why,
}
"""The walks, by their heading on the page."""

if __name__ == "__main__":
    for name in WALKS:
        found = asyncio.run(WALKS[name]())
        print(f"\n{name}\n", *found.modules, sep="\n  ")
        print("\n  every time that it goes over:", *(f"{m}.{f}" for m, f in found.calls), sep="\n    ")
