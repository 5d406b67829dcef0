"""Many runs in processes of their own, forked one batch after another: a child is thrown away with all its garbage.

Each child takes every n-th item of a batch, in order, up to the first that fails, and sends the results through a pipe.
Comes after `testing.explorer.search`, which makes the items. Fails with RuntimeError if a child ends without results.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec


class Judged(Protocol):
    """The result of an item; results after the first with violations may be missing."""

    @property
    def violations(self) -> Sequence[object]:
        """What is wrong."""
        ...


Given = TypeVar("Given")
R = TypeVar("R", bound=Judged)


def run_all(run: Callable[[Given], R], items: Sequence[Given], workers: int, kind: type[R]) -> Iterator[R]:
    """The result of each item, in order, up to the first with violations. `workers` 0: all in this process."""
    if not workers:
        for item in items:
            found = run(item)
            yield found
            if found.violations:
                break
        gc.collect()
        return
    children = [_child(run, items[first::workers]) for first in range(min(workers, len(items)))]
    decoder = msgspec.json.Decoder(list[kind])
    results = [decoder.decode(_said_by(pid, pipe)) for pid, pipe in children]
    for number in range(len(items)):
        mine = results[number % len(results)]
        place = number // len(results)
        if place >= len(mine):
            return  # its child had stopped before
        yield mine[place]
        if mine[place].violations:
            return


def _child(run: Callable[[Given], R], items: Sequence[Given]) -> tuple[int, int]:
    """Fork a process that runs these; its id, and the end of the pipe that its results come out of."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        done: list[R] = []
        for item in items:
            done.append(run(item))
            if done[-1].violations:
                break
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(msgspec.json.encode(done))
        code = 0
    finally:
        os._exit(code)


def _said_by(pid: int, pipe: int) -> bytes:
    with os.fdopen(pipe, "rb") as reading:
        said = reading.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(
            f"a run's process ended with status {os.waitstatus_to_exitcode(status)}: workers=0 shows why"
        )
    return said
