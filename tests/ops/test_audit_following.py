"""Invariants that follow: events one by one, those of each log in its order, settled or not (G11)."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from holdfast import Happened
from holdfast.core.audit.settled import Open
from holdfast.errors import Misuse
from support.systems.shelf import Books, Gone, Paid, Put, books, good, system


def by_sku(event: Any) -> str:
    return event.sku


class Level:
    """No more is gone than was put, at any moment."""

    units: int = 0
    took: list[str] = []

    def follow(self, event: Put | Gone) -> Iterator[str]:
        self.took.append(type(event).__name__)
        self.units += event.units if isinstance(event, Put) else -event.units
        if self.units < 0:
            yield f"{-self.units} missing after {len(self.took)}"


def followed(declared: Any = Level, by: Any = by_sku) -> Books:
    made = system()
    made.invariant(declared) if by is None else made.invariant(by=by)(declared)
    return Books(made)


def test_events_are_followed_in_the_order_of_their_log() -> None:
    """What is wrong for a moment is found, though all adds up when the transactions have settled; a violation names the
    records of its key that led to it, the transaction and the key; it stays said."""
    made = followed()
    made.put("a", 2)
    made.put("b", 1)
    made.put("a", 3, name="gone.v1")
    assert made.says() == ["a: 1 missing after 2"]
    made.put("a", 5)
    assert made.says() == ["a: 1 missing after 2"] == made.says()
    (one,) = made.audit.report().violations
    assert (one.invariant, one.key, one.tx, one.records) == ("Level", "a", "t3", ("shelf@1", "shelf@3"))
    assert made.audit.report().counted == {"Level": 2}
    (fold,) = (fold for key, fold in made.audit._judges[0]._folds.items() if key == "a")
    assert fold.state.took == ["Put", "Gone", "Put"] and Level.took == []


def test_what_is_in_flight_is_followed_too_and_once() -> None:
    """An event counts when it is in the cut, whether or not its transaction has settled; it is not given again when
    that settles. An effect never comes before its cause."""

    class Count:
        """How many there are."""

        n: int = 0

        def follow(self, event: Put | Paid) -> Iterator[str]:
            self.n += 1
            yield f"{self.n}: {type(event).__name__} {event.sku}"

    made = followed(Count, None)
    made.fly()
    assert made.says() == ["1: Put f"] and made.audit.report().open == 1
    made.land()
    assert made.says() == ["1: Put f"] and made.audit.report().open == 0
    made.enter(("till", "till.paid.v1", {"sku": "x", "units": 1}), cause="shelf@3")
    assert made.says() == ["1: Put f"], "its cause is not there"
    made.put("y")
    assert made.says() == ["1: Put f", "2: Put y", "3: Paid x"]


def test_keys_are_none_one_or_many() -> None:
    """An event may belong to no key, to one, a tuple, or to several; the key is given to who asks for it."""

    class Seen:
        """Says its key."""

        def follow(self, event: Put | Gone, key: Any) -> Iterator[str]:
            yield f"{key!r} has {event.sku}"

    keys: dict[str, Any] = {"none": None, "one": 7, "pair": ("a", 1), "many": [1, 2, 1], "text": "ab"}
    made = followed(Seen, lambda event: keys[event.sku])
    for sku in keys:
        made.put(sku)
    assert made.says() == [
        "7: 7 has one", "a/1: ('a', 1) has pair", "1: 1 has many", "2: 2 has many", "ab: 'ab' has text",
    ]  # fmt: skip


def test_what_was_followed_may_be_judged_at_each_cut() -> None:
    """`holds` is asked at a consistent cut where something of its key was followed or is in flight, with what is in
    flight, and the key; what it says is said while it lasts."""

    class Paired:
        """What is put is gone in the end."""

        left: int = 0

        def follow(self, event: Put | Gone, key: str) -> None:
            self.left += event.units if isinstance(event, Put) else -event.units

        def holds(self, in_flight: list[Happened], key: str) -> Iterator[str]:
            if self.left and not in_flight:
                yield f"{self.left} left of {key}"

    made = followed(Paired)
    made.put("a", 2)
    made.put("b", 1)
    assert made.says() == ["a: 2 left of a", "b: 1 left of b"]
    made.put("a", 2, name="gone.v1")
    assert made.says() == ["b: 1 left of b"]
    made.fly()
    assert made.says() == ["b: 1 left of b"]
    made.land()
    assert made.says() == ["b: 1 left of b", "f: 1 left of f"]


def test_one_that_fails_is_said_and_goes_on() -> None:
    """G10: one that raises, in its key too, that answers with no sentences, or whose event does not decode, says so of
    that record; the next event is followed, and the others judge as ever."""

    class Picky:
        """Fails at some."""

        n: int = 0

        def follow(self, event: Put) -> Any:
            self.n += 1
            if event.sku == "bad":
                raise LookupError("where is it")
            return 7 if event.sku == "seven" else [f"{event.sku} is {self.n}"]

    def key(event: Any) -> Any:
        return [{}] if event.sku == "odd" else event.nothing if event.sku == "nokey" else ""

    made = system()
    made.invariant(by=key)(Picky)
    made.invariant(good)
    found = Books(made)
    for sku in ("bad", "seven", "odd", "nokey", "fine"):
        found.put(sku)
    found.enter(("shelf", "shelf.put.v2", {"sku": "x", "units": "many"}))
    found.put("last")
    said = [one for one in found.says() if one != "good judged" and "could not judge: put" not in one]
    assert said == [
        "could not judge: LookupError: where is it", "must yield sentences about what is wrong; it returned 7",
        "could not judge: TypeError: unhashable type: 'dict'",
        "could not judge: AttributeError: 'Put' object has no attribute 'nothing'",
        "fine is 3", "last is 4",
    ]  # fmt: skip
    unread = [one for one in found.audit.report().violations if "Expected `int`" in one.says]
    assert {one.invariant for one in unread} == {"Picky", "good"} and {one.records for one in unread} == {("shelf@6",)}


def test_earlier_versions_are_followed() -> None:
    """An event that was stored before its present version comes brought up to it."""
    made = followed()
    made.enter(("shelf", "shelf.put.v1", {"name": "a", "units": 1}))
    made.put("a", 2, name="gone.v1")
    assert made.says() == ["a: 1 missing after 2"]


def test_what_would_happen_is_followed() -> None:
    """What a dry run foretells of a transaction is followed after what has happened; what is in the cut is not followed
    twice."""
    made = followed()
    tx = made.fly()
    made.says()
    made.put("f", 1, name="gone.v1")
    assert made.says() == []
    found = Open(tx, tx, 0)
    (known,) = made.audit.settling.open[tx].records
    foretold = msgspec.structs.replace(known[1], position=1 << 40, type="shelf.gone.v1")
    found.records = [known, ("shelf", foretold)]
    assert [one.says for one in made.audit.what_if(found)] == ["1 missing after 3"]


class Both:
    def follow(self, event: Put) -> None: ...
    def settled(self, tx: Happened) -> None: ...
    def holds(self) -> None: ...


class Untyped:
    def follow(self, event) -> None: ...  # type: ignore[no-untyped-def]


class NoEvent:
    def follow(self, event: int) -> None: ...


class Keyless:
    def follow(self, event: Put, key: str) -> None: ...


class Waits:
    async def follow(self, event: Put) -> None: ...


class Transactions:
    def settled(self, tx: Happened) -> None: ...
    def holds(self) -> None: ...


class Follows:
    def follow(self, event: Put) -> None: ...


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda it: it.invariant(Both), "needs settled.self, tx. and holds.self., or follow"),
        (lambda it: it.invariant(Untyped), "parameter 'event' needs an annotation"),
        (lambda it: it.invariant(NoEvent), "annotated with an event"),
        (lambda it: it.invariant(Keyless), "and then the key if"),
        (lambda it: it.invariant(Waits), "must be a plain def"),
        (lambda it: it.invariant(key=lambda tx: "")(Follows), "with follow.self, event., use `by`"),
        (lambda it: it.invariant(by=by_sku)(Transactions), "`by` belongs to follow"),
        (lambda it: it.invariant(by=by_sku)(good), "only an invariant class has a key"),
        (lambda it: it.invariant(by=lambda: "")(Follows), "`by` must be a function that takes one event"),
        (lambda it: it.invariant(by=7)(Follows), "`by` must be a function that takes one event"),
    ],
)
def test_what_cannot_follow_is_refused(declare: Callable[[Any], Any], says: str) -> None:
    """G10: a class that is both or neither, whose parameter is no event, or whose key is of the other kind, is Misuse
    that says what is expected; nothing of it is registered."""
    made = system()
    with pytest.raises(Misuse, match=says):
        declare(made)
    assert made.invariants == {}


def test_books_without_followers_judge_as_before() -> None:
    """Nobody who follows: no event is decoded for nobody."""
    made = books(good)
    made.enter(("shelf", "shelf.gone.v1", {"sku": 7}))
    made.put("a")
    assert made.says() == ["good judged"]
