"""A conversation alone: two of them over a network that loses, doubles, reorders and cuts, with crashes and restores.

No clock, task or transport is around them: what the drivers would do is chosen by hypothesis, step by step. `Asking`
moves as the driver that asks and is answered does, `OneWay` as one whose transport only sends (a topic each way).
"""

from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import Record
from holdfast.core.wire import conversation
from holdfast.core.wire.conversation import Conversation
from holdfast.core.wire.frame import Frame, decode_frame, encode_frame, to_wire
from holdfast.errors import ExchangeError, Forked, Gap, Garbled, HoldfastError, Misdirected, Unavailable, Unreachable
from holdfast.ports.store import Incarnation
from holdfast.runtime.log.incarnations import Incarnations

PAGE = 3
"""Records of a page and of a frame here: the true limit is too high to be met."""
MEMORY = 5
ROUNDS = 60
"""Of undisturbed exchange after which two sides must be done: each brings a page forward."""


def record(position: int, text: str, destination: str) -> Record:
    """A flushed record whose data tells it from all others."""
    return Record(position, "command", "x.y.v1", msgspec.json.encode(text), "TX", "", 0, destination=destination)


class Side:
    """One service: what its store has, and what its process has in memory."""

    def __init__(self, name: str, peer: str) -> None:
        self.name, self.peer = name, peer
        self.log: list[Record] = []
        self.incarnations: list[Incarnation] = []
        self.cursor = Cursor()
        self.taken: list[str] = []
        """What the records said whose effects are committed with the cursor, in that order."""
        self.saved = 0
        self.opened = 0
        self.written = 0
        self.forks: list[str] = []
        self.open()

    @property
    def head(self) -> int:
        return self.log[-1].position if self.log else 0

    def open(self) -> None:
        """A process begins with what the store has."""
        self.opened += 1
        self.incarnations.append(Incarnation(f"{self.name}{self.opened}", self.head + 1))
        self.state = Conversation(
            self.name,
            self.peer,
            frozenset({self.peer}),
            Incarnations(self.incarnations),
            durable=self.cursor,
            acked_upto=self.saved,
            head=self.head,
        )
        self.queue: deque[tuple[Frame, Any]] = deque()
        self.pending: tuple[Frame, list[tuple[int, str]], Any] | None = None
        self.asked: tuple[int, int] | None = None

    def append(self, *, for_peer: bool, known: bool = True) -> None:
        """A record is durable; `known`: and the process has been told."""
        self.written += 1
        made = record(self.head + 1, f"{self.name}#{self.written}", self.peer if for_peer else "")
        self.log.append(made)
        if for_peer and known:
            self.state.append(made)

    def said(self, *, upto: int = 1_000_000) -> list[str]:
        """What this log has for the peer."""
        return [
            msgspec.json.decode(one.data) for one in self.log if one.destination == self.peer and one.position <= upto
        ]

    def frame(self, after: int) -> Frame:
        """As the driver makes it, with pages of the log."""
        state, head, since = self.state, self.head, after
        ack = state.durable
        while True:
            if state.remembers(since):
                records, upto = state.remembered(since, head)
            else:
                found = [one for one in self.log if one.position > since and one.destination == self.peer]
                upto = head if len(found) <= PAGE else found[PAGE - 1].position
                records, upto = state.read(since, found[:PAGE], upto, head)
            made = state.frame(after, since, records, upto, ack)
            if made is not None:
                return decode_frame(encode_frame(made))
            since = state.end_of(since)

    def fails(self, error: HoldfastError) -> None:
        """A request failed, or what came with an answer did."""
        self.state.failed(error)
        if isinstance(error, Forked):
            self.forks.append(str(error))

    def copy(self) -> dict[str, Any]:
        """A backup of the store."""
        return {
            "log": list(self.log),
            "incarnations": list(self.incarnations),
            "cursor": self.cursor,
            "taken": list(self.taken),
            "saved": self.saved,
        }

    def restore(self, backup: dict[str, Any]) -> None:
        """The store is what it was at the backup, and a process begins on it."""
        for name, value in backup.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)
        self.open()


