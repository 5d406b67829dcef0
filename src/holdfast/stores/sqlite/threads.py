"""Threads for calls that block: calls come in by a queue, results go back to the event loop that asked.

Used by `stores.sqlite.store`, one for writing and a few for reading. An exception of a call goes to its waiting caller.
The threads end with `close`, and none keeps a process from exiting.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Threads"]

OVERDUE_SECONDS = 0.005
GIVE_WAY_SECONDS = 0.000001
"""A loop that never idles polls many times in the 5 ms after which a thread may ask for the GIL, and each poll starts
those 5 ms again: a finished commit can wait for most of a second. So while one is overdue the loop pauses a moment. Not
before a usual commit has had its time: a loop's timers may be as coarse as a millisecond, and a pause is not free."""
T = TypeVar("T")


class Threads:
    """Threads that take calls from one queue and hand results back to the loop that asked."""

    def __init__(self, name: str, count: int, *, ending: Callable[[], None] = lambda: None) -> None:
        self._ending = ending
        """Called on each thread before it ends."""
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any] | None, asyncio.Future[Any]]] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call on one of the threads. It runs to its end even if the waiting caller is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def give_way() -> None:
            nonlocal timer
            time.sleep(GIVE_WAY_SECONDS)
            timer = loop.call_later(OVERDUE_SECONDS, give_way)

        timer = loop.call_later(OVERDUE_SECONDS, give_way)
        self._calls.put((call, future))
        try:
            return await future
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Finish the waiting calls, then end the threads."""
        ended = [asyncio.get_running_loop().create_future() for _ in self._threads]
        for future in ended:
            self._calls.put((None, future))
        await asyncio.gather(*ended)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            call, future = self._calls.get()
            result, error = None, None
            try:
                if call is not None:
                    result = call()
                else:
                    ended = True
                    self._ending()
            except Exception as raised:  # noqa: BLE001  the exception goes to the waiting caller
                error = raised
            # A closed loop has no waiting caller left.
            with suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_set_future, future, result, error)
            del call, future, result, error


def _set_future(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
