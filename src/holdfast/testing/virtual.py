"""Virtual time: a whole system in one process and one thread, on a clock that nobody waits for.

The event loop never blocks: where nothing is ready, its clock jumps to the next timer, so an hour of backoff takes a
millisecond. Time, ids, jitter and losses come from one seed: the same seed gives the same logs, byte for byte. A
service can be crashed before or after any of its commits; its store keeps what was committed and nothing else. Where
nothing can happen any more a run ends with `RuntimeError`, it never hangs.
"""

import asyncio
import functools
import hashlib
import heapq
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from holdfast.client import Client
from holdfast.core.batch import Batch, Outcome
from holdfast.core.frame import FeedPage, FeedRequest, Frame, decode_frame, encode_frame
from holdfast.core.record import Record
from holdfast.core.service import Service, System
from holdfast.core.stage import Standing
from holdfast.errors import StoreError, StoreFailed, Unreachable
from holdfast.ports.store import Lent
from holdfast.runtime.clock import base32
from holdfast.runtime.dispatch import SNAPSHOT_EVERY
from holdfast.runtime.node import Node
from holdfast.runtime.system import Running
from holdfast.stores.memory import MemoryStore
from holdfast.transports.local import LocalTransport

__all__ = [
    "VirtualClock",
    "VirtualLoop",
    "VirtualStore",
    "VirtualSystem",
    "VirtualTransport",
    "run_virtual",
    "virtual_time",
]

T = TypeVar("T")
P = ParamSpec("P")

EPOCH_US = 1_700_000_000_000_000
"""Where virtual time begins: 14 November 2023, 22:13:20 UTC."""
STALLED_SECONDS = 5.0
"""Real seconds that a loop without a timer waits for another thread before it gives up."""


class _Due:
    """A callback that the loop is to make, soon or at a time; the little of `asyncio.Handle` that is asked for."""

    __slots__ = ("args", "callback", "context", "off", "when_")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None, when: float = 0.0
    ) -> None:
        self.callback, self.args, self.when_, self.off = callback, args, when, False
        self.context = copy_context() if context is None else context

    def cancel(self) -> None:
        """Do not make it."""
        self.off = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        """Whether it is not to be made."""
        return self.off

    def when(self) -> float:
        """When it is due, by the loop's clock."""
        return self.when_


def _nothing() -> None:
    return None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, with the source of all chance in it.

    It asks the system for nothing unless something of the outside (a socket, another thread) is waited for. Callbacks
    run in the order they were asked for, those that are due at one time in the order they were set.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._elapsed = 0.0
        self._soon: deque[_Due] = deque()
        self._later: list[tuple[float, int, _Due]] = []
        self._order = 0
        self.random = random.Random(seed)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._elapsed

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """Call back in the next round."""
        due = _Due(callback, args, context)
        self._soon.append(due)
        return due

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """The same, from another thread."""
        due = self.call_soon(callback, *args, context=context)
        self._write_to_self()  # type: ignore[attr-defined]
        return due

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """Call back at a virtual time."""
        due = _Due(callback, args, context, when)
        self._order += 1
        heapq.heappush(self._later, (when, self._order, due))
        return due

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """Call back after virtual seconds."""
        return self.call_at(self._elapsed + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """One round: what is ready; where nothing is, time jumps to what is due next."""
        soon, later = self._soon, self._later
        if not soon:
            self._poll(0.0)
            while later and later[0][2].off:
                heapq.heappop(later)
            if not soon and not later and not self._stopping:  # type: ignore[attr-defined]
                self._poll(STALLED_SECONDS)
                if not soon:
                    raise RuntimeError("nothing can happen any more: every task waits, and there is no timer")
            if not soon and later:
                self._elapsed = max(self._elapsed, later[0][0])
                while later and later[0][0] <= self._elapsed:
                    soon.append(heapq.heappop(later)[2])
        for _ in range(len(soon)):
            due = soon.popleft()
            if due.off:
                continue
            try:
                due.context.run(due.callback, *due.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"{due.callback!r} failed", "exception": error})

    def _poll(self, seconds: float) -> None:
        """Take in what the outside has to say; the loop's own pipe is all there is where nobody asks for more."""
        selector: selectors.BaseSelector = self._selector  # type: ignore[attr-defined]
        if seconds or len(selector.get_map()) > 1:
            self._process_events(selector.select(seconds))  # type: ignore[attr-defined]
            while self._ready:  # type: ignore[attr-defined]
                handle = self._ready.popleft()  # type: ignore[attr-defined]
                self._soon.append(_Due(handle._run, (), None))

    def close(self) -> None:
        """Let go of everything."""
        self._soon.clear()
        self._later.clear()
        super().close()