class Network:
    """Two sides, and what is on its way between them. Every step that is asked for and cannot be now does nothing."""

    def __init__(self) -> None:
        self.sides = (Side("a", "b"), Side("b", "a"))
        self.messages: list[tuple[Side, str, Any, Any]] = []
        """(to whom, kind, what, the question that it belongs to)"""
        self.backups: list[tuple[Side, dict[str, Any]]] = []
        self.questions = 0

    def step(self, verb: str, side: int, number: int) -> None:
        """One step; `number` chooses among what there is."""
        one = self.sides[side]
        if verb in ("deliver", "lose", "repeat"):
            if self.messages:
                getattr(self, verb)(number % len(self.messages))
        elif verb == "append":
            for n in range(1 + number // 3):
                one.append(for_peer=(number + n) % 4 > 0)
        elif verb != "rest":
            getattr(self, verb)(one)

    def other(self, side: Side) -> Side:
        return self.sides[side is self.sides[0]]

    def lose(self, number: int) -> None:
        del self.messages[number]

    def repeat(self, number: int) -> None:
        """A copy of a frame that somebody has asked with; nobody waits for its answer."""
        to, kind, what, _ = self.messages[number]
        if kind == "request":
            self.messages.append((to, kind, what, None))

    def deliver(self, number: int) -> None:
        to, kind, what, question = self.messages.pop(number)
        if kind == "request":
            try:
                to.state.take_request(what, to.head)
            except ExchangeError as error:
                self.refuse(to, question, error)
            else:
                to.queue.append((what, question))
                self.take_on(to)
        elif to.asked is not None and to.asked[0] == question[0]:
            acked_before, to.asked = to.asked[1], None
            if kind == "error":
                to.fails(what)
                return
            try:
                to.state.take_answer(question[1], what, acked_before, to.head)
            except ExchangeError as error:
                to.fails(error)
                return
            to.state.succeeded()
            if what.records:
                to.queue.append((what, "answer"))
                self.take_on(to)
            else:
                to.state.peer_is_done(what)

    def refuse(self, side: Side, question: Any, error: HoldfastError) -> None:
        if isinstance(error, Forked):
            side.forks.append(str(error))
        if question == "answer":
            side.fails(error)
        elif question is not None:
            self.messages.append((self.other(side), "error", error, question))

    def take_on(self, side: Side) -> None:
        """Hand frames to the writer, one at a time."""
        while side.queue and side.pending is None:
            frame, question = side.queue.popleft()
            try:
                records = side.state.accept(frame)
            except ExchangeError as error:
                self.refuse(side, question, error)
                continue
            if records:
                side.state.handed_over(records[-1].position, frame.upto)
                held = [(one.position, msgspec.json.decode(one.data)) for one in records]
                side.pending = (frame, held, question)
            else:
                self.reply(side, frame, question)

    def reply(self, side: Side, frame: Frame, question: Any) -> None:
        if question == "answer":
            return
        answer = side.frame(max(side.state.held_upto, frame.have))
        side.state.sent(answer)
        if question is not None:
            self.messages.append((self.other(side), "answer", answer, question))

    def flush(self, side: Side) -> None:
        """What the writer has is durable, effects and cursor in one."""
        if side.pending is not None:
            frame, held, question = side.pending
            side.pending = None
            side.cursor = Cursor(frame.incarnation, held[-1][0])
            side.taken += [text for _, text in held]
            side.state.landed(side.cursor)
            self.reply(side, frame, question)
            self.take_on(side)

    def fail_flush(self, side: Side) -> None:
        """A flush failed: what came from the peer is lost, a record of its own is in the log after all. The process
        goes on with what the store says."""
        side.append(for_peer=True, known=False)
        pending, side.pending = side.pending, None
        if pending is not None:
            self.refuse(side, pending[2], Unavailable())
        side.state.reread(side.cursor, side.head)
        self.take_on(side)

    def ask(self, side: Side) -> None:
        if side.asked is None:
            state = side.state
            self.questions += 1
            side.asked = (self.questions, state.acked_upto)
            request = side.frame(state.next_after) if not state.probing else state.probe()
            self.messages.append((self.other(side), "request", request, (self.questions, request)))

    def give_up(self, side: Side) -> None:
        """The time to wait for an answer is over; what was asked may be on its way still."""
        if side.asked is not None:
            side.asked = None
            side.fails(Unreachable())

    def resend(self, side: Side) -> None:
        side.state.resend()

    def save(self, side: Side) -> None:
        side.saved = side.state.acked_upto

    def crash(self, side: Side) -> None:
        side.open()

    def back_up(self, side: Side) -> None:
        self.backups.append((side, side.copy()))

    def restore(self, side: Side) -> None:
        for number, (whose, backup) in enumerate(self.backups):
            if whose is side:
                side.restore(backup)
                del self.backups[number]
                return

    def round(self) -> None:
        """Both ask, and all that is on its way arrives."""
        for side in self.sides:
            self.give_up(side)
            self.ask(side)
        while self.messages:
            self.deliver(0)
            for side in self.sides:
                self.flush(side)

    def heal(self) -> None:
        """Undisturbed rounds, until both have said all or one stands still."""
        for side in self.sides:
            self.flush(side)
        for _ in range(ROUNDS):
            if any(side.forks for side in self.sides) or self.done():
                return
            self.round()

    def done(self) -> bool:
        return all(side.taken == self.other(side).said() and side.state.drained for side in self.sides)

    def check(self) -> None:
        """What was taken is the beginning of what was said: in order, nothing missing, nothing twice; and it is all
        of what the conversation says is taken."""
        for side in self.sides:
            other = self.other(side)
            assert side.taken == other.said()[: len(side.taken)]
            assert len(side.taken) >= len(other.said(upto=side.state.taken_upto))


class OneWay(Network):
    """Frames are sent, and nothing says whether they arrived but the peer's own frames."""

    def ask(self, side: Side) -> None:
        frame = side.frame(max(side.state.next_after, side.state.sent_upto))
        side.state.sent(frame)
        self.messages.append((self.other(side), "request", frame, None))

    def give_up(self, side: Side) -> None:
        """No acknowledgement has come for long."""
        if not side.state.drained:
            side.fails(Unreachable())

    def reply(self, side: Side, frame: Frame, question: Any) -> None:
        """Nobody waits for one."""


WEIGHTS = {
    "rest": 1,
    "ask": 6,
    "deliver": 10,
    "flush": 6,
    "append": 4,
    "lose": 1,
    "repeat": 2,
    "give_up": 1,
    "resend": 1,
    "save": 2,
    "crash": 1,
    "fail_flush": 1,
}
DISTURBED = [verb for verb, weight in WEIGHTS.items() for _ in range(weight)]


def steps(*others: str) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """Many steps (a list that may be short mostly is), at either side; rest is what they shrink to."""
    one = st.tuples(st.sampled_from([*DISTURBED, *others]), st.integers(0, 1), st.integers(0, 9))
    return st.lists(one, min_size=40, max_size=150)


def small(patch: pytest.MonkeyPatch) -> None:
    """Pages, frames and memory are so small that they are met."""
    patch.setattr(conversation, "FRAME_RECORDS_MAX", PAGE)
    patch.setattr(conversation, "MEMORY_RECORDS_MAX", MEMORY)


@pytest.mark.parametrize("kind", [Network, OneWay])
@given(chosen=steps())
@settings(max_examples=150, deadline=None)
def test_everything_is_taken_once_and_in_order_whatever_the_network_does(
    kind: type[Network], chosen: list[tuple[str, int, int]]
) -> None:
    """Under loss, copies, late and reordered frames, crashes and failed flushes of either side: at every step what was
    taken is the beginning of what was said; left alone, all of it arrives; and nothing is called a fork (G3, G4)."""
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        network = kind()
        for verb, side, number in chosen:
            network.step(verb, side, number)
            network.check()
        network.heal()
        network.check()
        assert network.done()
        assert not any(side.forks for side in network.sides)


@given(before=steps("back_up", "back_up"), after=steps("restore", "restore"))
@settings(max_examples=150, deadline=None)
def test_a_restored_store_is_named_when_its_peer_knows_more_than_it(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    """Where a peer has taken what a restored log does not have, or was told of what the restored store has not taken,
    that is Forked; where not, all goes on. No position is ever taken twice, from two pasts of a log (G11)."""
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        network = Network()
        for verb, side, number in before + after:
            network.step(verb, side, number)
        for side in network.sides:
            network.flush(side)
        network.messages.clear()
        knows_more = any(_knows_more(side, network.other(side)) for side in network.sides)
        for side in network.sides:
            side.forks.clear()
        network.heal()
        if knows_more:
            assert any(side.forks for side in network.sides)
        else:
            assert network.done()
            network.check()
        for side in network.sides:
            assert len(set(side.taken)) == len(side.taken)


def _knows_more(side: Side, other: Side) -> bool:
    """By what was said, not by cursors."""
    taken = bool(side.taken) and side.taken[-1] not in other.said()
    return taken or side.state.acked_upto > other.cursor.position


def at_ten() -> Conversation:
    """A conversation of `me` with `peer`: ten records each way, all taken, in their first incarnations."""
    incarnations = Incarnations([Incarnation("mine", 1)])
    state = Conversation(
        "me", "peer", frozenset({"peer"}), incarnations, durable=Cursor("theirs", 10), acked_upto=10, head=10
    )
    state.succeeded()
    return state


def frame(after: int, *positions: int, **fields: Any) -> Frame:
    """A frame of the peer with records at these positions."""
    records = tuple(to_wire(record(position, "x", "me")) for position in positions)
    upto = positions[-1] if positions else after
    made = Frame("peer", "me", "theirs", 1, after, upto, Cursor("mine", 10), 10, records)
    return msgspec.structs.replace(made, **fields)


def kept(state: Conversation) -> dict[str, Any]:
    """All that a conversation knows."""
    found = {name: getattr(state, name) for name in Conversation.__slots__}
    return found | {"memory": list(state.memory)}


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        pytest.param(Misdirected, frame(10, 11, receiver="other"), id="for another service"),
        pytest.param(Misdirected, frame(10, 11, sender="stranger"), id="from a stranger"),
        pytest.param(Misdirected, frame(10, 11, sender="me"), id="from itself"),
        pytest.param(Garbled, frame(-1, 11), id="from before the beginning"),
        pytest.param(Garbled, frame(10, upto=9), id="ends before it begins"),
        pytest.param(Garbled, frame(10, 12, 11), id="out of order"),
        pytest.param(Garbled, frame(10, 11, 11), id="one position twice"),
        pytest.param(Garbled, frame(10, 11, upto=10), id="past its own end"),
        pytest.param(Garbled, frame(10, 11, have=-1), id="holds less than nothing"),
        pytest.param(Garbled, frame(10, 11, ack=Cursor("mine", -1)), id="acknowledges less than nothing"),
        pytest.param(Gap, frame(11, 12), id="one is missing"),
        pytest.param(Gap, frame(12), id="nothing, from after what was received"),
    ],
)
def test_a_frame_that_cannot_be_taken_is_refused_by_name(error: type[ExchangeError], refused: Frame) -> None:
    """Nothing of a refused frame is applied: the conversation knows what it knew (G11)."""
    state = at_ten()
    before = kept(state)
    with pytest.raises(error) as caught:
        state.accept(refused)
    assert type(caught.value) is error
    assert kept(state) == before


