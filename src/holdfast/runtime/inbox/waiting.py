"""The waiting messages: received and not decided yet, one queue for each stream, in the order received.

A message waits because its stream is locked, because another message before it waits, or because its handler failed. A
message that failed as often as its policy allows is *parked* and waits for an operator. Waiting messages are durable
(rows of kind `waiting`) and operators see them. This module has no writer and no timer: `runtime.inbox.retry` tries the
first message of each queue. Every question except those for a whole list is answered from an index. `reload` fails with
`StoreError`; nothing else fails.
"""

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from holdfast.core.log.batch import Batch, Row
from holdfast.core.saga.stage import read
from holdfast.ports.store import Store
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.inbox.deliver import known, stream_now
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.log.rows import scanned

STREAM_WAITING_MAX = 1_000
"""How many messages may wait on one stream; beyond this limit, commands are answered `busy`."""

Removed = tuple[Slot, int]
"""A slot that was removed from its queue, and its index there; `restore` needs both."""


class Waiting:
    """The waiting messages of one service."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self.leaving: set[str] = set()
        """Keys of messages whose outcome is on its way to the log; they get no second outcome and no new row."""
        self._queues: dict[str, deque[Slot]] = {}
        self._slots: dict[str, Slot] = {}
        """All slots by the key of their row."""
        self._messages: dict[str, dict[str, Slot]] = {}
        """Slots by the id of their message; a message has several if it waits for several consumers."""
        self._commands: dict[tuple[str, str, int], Slot] = {}
        """Slots of commands by (producer, stream, version) in the producer's log, which is what a cancel names."""
        self._stages: dict[str, dict[str, Slot]] = {}
        """Slots of staged commands by stage."""
        self._sequence = 0

    async def reload(self, store: Store) -> None:
        """Read what waits from the store. An effect's call that is in the air keeps its slot, so that nobody decides on
        it before the call has ended. What this release can decide and an earlier one could not is tried again."""
        rows = [row async for row in scanned(store, "waiting")]
        effects = self._dispatch.service.effects
        calls = {slot.key: slot for slot in self.slots() if slot.running and slot.stream.partition("/")[0] in effects}
        self.leaving.clear()
        for index in (self._queues, self._slots, self._messages, self._commands, self._stages):
            index.clear()
        for key, data in rows:
            message = msgspec.json.decode(data, type=WaitingMessage)
            slot = calls.get(key) or Slot(key, message, durable=True)
            slot.message = message
            self._sequence = max(self._sequence, int(slot.number))
            self.put(slot)
        dispatch = self._dispatch
        changed = self.rehome(
            lambda slot: stream_now(dispatch, slot.stream, slot.message), lambda message: known(dispatch, message)
        )
        if changed:
            await store.commit([Batch(rows=tuple(changed))])

    # Changes.

    def add(self, stream: str, message: WaitingMessage) -> Slot:
        """Let a message wait behind the others of its stream. Its row is not durable yet."""
        self._sequence += 1
        slot = Slot(f"{stream}#{self._sequence:012d}", message, durable=False)
        self.put(slot)
        return slot

    def put(self, slot: Slot) -> None:
        """Let a message that already has a slot wait behind the others of its stream."""
        self._queues.setdefault(slot.stream, deque()).append(slot)
        self._index(slot)

    def remove(self, slot: Slot) -> int:
        """Remove a message from its queue and return its index there; -1 if it did not wait."""
        queue = self._queues.get(slot.stream)
        if queue is None or self._slots.get(slot.key) is not slot:
            return -1
        if queue[0] is slot:
            index = 0
            queue.popleft()
        else:
            index = queue.index(slot)
            del queue[index]
        if not queue:
            del self._queues[slot.stream]
        self._unindex(slot)
        return index

    def restore(self, removed: Iterable[Removed]) -> None:
        """Put removed messages back where they were, since their removal was not committed."""
        for slot, index in reversed(list(removed)):
            self._queues.setdefault(slot.stream, deque()).insert(index, slot)
            self._index(slot)

    def remove_stage(self, stage: str) -> list[Removed]:
        """Remove all waiting commands of a staged transaction."""
        return [(slot, self.remove(slot)) for slot in list(self._stages.get(stage, {}).values())]

    def rehome(self, home: Callable[[Slot], str], knows: Callable[[WaitingMessage], bool]) -> list[Row]:
        """Put each message into the queue of the stream that it is for now (`home`), and have it tried again if its
        type is known by now (`knows`); the rows that change with it. An effect whose call may have been made stays as
        it is: by another name it would have another key."""
        rows: list[Row] = []
        for slot in self.slots():
            message, stream = slot.message, home(slot)
            if message.started or message.unknown:
                continue
            if stream == slot.stream and not (message.unread and knows(message)):
                continue
            message.parked, message.attempts, message.next_at, message.unread = 0, 0, 0, False
            message.error, message.where, message.fingerprint = "", "", ""
            if stream != slot.stream:
                rows.append(slot.gone())
                self.remove(slot)
                slot.key, slot.stream = f"{stream}#{slot.number}", stream
                self.put(slot)
                self._queues[stream] = deque(sorted(self._queues[stream], key=_number))
            rows.append(slot.row())
        return rows

    # Questions.

    def head(self, stream: str) -> Slot | None:
        """The first message of a stream."""
        queue = self._queues.get(stream)
        return queue[0] if queue else None

    def ready(self, stream: str) -> Slot | None:
        """The first message of a stream if it is durable and no operator is changing it."""
        head = self.head(stream)
        return head if head is not None and head.durable and not head.changing else None

    def holds(self, stream: str) -> bool:
        """True while a message waits on the stream; later messages wait behind it."""
        return stream in self._queues

    def streams(self) -> list[str]:
        """The streams on which messages wait."""
        return list(self._queues)

    def count(self, stream: str) -> int:
        """How many messages wait on the stream."""
        return len(self._queues.get(stream, ()))

    def full(self, stream: str) -> bool:
        """True if the stream is at its limit: a command that may be refused is refused."""
        return len(self._queues.get(stream, ())) >= STREAM_WAITING_MAX

    def failing(self, stream: str) -> bool:
        """True while the first message of a stream waits because its handler failed."""
        queue = self._queues.get(stream)
        return bool(queue and queue[0].message.error)

    def parked(self, stream: str) -> bool:
        """True while the first message of a stream is parked."""
        queue = self._queues.get(stream)
        return bool(queue and queue[0].message.parked)

    def waits(self, key: str) -> bool:
        """Whether the message of that row waits and has no outcome on its way to the log."""
        return key in self._slots and key not in self.leaving

    def slot(self, key: str) -> Slot | None:
        """The slot of that row."""
        return self._slots.get(key)

    def awaits(self, stage: str) -> bool:
        """True while a command of that staged transaction waits here."""
        return stage in self._stages

    def ages(self, stream: str) -> list[tuple[int, str]]:
        """The ages of the staged commands that wait on a stream."""
        staged = (_staged(slot.message) for slot in self._queues.get(stream, ()))
        return [found[1] for found in staged if found is not None]

    def find(self, message: str, on: str = "") -> Slot | None:
        """The slot of a waiting message by its id `producer@position`; `on`: which of its streams."""
        slots = self._messages.get(message, {}).values()
        return next((slot for slot in slots if on in ("", slot.stream)), None)

    def find_command(self, producer: str, stream: str, version: int) -> Slot | None:
        """The slot of an undecided command by its stream and version in the log of its producer."""
        slot = self._commands.get((producer, stream, version))
        return slot if slot is not None and slot.key not in self.leaving else None

    def on(self, stream: str) -> list[WaitingMessage]:
        """The messages that wait on one stream, in order."""
        return [slot.message for slot in self._queues.get(stream, ())]

    def slots(self) -> list[Slot]:
        """The slots of all waiting messages; those of one stream are in order."""
        return [slot for queue in self._queues.values() for slot in queue]

    # The indexes.

    def _index(self, slot: Slot) -> None:
        message = slot.message
        self._slots[slot.key] = slot
        self._messages.setdefault(message.id, {})[slot.key] = slot
        if message.record.kind == "command" and message.record.stream:
            self._commands[_command_of(message)] = slot
        if (staged := _staged(message)) is not None:
            self._stages.setdefault(staged[0], {})[slot.key] = slot

    def _unindex(self, slot: Slot) -> None:
        message = slot.message
        del self._slots[slot.key]
        _discard(self._messages, message.id, slot.key)
        if self._commands.get(_command_of(message)) is slot:
            del self._commands[_command_of(message)]
        if (staged := _staged(message)) is not None:
            _discard(self._stages, staged[0], slot.key)


def _number(slot: Slot) -> str:
    return slot.number


def _command_of(message: WaitingMessage) -> tuple[str, str, int]:
    return message.producer, message.record.stream, message.record.version


def _staged(message: WaitingMessage) -> tuple[str, tuple[int, str]] | None:
    """(stage, age) of a staged command; None for any other message, and if its header cannot be read."""
    record = message.record
    if not record.headers.stage:
        return None
    try:
        return read(message.producer, record.stream, record.headers.stage)
    except ValueError:
        return None


def _discard(index: dict[str, dict[str, Slot]], first: str, second: str) -> None:
    found = index.get(first)
    if found is not None:
        found.pop(second, None)
        if not found:
            del index[first]
