"""The virtual loop: an event loop whose clock jumps, and whose random numbers all come from one seed.

If nothing is ready, its clock jumps to the next timer, so an hour of backoff takes a millisecond. The same seed makes
the same callbacks in the same order. If nothing can happen any more, a run ends with `RuntimeError` and never hangs;
if a bound is set, it does not go round for ever at one instant. `testing.simulation.system` puts services on it.
"""

import asyncio
import functools
import heapq
import random
import selectors
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from holdfast.runtime.clock import base32

T = TypeVar("T")
P = ParamSpec("P")

EPOCH_US = 1_700_000_000_000_000
"""The start of virtual time: 14 November 2023, 22:13:20 UTC."""
STALLED_SECONDS = 5.0
"""Real seconds that a loop without a timer waits for another thread before it gives up."""


class _Due(msgspec.Struct, eq=False):
    """A callback to make in the next round or at a time; it has the part of `asyncio.Handle` that callers use."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    when_: float = 0.0
    off: bool = False

    def cancel(self) -> None:
        """Do not make the callback."""
        self.off = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        """True if the callback will not be made."""
        return self.off

    def when(self) -> float:
        """When it is due, by the loop's clock."""
        return self.when_


def _nothing() -> None:
    return None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, with the source of all random numbers.

    It makes no system calls unless a task waits for something outside (a socket, another thread). Callbacks run in the
    order they were asked for; those that are due at one time, in the order they were set.
    """

    def __init__(self, seed: int = 0) -> None:
        self._ssock = self._csock = None
        super().__init__(selectors.PollSelector())
        self._elapsed = 0.0
        self._soon: deque[_Due] = deque()
        self._later: list[tuple[float, int, _Due]] = []
        self._order = 0
        self.left = False
        """True: tasks that still go on at the end of the run are left as they are."""
        self.rounds_left = -1
        """Rounds after which the run ends with RuntimeError; below 0: no bound."""
        self.random = random.Random(seed)
        self._outside: Any = self._selector.get_map()  # type: ignore[attr-defined]
        """The files outside that tasks wait for; the loop's own pipe is one of them once there is one."""

    def _make_self_pipe(self) -> None:
        """Later: only a loop that waits for the outside needs to be woken from there."""

    def _close_self_pipe(self) -> None:
        if self._ssock is not None:
            super()._close_self_pipe()  # type: ignore[misc]

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        """Call back on a signal; it comes through the pipe."""
        if self._ssock is None:
            super()._make_self_pipe()  # type: ignore[misc]
        super().add_signal_handler(sig, callback, *args)

    def create_future(self) -> "asyncio.Future[Any]":
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._elapsed

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        """A task; if the run is `left` at its end, there is no warning that it was not awaited."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        if self.left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """Call back in the next round."""
        due = _Due(callback, args, copy_context() if context is None else context)
        self._soon.append(due)
        return due

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """The same, from another thread."""
        due = self.call_soon(callback, *args, context=context)
        self._write_to_self()  # type: ignore[attr-defined]
        return due

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """Call back at a virtual time."""
        due = _Due(callback, args, copy_context() if context is None else context, when)
        self._order += 1
        heapq.heappush(self._later, (when, self._order, due))
        return due

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        """Call back after virtual seconds."""
        return self.call_at(self._elapsed + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run rounds until the loop is stopped: each makes the callbacks that are ready. If none is, time jumps to the
        next timer."""
        soon = self._soon
        while True:
            self.rounds_left -= 1
            if not self.rounds_left:
                raise RuntimeError("it goes round and round and does not come to an end")
            if not soon:
                self._jump()
            for _ in range(len(soon)):
                due = soon.popleft()
                if due.off:
                    continue
                try:
                    due.context.run(due.callback, *due.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio does: a callback ends nothing but itself
                    self.call_exception_handler({"message": f"{due.callback!r} failed", "exception": error})
            if self._stopping:  # type: ignore[attr-defined]
                return

    def _jump(self) -> None:
        """Nothing is ready: take events from outside, or go to the time of the next timer."""
        soon, later = self._soon, self._later
        if self._outside:
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

    def _poll(self, seconds: float) -> None:
        """Take events from outside."""
        outside: Any = self
        if self._ssock is None:
            super()._make_self_pipe()  # type: ignore[misc]
        if self._soon:
            return  # it was called back before there was a pipe to wake the loop
        outside._process_events(outside._selector.select(seconds))
        while outside._ready:
            self._soon.append(_Due(outside._ready.popleft()._run, (), copy_context()))

    def close(self) -> None:
        """Drop every callback, and close the loop."""
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
        self.skew_us = 0
        """How far it is ahead of the loop (below 0: behind)."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC, as the loop has it."""
        return EPOCH_US + round(self._loop.time() * 1e6) + self.skew_us

    def unique(self) -> str:
        """26 characters, sorting by virtual time, drawn from the seed."""
        return base32((self.now_us() // 1000) << 80 | self._loop.random.getrandbits(80))

    def random(self) -> float:
        """A number in [0, 1), drawn from the seed."""
        return self._loop.random.random()


@types.coroutine
def next_round() -> Generator[None, None, None]:
    """Let everything that is ready run first, as `asyncio.sleep(0)` does, without its ceremony."""
    yield


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int = 0) -> T:
    """Run a coroutine function to its end in virtual time. Raises what it raises, or RuntimeError if it hangs."""
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
