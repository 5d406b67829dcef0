"""Sabotage: a service's process with one protection taken out, by wrapping its ports.

`python -m holdfast.testing.sabotage WHAT TARGET SERVICE PORT` takes the place of a service's own process; the runtime
knows nothing of it. An audit that still finds nothing wrong is worthless. WHAT is one of:

cursor: the cursor of a peer's log is written now and then, not with the effects; after a kill, the messages since then
are handled again. (Acknowledgements are held back too: peers would see the store fall back, and stop.)
send: one in LOST_EVERY of the records that are sent never arrives.
undo: an undo is answered as done, but its event in the log says that nothing was put back.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Cursor, Move
from holdfast.core.log.record import Record
from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.host import child
from holdfast.ports.store import Lent, Store
from holdfast.ports.transport import Network

KINDS = ("cursor", "send", "undo")
"""What can be taken out."""
CURSOR_SECONDS = 0.7
ACK_SECONDS = 3.0
"""Longer than a cursor is behind at most, plus a restart."""
LOST_EVERY = 50
UNDO_EVENT = ".released."


class _SabotagedStore:
    """A store with everything but its commits passed on."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class LazyCursors(_SabotagedStore):
    """Cursors of conversations are written every `CURSOR_SECONDS`, however much is handled in between."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._written: dict[str, tuple[float, int]] = {}

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit without most of the moves."""
        if not self._written:
            found = await self._store.cursors()
            self._written = {name: (0.0, cursor.position) for name, cursor in found.items()}
        return await self._store.commit([self._lazy(batch) for batch in batches], within=within)

    def _lazy(self, batch: Batch) -> Batch:
        kept: list[Move] = []
        for move in batch.moves:
            if not move.name.startswith("exchange:"):
                kept.append(move)
                continue
            at, position = self._written.get(move.name, (0.0, 0))
            if time.monotonic() - at >= CURSOR_SECONDS:
                kept.append(Move(move.name, position, move.after))
                self._written[move.name] = (time.monotonic(), move.after.position)
        return msgspec.structs.replace(batch, moves=tuple(kept))


class EmptyUndo(_SabotagedStore):
    """The event of an undo is kept with quantity 0: its sender is content, and nothing has happened."""

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit with the undos' events emptied."""
        return await self._store.commit(
            [
                msgspec.structs.replace(batch, records=tuple(_emptied(record) for record in batch.records))
                for batch in batches
            ],
            within=within,
        )


def _emptied(record: Record) -> Record:
    if record.kind == "event" and UNDO_EVENT in record.type:
        said = msgspec.json.decode(record.data)
        return msgspec.structs.replace(record, data=msgspec.json.encode({**said, "quantity": 0}))
    return record


class _SabotagedTransport:
    """A transport that passes everything on."""

    def __init__(self, transport: Network) -> None:
        self._transport = transport

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame to a peer and its answer back."""
        return await self._transport.exchange(peer, frame)

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of a producer's feed."""
        return await self._transport.feed(producer, request)

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows of a staged transaction."""
        return await self._transport.standing(peer, tx)

    async def close(self) -> None:
        """Close connections."""
        await self._transport.close()


class LateAcks(_SabotagedTransport):
    """Acknowledgements, both ways, are those of some seconds ago."""

    def __init__(self, transport: Network) -> None:
        super().__init__(transport)
        self._acks: dict[tuple[str, str], list[tuple[float, Cursor]]] = {}

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame with an old acknowledgement to a peer, and its answer with another back."""
        sent = msgspec.structs.replace(frame, ack=self._late(("to", peer), frame.ack))
        answer = await self._transport.exchange(peer, sent)
        return msgspec.structs.replace(answer, ack=self._late(("from", peer), answer.ack))

    def _late(self, way: tuple[str, str], ack: Cursor) -> Cursor:
        now, known = time.monotonic(), self._acks.setdefault(way, [(0.0, Cursor())])
        known.append((now, ack))
        while len(known) > 1 and known[1][0] < now - ACK_SECONDS:
            known.pop(0)
        # After a restart the peer really has less: this hides that, and no more.
        return min((found for _, found in known), key=lambda found: found.position)


class LossyTransport(_SabotagedTransport):
    """Some records of a frame are lost; the frame does not show it."""

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring what is left of a frame to a peer."""
        left = tuple(record for record in frame.records if record.position % LOST_EVERY)
        return await self._transport.exchange(peer, msgspec.structs.replace(frame, records=left))


def main(arguments: list[str] | None = None) -> int:
    """Run one service with one protection less; the exit code."""
    what, *rest = sys.argv[1:] if arguments is None else arguments
    if what not in KINDS:
        sys.stderr.write(f"{what!r} is no sabotage; there are: {', '.join(KINDS)}\n")
        return 2
    stores: dict[str, Any] = {"cursor": LazyCursors, "undo": EmptyUndo}
    transports: dict[str, Any] = {"cursor": LateAcks, "send": LossyTransport}
    store, transport = stores.get(what), transports.get(what)
    return child.main(
        rest,
        wrap_store=(lambda name, port: store(port)) if store else None,
        wrap_transport=(lambda name, port: transport(port)) if transport else None,
    )


if __name__ == "__main__":
    sys.exit(main())