CURSORS = [
    pytest.param(Cursor("mine", 11), id="past the end of this log"),
    pytest.param(Cursor("unknown", 10), id="of an incarnation that this log does not know"),
]


@pytest.mark.parametrize("ack", CURSORS)
def test_a_cursor_that_was_never_given_out_is_a_fork_in_request_and_answer(ack: Cursor) -> None:
    """A peer that has more of this log than there is has it from a past that was lost (G11)."""
    state = at_ten()
    before = kept(state)
    with pytest.raises(Forked):
        state.take_request(frame(10, ack=ack), 10)
    with pytest.raises(Forked):
        state.take_answer(state.probe(), frame(10, ack=ack), 10, 10)
    assert kept(state) == before


def test_an_acknowledgement_that_falls_back_is_a_fork_in_an_answer_and_old_in_a_request() -> None:
    """An answer is newer than its question, so that the peer's store has lost what it had; a request may be late."""
    state = at_ten()
    before = kept(state)
    late = frame(10, ack=Cursor("mine", 9), have=9)
    state.take_request(late, 10)
    with pytest.raises(Forked, match="up to 10 and now says 9"):
        state.take_answer(state.probe(), late, 10, 10)
    assert kept(state) == before
    assert state.failed(Forked()) and state.halted and not state.failed(Forked())