class VirtualClock:
    """The clock port in the virtual loop that runs now."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("virtual time needs a virtual loop: run this in run_virtual, or mark it @virtual_time")
        self._loop = loop

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC, as the loop has it."""
        return EPOCH_US + round(self._loop.time() * 1e6)

    def unique(self) -> str:
        """26 characters, sorting by virtual time, drawn from the seed."""
        return base32((self.now_us() // 1000) << 80 | self._loop.random.getrandbits(80))

    def random(self) -> float:
        """A number in [0, 1), drawn from the seed."""
        return self._loop.random.random()


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int = 0) -> T:
    """Run a coroutine function to its end in virtual time. Raises what it raises, or RuntimeError where it hangs."""
    loop = VirtualLoop(seed)
    try:
        return loop.run_until_complete(main())
    finally:
        try:
            loop.run_until_complete(_end(asyncio.all_tasks(loop)))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


async def _end(left: set["asyncio.Task[Any]"]) -> None:
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@overload
def virtual_time(function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...
@overload
def virtual_time(*, seed: int) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]: ...
def virtual_time(function: Any = None, /, *, seed: int = 0) -> Any:
    """Make a coroutine function a plain one that runs in virtual time: a test, under any runner."""

    def make(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return run_virtual(lambda: function(*args, **kwargs), seed=seed)

        return run

    return make if function is None else make(function)


class VirtualStore(MemoryStore):
    """A memory store whose flush takes time, and whose service can crash before or after any of its commits."""

    def __init__(self, log: str, crashed: Callable[[str], None], flush_seconds: float) -> None:
        super().__init__(log)
        self._crashed, self.flush_seconds = crashed, flush_seconds
        self.commits = 0
        self.crash_before: set[int] = set()
        self.crash_after: set[int] = set()
        """Numbers of commits, the first is 1."""
        self.failing = False
        """While True no commit succeeds, as on a full disk."""

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[Outcome]:
        """Commit, or crash."""
        await asyncio.sleep(self.flush_seconds)
        self._check_open()
        if self.failing:
            raise StoreFailed("the disk is full")
        self.commits += 1
        if self.commits in self.crash_before:
            self._crash()
        outcomes = await super().commit(batches, within=within)
        if self.commits in self.crash_after:
            self._crash()
        return outcomes

    def records(self) -> list[Record]:
        """All that was ever committed, also while the service is down."""
        return list(self._records)

    def cut(self) -> None:
        """From here on nothing gets in or out, until the next `open`."""
        self._open = False

    def _crash(self) -> None:
        self.cut()
        self._crashed(self.log)
        raise StoreFailed(f"{self.log} crashed at commit {self.commits}")


class VirtualTransport(LocalTransport):
    """A network: what is said takes time, goes as bytes, and may be lost on the way there or back."""

    def __init__(self, rng: random.Random, *, latency_seconds: float, loss: float) -> None:
        super().__init__()
        self._random, self.latency_seconds, self.loss = rng, latency_seconds, loss
        self.cut: set[str] = set()
        """Services that nobody reaches, though they run."""

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame there and an answer back, or lose one of them."""
        if frame.sender in self.cut:
            raise Unreachable(f"{frame.sender!r} is cut off")
        await self._travel(peer)
        answer = await super().exchange(peer, decode_frame(encode_frame(frame)))
        await self._travel(peer)
        return decode_frame(encode_frame(answer))

    async def feed(self, peer: str, request: FeedRequest) -> FeedPage:
        """Bring a page, or lose it."""
        await self._travel(peer)
        page = await super().feed(peer, request)
        await self._travel(peer)
        return msgspec.json.decode(msgspec.json.encode(page), type=FeedPage)

    async def standing(self, peer: str, tx: str) -> Standing:
        """Bring a question and its answer, or lose one of them."""
        await self._travel(peer)
        found = await super().standing(peer, tx)
        await self._travel(peer)
        return msgspec.json.decode(msgspec.json.encode(found), type=Standing)

    async def _travel(self, peer: str) -> None:
        await asyncio.sleep(self.latency_seconds)
        if peer in self.cut or (self.loss and self._random.random() < self.loss):
            raise Unreachable(f"lost on the way to {peer!r} or back")


class VirtualSystem:
    """A system in virtual time, to be used with `async with` in a virtual loop. Services crash and come back."""

    def __init__(
        self,
        system: System | Service,
        *,
        flush_seconds: float = 0.001,
        latency_seconds: float = 0.001,
        loss: float = 0.0,
        down_seconds: float = 0.2,
        snapshot_every: int = SNAPSHOT_EVERY,
        streams_in_memory_max: int = 100_000,
    ) -> None:
        self.system = System([system], name=system.name) if isinstance(system, Service) else system
        self.services = dict(self.system.services)
        """What runs under each name from its next start on: put a mended service here."""
        self.down_seconds = down_seconds
        """How long a service that a planned crash took stays away."""
        self._snapshot_every, self._streams_max = snapshot_every, streams_in_memory_max
        loop = asyncio.get_running_loop()
        self.clock = VirtualClock()
        assert isinstance(loop, VirtualLoop)
        self.random = loop.random
        self.transport = VirtualTransport(loop.random, latency_seconds=latency_seconds, loss=loss)
        self.stores = {name: VirtualStore(name, self._on_crash, flush_seconds) for name in self.services}
        self.running = Running(
            self.system, store=lambda s: self.stores[s.name], transport=lambda s: self.transport, clock=self.clock
        )
        self.client = Client.of(self.running)
        self.crashes: list[str] = []
        """What has crashed, in order."""
        self._coming: set[asyncio.Task[None]] = set()

    @property
    def nodes(self) -> dict[str, Node]:
        """Every service that is up, by name."""
        return self.running.nodes

    async def __aenter__(self) -> "VirtualSystem":
        self.running.nodes.clear()
        for name in self.services:
            await self.start(name)
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._coming:
            task.cancel()
        await asyncio.gather(*self._coming, return_exceptions=True)
        await self.running.close(drain=False)

    async def start(self, name: str) -> Node:
        """Start a service on what its store holds."""
        node = Node(
            self.services[name], self.stores[name], self.transport, self.clock, peers=self.services,
            snapshot_every=self._snapshot_every, streams_in_memory_max=self._streams_max,
        )  # fmt: skip
        await node.start()
        self.nodes[name] = self.transport.peers[name] = node
        return node

    async def crash(self, name: str) -> None:
        """Take a service away between two instants: what is not committed is lost, and nobody is told."""
        self.stores[name].cut()
        self.crashes.append(name)
        await self._fall(name)

    async def restart(self, name: str) -> Node:
        """Crash a service and start it again at once."""
        await self.crash(name)
        return await self.start(name)

    def _on_crash(self, name: str) -> None:
        self.crashes.append(name)
        task = asyncio.get_running_loop().create_task(self._come_back(name))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _come_back(self, name: str) -> None:
        await self._fall(name)
        await asyncio.sleep(self.down_seconds)
        await self.start(name)

    async def _fall(self, name: str) -> None:
        self.transport.peers.pop(name, None)
        node = self.nodes.pop(name, None)
        if node is not None:
            await node.close(drain=False)

    async def settle(self, *, within_seconds: float = 600.0) -> None:
        """Wait until nothing is left to do anywhere: no saga open but stuck ones, every message and event handled.

        Raises AssertionError, with the progress of every service, when that has not come after virtual seconds.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + within_seconds
        left = await self._left()
        while left and loop.time() < end:
            await asyncio.sleep(0.05)
            left = await self._left()
        if left:
            raise AssertionError(f"not settled after {within_seconds} s: " + "; ".join(left))

    async def _left(self) -> list[str]:
        left = [f"{name} is down" for name in self.services if name not in self.nodes]
        for name, node in list(self.nodes.items()):
            try:
                left += await self._left_of(name, node)
            except StoreError as error:
                left.append(f"{name} has just crashed: {error}")
        return left

    async def _left_of(self, name: str, node: Node) -> list[str]:
        left: list[str] = []
        stuck = len(await node.sagas(status="stuck", limit=1000))
        if node.dispatch.sagas.open > stuck or node.writer.waiting:
            left.append(f"{name}: {node.dispatch.sagas.open} sagas open, {node.writer.waiting} works wait")
        left += [f"{name}: {stream} waits: {held.error}" for stream, held in node.waiting.items()]
        cursors = await self.stores[name].cursors()
        for sender, other in self.stores.items():
            after = cursors[f"exchange:{sender}"].position if f"exchange:{sender}" in cursors else 0
            if sender in self.nodes and (await other.read(after, 1, destination=name)).records:
                left.append(f"{name}: something of {sender} is on its way")
        for feed in node.feeds.subscriptions:
            source = self.stores.get(feed.producer)
            if source is None or feed.producer not in self.nodes:
                continue
            if (await source.read(feed.position, 1, kinds=("event",), types=feed.types)).records:
                left.append(f"{name}: {feed.cursor_name} stands at {feed.position}: {feed.failure}")
        return left

    def log(self, name: str) -> list[Record]:
        """Every record of a service's log, up or down."""
        return self.stores[name].records()

    def digest(self) -> str:
        """A hash of every log: the same seed gives the same one."""
        found = hashlib.sha256()
        for name in sorted(self.stores):
            found.update(msgspec.json.encode(self.log(name)))
        return found.hexdigest()
