"""Streams in memory: aggregates and sagas as a cache of the log.

Before `runtime.log.writer` decides a message, the streams it rests on are here; after a failed commit what it touched
is dropped and folded again from the log. Nothing here is truth: any entry may be forgotten, unless a batch that made it
is still on its way to the store.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

from holdfast.ports.store import Loaded


class Entry:
    """One stream in memory: its folded state (None where nothing has happened) and its version."""

    __slots__ = ("error", "pins", "state", "version")

    def __init__(self, state: Any, version: int, error: Exception | None = None) -> None:
        self.error = error
        """Why the stream cannot be folded; who needs it gets this raised."""
        self.state = state
        self.version = version
        self.pins = 0
        """Batches on their way to the store that touch this stream."""


class Folder(Protocol):
    """How the records of one kind of stream become a state."""

    shape: str
    """The fingerprint that a snapshot must have to be used."""

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(state, version) of what a store loaded; state None where the stream is absent."""
        ...


class Streams:
    """A bounded cache of streams, the least recently used unpinned one going first."""

    def __init__(self, folder_of: Callable[[str], Folder], *, streams_max: int = 100_000) -> None:
        self._folder_of = folder_of
        self._streams_max = streams_max
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._ghosts: dict[str, int] = {}

    def get(self, stream: str) -> Entry | None:
        """The entry, or None when it must be loaded first."""
        return self._entries.get(stream)

    def missing(self, streams: Iterable[str]) -> list[str]:
        """Those of the streams that must be loaded first."""
        entries = self._entries
        return [stream for stream in streams if stream not in entries]

    def __getitem__(self, stream: str) -> Entry:
        entry = self._entries[stream]
        if entry.error is not None:
            raise entry.error
        return entry

    def fits(self, stream: str, loaded: Loaded) -> bool:
        """False when a snapshot was folded with other fields: the stream must be loaded without it."""
        return loaded.snapshot is None or loaded.snapshot.shape == self._folder_of(stream).shape

    def __len__(self) -> int:
        return len(self._entries)

    def busy(self, stream: str) -> bool:
        """True while a forgotten stream still has batches on their way: it cannot be loaded yet."""
        return stream in self._ghosts

    def fresh(self, stream: str) -> Entry:
        """Enter a stream that is known not to exist."""
        entry = self._entries[stream] = Entry(None, 0)
        return entry

    def put(self, stream: str, loaded: Loaded) -> Entry:
        """Enter what a store loaded, or why it cannot be folded."""
        try:
            entry = Entry(*self._folder_of(stream).fold(stream, loaded))
        except Exception as error:  # noqa: BLE001 - a user's evolver; raised to whoever needs the stream
            entry = Entry(None, 0, error)
        self._entries[stream] = entry
        return entry

    def pin(self, stream: str) -> None:
        """A batch that touches the stream is on its way."""
        entry = self._entries.get(stream)
        if entry is not None:
            entry.pins += 1

    def unpin(self, stream: str) -> None:
        """That batch has landed, or failed."""
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
        """Drop streams whose state may not be what the log says; batches on their way are still waited for."""
        for stream in streams:
            entry = self._entries.pop(stream, None)
            if entry is not None and entry.pins > 0:
                self._ghosts[stream] = entry.pins

    def clear(self) -> None:
        """Forget everything; nothing may be on its way."""
        self._entries.clear()
        self._ghosts.clear()

    def trim(self) -> None:
        """Bring the cache back to its bound. Called between groups."""
        spare = len(self._entries) - self._streams_max
        if spare <= 0:
            return
        # The oldest come first, so few are looked at, however many there are.
        unpinned = (stream for stream, entry in self._entries.items() if entry.pins <= 0)
        for stream in list(islice(unpinned, spare)):
            del self._entries[stream]
