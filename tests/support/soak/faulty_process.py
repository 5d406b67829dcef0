"""A service's process that a test can hurt: `python -m support.soak.faulty_process TARGET SERVICE
PORT`, in the place of holdfast's own.

What is to go wrong is said by `Switches`, numbers in a file that the test and the process have both mapped: the disk is
full, fsync is slow, the process dies at its next decision. It is done to the ports from outside, a VFS under SQLite and
a wrapped store; the runtime knows nothing of it. The process counts what it did, so that a fault that met nobody is not
counted. Switches outlive the process: who starts again finds the disk as full as it was.
"""

import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from holdfast.core.log.batch import Batch, CommitOutcome
from holdfast.host import child
from holdfast.ports.store import Lent, Store
from holdfast.stores.sqlite.store import SQLiteStore

FOLDER = "SOAK_SWITCHES"
"""The variable that names the folder of the switches."""
DIE_BEFORE, DIE_AFTER = 1, 2
"""Values of `die`: right before the commit of a decision, right after it."""
DECIDED = {"holdfast.confirm", "order.checked_out.v1"}
"""Stored types of records that stand in one commit with a decision: what is told of a staged one, a saga's end."""


class Switches:
    """One service's switches (full, sync_ms, die) and counters (refused, slowed, died), each a number."""

    NAMES = ("full", "sync_ms", "die", "refused", "slowed", "died_before", "died_after")

    def __init__(self, folder: Path, service: str) -> None:
        path = folder / f"{service}.switches"
        if not path.exists():
            path.write_bytes(bytes(8 * len(self.NAMES)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def get(self, name: str) -> int:
        """The number now."""
        (value,) = struct.unpack_from("q", self._map, 8 * self.NAMES.index(name))
        return value

    def set(self, name: str, value: int) -> None:
        """Another number."""
        struct.pack_into("q", self._map, 8 * self.NAMES.index(name), value)

    def count(self, name: str) -> None:
        """One more."""
        self.set(name, self.get(name) + 1)


class Disk(apsw.VFS):
    """The system's VFS, whose writes fail and whose syncs are slow when the switches say so."""

    name = "faulting"

    def __init__(self, switches: Switches) -> None:
        super().__init__(self.name, "")
        self.switches = switches

    def xOpen(self, name: Any, flags: list[int]) -> "File":
        return File(name, flags, self.switches)


class File(apsw.VFSFile):
    """One open file."""

    def __init__(self, name: Any, flags: list[int], switches: Switches) -> None:
        super().__init__("", name, flags)
        self._switches = switches

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._switches.get("full"):
            self._switches.count("refused")
            raise apsw.FullError("no space is left")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if slow_ms := self._switches.get("sync_ms"):
            self._switches.count("slowed")
            time.sleep(slow_ms / 1000)
        super().xSync(flags)


class DyingStore:
    """A store whose process dies at a decision when it is told to: before the commit of it, or after."""

    def __init__(self, store: Store, switches: Switches) -> None:
        self._store, self._switches = store, switches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit, and die where it was told."""
        die = self._switches.get("die")
        decides = die and any(record.type in DECIDED for batch in batches for record in batch.records)
        if decides and die == DIE_BEFORE:
            self._die("died_before")
        outcomes = await self._store.commit(batches, within=within)
        if decides:
            self._die("died_after")
        return outcomes

    def _die(self, how: str) -> None:
        self._switches.set("die", 0)
        self._switches.count(how)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # nothing more is done before the signal arrives


def main() -> int:
    """Run one service until it is told to end; the exit code."""
    switches = Switches(Path(os.environ[FOLDER]), sys.argv[2])
    disk = Disk(switches)

    def wrap(name: str, store: Store) -> Store:
        assert isinstance(store, SQLiteStore)
        found: Any = DyingStore(SQLiteStore(store.path, store.log, vfs=disk.name), switches)
        return found

    code = child.main(sys.argv[1:], wrap_store=wrap)
    disk.unregister()
    return code


if __name__ == "__main__":
    sys.exit(main())