def test_a_peer_that_an_operator_forgave_is_believed_once() -> None:
    """After `forgive` the peer is asked where it stands, and gets what it lacks from there; a second fall is a fork."""
    state = at_ten()
    state.failed(Forked())
    state.forgive()
    assert state.probing and state.probe().records == ()
    state.take_answer(state.probe(), frame(10, ack=Cursor("mine", 4), have=4), 10, 10)
    state.succeeded()
    assert (state.acked_upto, state.next_after, state.halted, state.probing) == (4, 4, False, False)
    assert not state.remembers(4), "what it lacks is read from the store"
    with pytest.raises(Forked):
        state.take_answer(state.probe(), frame(10, ack=Cursor("mine", 3), have=3), 4, 10)


def test_an_answer_from_another_service_is_refused() -> None:
    """Where a name leads to the wrong service, nothing that it says is believed."""
    state = at_ten()
    before = kept(state)
    with pytest.raises(Misdirected, match="'stranger' answered"):
        state.take_answer(state.probe(), frame(10, sender="stranger"), 10, 10)
    assert kept(state) == before


def test_a_new_past_of_the_peers_log_is_not_taken_for_its_continuation() -> None:
    """A log that was restored below what was received here, and has grown past it since, brings nothing: the positions
    between are not known here. The acknowledgement tells its service, which knows its own past (G11)."""
    state = at_ten()
    assert state.accept(frame(5, 11, incarnation="restored", first=6)) == ()
    assert state.received_upto == 10 and state.probe().ack == Cursor("theirs", 10)
    assert len(state.accept(frame(10, 11, incarnation="opened again", first=11))) == 1, "a continuation is taken"


