"""Streams in memory: aggregates and sagas as a cache of the log.

Before `runtime.log.writer` decides a message, it loads the streams that the decision reads into this cache. After a
failed commit, the writer drops the streams that the batch touched, and they are folded again from the log. The log
alone is the truth: the cache may forget any entry, unless a batch that touches it is still on its way to the store.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

from holdfast.ports.store import Loaded


class Entry:
    """One stream in memory: its folded state (None if the stream has no records) and its version."""

    __slots__ = ("error", "pins", "state", "version")

    def __init__(self, state: Any, version: int, error: Exception | None = None) -> None:
        self.error = error
        """Why the stream cannot be folded; reading the stream raises it."""
        self.state = state
        self.version = version
        self.pins = 0
        """How many batches that touch this stream are on their way to the store."""


class Folder(Protocol):
    """How the records of one kind of stream become a state."""

    shape: str
    """A snapshot is used only if it has this fingerprint."""

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(state, version) of a loaded stream; the state is None if the stream does not exist."""
        ...


class Streams:
    """A bounded cache of streams; it drops the least recently used streams that are not pinned."""

    def __init__(self, folder_of: Callable[[str], Folder], *, streams_max: int = 100_000) -> None:
        self._folder_of = folder_of
        self._streams_max = streams_max
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._ghosts: dict[str, int] = {}

    def get(self, stream: str) -> Entry | None:
        """The entry of a stream, or None if the stream must be loaded first."""
        return self._entries.get(stream)

    def missing(self, streams: Iterable[str]) -> list[str]:
        """The given streams that are not in memory and must be loaded first."""
        entries = self._entries
        return [stream for stream in streams if stream not in entries]

    def __getitem__(self, stream: str) -> Entry:
        entry = self._entries[stream]
        if entry.error is not None:
            raise entry.error
        return entry

    def fits(self, stream: str, loaded: Loaded) -> bool:
        """False if the snapshot was made with other fields; then the stream must be loaded without its snapshot."""
        return loaded.snapshot is None or loaded.snapshot.shape == self._folder_of(stream).shape

    def __len__(self) -> int:
        return len(self._entries)

    def busy(self, stream: str) -> bool:
        """True while batches of a forgotten stream are on their way; the stream cannot be loaded until then."""
        return stream in self._ghosts

    def fresh(self, stream: str) -> Entry:
        """Add a new stream that does not exist in the store."""
        entry = self._entries[stream] = Entry(None, 0)
        return entry

    def put(self, stream: str, loaded: Loaded) -> Entry:
        """Fold a loaded stream and add it; if it cannot be folded, add the error instead."""
        try:
            entry = Entry(*self._folder_of(stream).fold(stream, loaded))
        except Exception as error:  # noqa: BLE001 - a user's evolver; raised to whoever needs the stream
            entry = Entry(None, 0, error)
        self._entries[stream] = entry
        return entry

    def pin(self, stream: str) -> None:
        """Count one more batch that touches the stream and is on its way to the store."""
        entry = self._entries.get(stream)
        if entry is not None:
            entry.pins += 1

    def unpin(self, stream: str) -> None:
        """Count one batch less: it has landed or failed."""
        if stream in self._ghosts:
            self._ghosts[stream] -= 1
            if self._ghosts[stream] <= 0:
                del self._ghosts[stream]
            return
        entry = self._entries.get(stream)
        if entry is not None:
            entry.pins -= 1
            self._entries.move_to_end(stream)

    def forget(self, streams: Iterable[str]) -> None:
        """Drop streams whose state may differ from the log; their batches on the way are still counted."""
        for stream in streams:
            entry = self._entries.pop(stream, None)
            if entry is not None and entry.pins > 0:
                self._ghosts[stream] = entry.pins

    def clear(self) -> None:
        """Forget every stream. No batch may be on its way."""
        self._entries.clear()
        self._ghosts.clear()

    def trim(self) -> None:
        """Drop streams until the cache is within its limit. The writer calls this between groups."""
        spare = len(self._entries) - self._streams_max
        if spare <= 0:
            return
        # The oldest streams come first, so this looks at few streams however large the cache is.
        unpinned = (stream for stream, entry in self._entries.items() if entry.pins <= 0)
        for stream in list(islice(unpinned, spare)):
            del self._entries[stream]
