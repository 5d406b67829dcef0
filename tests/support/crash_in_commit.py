"""A process that lets itself be killed inside commit: `python -m support.crash_in_commit FOLDER KILLS SEED`.

It forks one child after another. A child opens the store, commits groups as fast as it can and writes the number of the
last batch acknowledged into a pipe; it is killed with SIGKILL at a random moment. Then a copy of the files is judged,
and the next child opens the originals. Prints one line of JSON: what was counted. Any violation is a traceback.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

from holdfast.core.log.batch import Committed
from holdfast.stores.sqlite.store import SQLiteStore
from support.numbered_batches import batch, judge


async def commit_on(path: Path, pipe: int, done: int, seed: int) -> None:
    """Commit for ever, acknowledging into the pipe."""
    chance = random.Random(seed)
    store = SQLiteStore(path, "stock")
    await store.open(f"i{seed}", seed + 1)
    os.write(pipe, struct.pack("q", done))
    while True:
        count = chance.choice([1, 2, 8, 30])
        outcomes = await store.commit([batch(done + i + 1) for i in range(count)])
        assert all(isinstance(outcome, Committed) for outcome in outcomes), outcomes
        done += count
        os.write(pipe, struct.pack("q", done))


def kill_once(path: Path, done: int, chance: random.Random) -> tuple[int, int]:
    """One child's life: (batches acknowledged over the pipe, batches found after its death)."""
    reading, writing = os.pipe()
    seed = chance.randrange(2**31)
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(commit_on(path, writing, done, seed))
        finally:
            os._exit(3)
    os.close(writing)
    first = os.read(reading, 8)
    assert len(first) == 8, "the child did not come up"
    time.sleep(chance.random() * 0.025)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the child ended by itself"
    said = first
    while more := os.read(reading, 65536):
        said += more
    os.close(reading)
    (acknowledged,) = struct.unpack("q", said[len(said) // 8 * 8 - 8 : len(said) // 8 * 8])
    with_copy = path.parent / "copy"
    shutil.rmtree(with_copy, ignore_errors=True)
    with_copy.mkdir()
    for suffix in ("", "-wal"):
        if (file := path.with_name(path.name + suffix)).exists():
            shutil.copy(file, with_copy / file.name)
    return acknowledged, judge(with_copy / path.name)


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill, judge, go on; a new file now and then, so that judging stays short."""
    chance = random.Random(seed)
    done = total = unacknowledged = 0
    for kill in range(kills):
        if kill % 20 == 0:
            done = 0
            path = folder / f"{kill}" / "s.sqlite"
            path.parent.mkdir()
        acknowledged, found = kill_once(path, done, chance)
        assert found >= acknowledged, f"kill {kill}: {acknowledged} batches were acknowledged, {found} are there"
        total += found - done
        unacknowledged += found > acknowledged
        done = found
    print(json.dumps({"kills": kills, "batches": total, "unacknowledged": unacknowledged}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