@pytest.mark.parametrize("error", [Unreachable, Unavailable])
def test_a_peer_that_is_down_is_worth_one_warning_after_some_tries(error: type[HoldfastError]) -> None:
    """A restart makes no noise, and an outage makes it once; waiting grows to a bound."""
    state = at_ten()
    waits, warned = [], []
    for _ in range(30):
        warned.append(state.failed(error()))
        waits.append(state.backoff_seconds)
    assert warned.index(True) == conversation.DOWN_TRIES and warned.count(True) == 1
    assert waits == sorted(waits) and waits[-1] == conversation.BACKOFF_LAST_SECONDS
    state.succeeded()
    assert state.failure is None and state.failures == 0


def test_nothing_is_called_taken_that_is_not_durable() -> None:
    """An answer without records may come while records are on their way to be durable, or after they failed to be."""
    state = at_ten()
    state.handed_over(state.accept(frame(10, 11))[-1].position, 11)
    state.peer_is_done(frame(11, upto=15))
    assert (state.peer_head, state.taken_upto, state.behind) == (15, 0, 15)
    state.landed(Cursor("theirs", 11))
    assert (state.taken_upto, state.behind, state.peer_heard) == (15, 0, True)
    state.peer_heard = False
    state.handed_over(state.accept(frame(11, 16))[-1].position, 16)
    state.not_landed(Cursor("theirs", 11))
    state.peer_is_done(frame(16, upto=20))
    assert (state.peer_head, state.taken_upto, state.peer_heard) == (20, 15, False)
