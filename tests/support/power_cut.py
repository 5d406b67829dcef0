"""A disk whose power can be cut: an apsw VFS that knows, of each file, what was synced and what was only written.

Everything goes through to the real files, so the store works as ever. Beside that the disk keeps, for each file, the
bytes as of its last xSync and the writes since. `cut` makes a folder as it could look after the power went: the synced
bytes, and of the later writes all, none, the first few, or any of them, some torn at a sector. (Writes reach a disk in
any order until a sync; Pillai et al., OSDI 2014.) What it does not model: names of files, which are taken as durable.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512
Write = tuple[int, bytes | None]
"""Where, and what; None cuts the file off there."""


class Image:
    """One file: as it was synced, and what was written to it since."""

    def __init__(self, durable: bytes) -> None:
        self.durable = bytearray(durable)
        self.pending: list[Write] = []

    def sync(self) -> None:
        """All that was written is durable now."""
        for write in self.pending:
            apply(self.durable, write)
        self.pending.clear()

    def after_cut(self, chance: random.Random) -> bytes:
        """What may be left of it."""
        kept = list(self.pending)
        mode = chance.choice(["none", "all", "first", "any", "any", "torn"])
        if mode == "none":
            kept = []
        elif mode == "first":
            kept = kept[: chance.randrange(len(kept) + 1)]
        elif mode in ("any", "torn"):
            odds = chance.random()
            kept = [write for write in kept if chance.random() < odds]
            chance.shuffle(kept)
        content = bytearray(self.durable)
        for offset, data in kept:
            if data is not None and mode == "torn":
                data = data[: chance.randrange(len(data) // SECTOR + 1) * SECTOR]
            apply(content, (offset, data))
        return bytes(content)


def apply(content: bytearray, write: Write) -> None:
    """One write, with zeros up to it where the file was shorter."""
    offset, data = write
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """The VFS. `before` is called before every write, truncation and sync: a moment in which power can go."""

    def __init__(self, name: str, before: Callable[[], None]) -> None:
        super().__init__(name, "")
        self.images: dict[str, Image] = {}
        self.before = before
        self.counts = {"write": 0, "sync": 0}
        self.failing = 0
        """So many of the next syncs fail, as they do when a drive is dying."""

    def xOpen(self, name: Any, flags: list[int]) -> "File":
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else str(name))
        if path.name not in self.images:
            self.images[path.name] = Image(path.read_bytes() if path.exists() else b"")
        return File(name, flags, self, self.images[path.name])

    def kill(self, folder: Path) -> None:
        """Write the files as they are when only the process dies: every write is there."""
        folder.mkdir(parents=True)
        for name, image in self.images.items():
            content = bytearray(image.durable)
            for write in image.pending:
                apply(content, write)
            (folder / name).write_bytes(content)

    def cut(self, folder: Path, chance: random.Random) -> None:
        """Write the files as they may be after a cut at this moment."""
        folder.mkdir(parents=True)
        for name, image in self.images.items():
            (folder / name).write_bytes(image.after_cut(chance))


class File(apsw.VFSFile):
    """One open file."""

    def __init__(self, name: Any, flags: list[int], disk: Disk, image: Image) -> None:
        super().__init__("", name, flags)
        self._disk, self._image = disk, image

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.before()
        self._disk.counts["write"] += 1
        self._image.pending.append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.before()
        self._image.pending.append((size, None))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self._disk.before()
        self._disk.counts["sync"] += 1
        if self._disk.failing:
            self._disk.failing -= 1
            raise apsw.IOError("the drive does not answer")
        super().xSync(flags)
        self._image.sync()
