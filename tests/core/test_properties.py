"""Properties of the pure core: codecs lose nothing, keys never meet, and a saga ends legally whatever order answers
come in."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Command, Contract, Event, Rejection
from holdfast.core.declare.message import decode_stored, encode, message_of
from holdfast.core.declare.saga import ATTEMPTS_MAX
from holdfast.core.log.batch import Cursor
from holdfast.core.log.key import join_key
from holdfast.core.log.record import Headers, Record
from holdfast.core.saga.advance import advance, answered, timers, woken
from holdfast.core.saga.progress import Answered, Asked, Begun, Completed, Progress, SagaState, Undone, apply
from holdfast.core.wire.frame import Frame, decode_frame, encode_frame, to_wire
from holdfast.core.wire.signature import sign, verify
from holdfast.errors import Garbled, ProtocolMismatch, Unauthorized
from support.systems.deals import (
    Book,
    Booked,
    Deal,
    Paid,
    PaidBack,
    Pay,
    PayBack,
    Return,
    Returned,
    Take,
    Taken,
    Tell,
    Told,
    make,
)

odd = Contract("odd")


class Part(msgspec.Struct, frozen=True):
    """A value inside a message."""

    name: str
    weights: tuple[float, ...] = ()


@odd.event
class Seen(Event):
    text: str
    number: int
    share: float
    flag: bool
    price: Decimal
    at: datetime
    raw: bytes
    maybe: str | None
    parts: tuple[Part, ...]
    table: Mapping[str, int] = {}


@odd.command(key=("text", "number"))
class See(Command[Seen]):
    text: str
    number: int
    parts: tuple[Part, ...] = ()


texts = st.text(st.characters(codec="utf-8"), max_size=30)
whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False, allow_infinity=False)
parts_ = st.lists(st.builds(Part, texts, st.lists(real, max_size=3).map(tuple)), max_size=3).map(tuple)
instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda found: found.replace(tzinfo=UTC))  # noqa: DTZ001 - a zone is added
prices = st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**12), max_value=10**12)
messages = st.builds(
    Seen, texts, whole, real, st.booleans(), prices, instants, st.binary(max_size=20), st.none() | texts, parts_,
    st.dictionaries(texts, whole, max_size=3),
) | st.builds(See, texts, whole, parts_)  # fmt: skip


@given(messages)
def test_a_message_is_what_it_was(message: Any) -> None:
    """Stored and read again a message is equal, and its bytes are the same."""
    kind = message_of(message)
    data = encode(message)
    assert kind.decode(data) == message == decode_stored(odd, kind.stored, data)
    assert encode(kind.decode(data)) == data


keys = st.lists(texts.filter(bool) | st.integers(0, 99), min_size=1, max_size=4)


@given(keys, keys)
def test_two_keys_are_one_only_when_they_are_equal(one: list[Any], other: list[Any]) -> None:
    """Composite keys are joined without two of them ever becoming one."""
    same = [str(part) for part in one] == [str(part) for part in other]
    assert (join_key(one) == join_key(other)) == same


headers = st.builds(
    Headers, st.integers(0, 40), st.booleans(), texts, texts, texts, st.booleans(), texts, st.integers(0, 99),
    st.integers(0, 9), st.booleans(), st.integers(0, 99),
)  # fmt: skip
positions = st.integers(0, 2**62)
records = st.builds(
    Record, positions, st.sampled_from(["event", "command", "answer", "saga", "repair"]), texts,
    st.sampled_from([b"{}", b'{"a":[1,null,"\\u00e9"]}', b"[]", b'"x"', b"1.5"]), texts, texts, positions, texts, texts,
    st.integers(0, 2**31), texts, headers,
)  # fmt: skip
frames = st.builds(
    Frame, texts, texts, texts, positions, positions, positions, st.builds(Cursor, texts, positions), positions,
    st.lists(records.map(to_wire), max_size=4).map(tuple),
)  # fmt: skip


@given(frames)
def test_a_frame_is_what_it_was(frame: Frame) -> None:
    """Through the wire and back a frame says the same."""
    found = decode_frame(encode_frame(frame))
    assert encode_frame(found) == encode_frame(frame)
    assert (found.sender, found.upto, found.ack, len(found.records)) == (
        frame.sender, frame.upto, frame.ack, len(frame.records),
    )  # fmt: skip


@given(
    st.binary(max_size=80)
    | frames.map(encode_frame).flatmap(lambda data: st.integers(0, len(data) - 1).map(lambda n: data[:n]))
)
def test_what_is_no_frame_has_a_name(data: bytes) -> None:
    """Random bytes, and a frame that was cut off anywhere, are Garbled (or of no known protocol): nothing else."""
    with pytest.raises((Garbled, ProtocolMismatch)):
        decode_frame(data)


@given(st.binary(max_size=40), st.sampled_from(["POST", "GET"]), texts, st.integers(0, 10**9), st.integers(-299, 299))
def test_a_signature_fits_one_request_only(body: bytes, method: str, path: str, at: int, later: int) -> None:
    """It verifies for what was signed, within its time, and for nothing else."""
    good = sign("secret one", method, path, body, at)
    verify("secret one", good, method, path, body, at + later)
    for wrong in (
        ("secret two", good, method, path, body, at),
        ("secret one", good, method + "X", path, body, at),
        ("secret one", good, method, path + "x", body, at),
        ("secret one", good, method, path, body + b"x", at),
        ("secret one", good, method, path, body, at + 301),
        ("secret one", good.replace(f"t={at}", f"t={at + 1}"), method, path, body, at),
        ("secret one", "", method, path, body, at),
    ):
        with pytest.raises(Unauthorized):
            verify(*wrong)


def accepted(command: Any) -> Any:
    """The event that accepts a command."""
    match command:
        case Take():
            return Taken(command.id, command.deal)
        case Return():
            return Returned(command.id, command.deal)
        case Pay():
            return Paid(command.deal)
        case PayBack():
            return PaidBack(command.deal)
        case Tell():
            return Told(command.deal)
        case Book():
            return Booked(command.deal)
    raise AssertionError(command)


SAGA = make()["desk"].sagas["Dealing"]
STEPS = [step.name for step in SAGA.steps]
deals = st.builds(
    Deal, st.just("d"), st.lists(st.sampled_from("abc"), max_size=3).map(tuple),
    st.lists(st.sampled_from("xy"), max_size=2).map(tuple), st.booleans(), raises=st.booleans(),
)  # fmt: skip


@settings(max_examples=500)
@given(deals, st.data())
def test_any_interleaving_of_answers_ends_a_saga_legally(deal: Deal, data: st.DataObject) -> None:
    """G4: whatever is answered with whatever in whatever order, with answers twice and stray timers in between, a saga
    ends completed, undone or stuck, never waits for nothing, and its log folds into the same state again."""
    state, log = SagaState(), list[Progress]()
    begun = Begun(deal, SAGA.fingerprint)
    apply(SAGA, state, begun)
    log += [begun, *advance(SAGA, state)]
    wanted = [timer.name for timer in timers(SAGA, state, log)]
    refuse = data.draw(st.integers(0, 4), "refusals in ten")
    strays = 0
    for _ in range(400):
        if state.ended or state.status == "stuck":
            break
        waiting = [version for version in state.asked if version not in state.answers]
        retries = [name for name in wanted if name.startswith("retry")]
        assert waiting or retries, "it waits, and for nothing"
        what = data.draw(st.integers(0, 9))
        if what == 0 and state.answers and strays < 8:
            strays += 1
            again = data.draw(st.sampled_from(sorted(state.answers)))
            assert answered(SAGA, state, again, Rejection("again")) == []
            continue
        if what == 1 and any(name.startswith("deadline") for name in wanted):
            name = data.draw(st.sampled_from([name for name in wanted if name.startswith("deadline")]))
        elif retries and (not waiting or what < 5):
            name = data.draw(st.sampled_from(retries))
        else:
            name = ""
        if name:
            wanted.remove(name)
            new = woken(SAGA, state, name)
        else:
            to = data.draw(st.sampled_from(waiting))
            no = data.draw(st.integers(0, 9)) < refuse
            new = answered(SAGA, state, to, Rejection("no") if no else accepted(state.asked[to].command))
            assert new
        log += new
        wanted += [timer.name for timer in timers(SAGA, state, new)]
    else:
        raise AssertionError("it does not end")
    lawful(state, log)
    folded = SagaState()
    for progress in log:
        apply(SAGA, folded, progress)
    for name in ("version", "status", "ended", "asked", "answers", "latest", "undos", "skipped", "overdue", "cause"):
        assert getattr(folded, name) == getattr(state, name), name


def lawful(state: SagaState, log: list[Progress]) -> None:
    """What may be true of a saga that has ended or is stuck."""
    forward = {v: a for v, a in state.asked.items() if not a.undoes}
    final = {(a.step, a.index): state.answers.get(v) for v, a in forward.items()}
    yes = {slot for slot, found in final.items() if found is not None and not isinstance(found, Rejection)}
    undone = {(a.step, a.index) for v, a in state.asked.items() if a.undoes and isinstance(state.answers.get(v), Event)}
    assert undone <= yes
    for found in log[:-1]:
        assert not isinstance(found, Completed | Undone), "something follows the end"
    pivot = STEPS.index("book")
    if state.status == "stuck":
        rejected = [v for v, found in state.answers.items() if isinstance(found, Rejection)]
        assert any(state.asked[v].attempt + 1 == ATTEMPTS_MAX for v in rejected)
    elif state.status == "completed":
        assert not undone and not any(a.undoes for a in state.asked.values())
        assert all(slot in yes for slot in final if slot[0] != "gift")
        assert ("book", 0) in yes and ("tell", 0) in yes
    else:
        assert state.status == "undone" and isinstance(log[-1], Undone)
        assert not any(STEPS.index(step) >= pivot for step, _ in yes)
        assert undone == yes, "accepted and not undone"
        order = [STEPS.index(found.step) for found in log if isinstance(found, Asked) and found.undoes]
        assert order == sorted(order, reverse=True), "undone out of order"
    assert sum(isinstance(found, Answered) for found in log) == len(state.answers)
