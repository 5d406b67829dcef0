"""Invariants: what each kind is given, what it may say, how it may fail, and what an audit keeps and names (G4)."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Contract, Happened, Rejection, Service, System
from holdfast.core.audit.audit import CAUSES, VIOLATIONS_MAX
from holdfast.core.audit.happened import Types
from holdfast.core.audit.invariant import RECORDS_NAMED_MAX, Judge, Violation
from holdfast.core.audit.settled import Mark, Open
from holdfast.core.log.record import REJECTED
from holdfast.errors import Misuse
from support.systems.shelf import Books, Gone, Paid, Put, books, good, skus_of, system


def test_a_function_is_given_each_settled_transaction() -> None:
    """A function judges a transaction once, when it is settled, and by itself: its events by class, in causal order, of
    older versions too; its outcome; what it names are the records that it asked for."""

    def paid_for(tx: Happened) -> Iterator[str]:
        """What is gone is paid."""
        seen.append((tx.tx, tx.settled, [event.units for event in tx.of(Put, Gone)], Paid in tx, tx.outcome))
        if Gone in tx and Paid not in tx:
            yield "not paid"

    seen: list[Any] = []
    made = books(paid_for)
    both = ("shelf", "shelf.put.v1", {"name": "a", "units": 3}), ("shelf", "shelf.gone.v1", {"sku": "a", "units": 2})
    first = made.enter(*both, ("till", "till.paid.v1", {"sku": "a", "units": 2}))
    second = made.enter(*both)
    third = made.enter(("till", REJECTED, {"code": "no", "message": "closed", "facts": {}}), outcome=True)
    flying = made.fly()
    assert made.says() == ["not paid"] and made.says() == ["not paid"]
    assert seen == [
        (first, True, [3, 2], True, None), (second, True, [3, 2], False, None),
        (third, True, [], False, Rejection("no", "closed", {})),
    ]  # fmt: skip
    (one,) = made.audit.report().violations
    assert one == Violation("paid_for", "not paid", ("shelf@3", "shelf@4"), second, second)
    made.land()
    made.says()
    assert seen[-1][0] == flying and made.audit.report().counted == {"paid_for": 4}


def test_events_have_places() -> None:
    """What depends on the order of a log is given positions: the same events, each with its service and position."""

    def placed(tx: Happened) -> Iterator[str]:
        """Positions are those of the logs."""
        assert [event for _, _, event in tx.placed(Put, Gone)] == tx.of(Put, Gone)
        yield from (f"{service}@{position} {type(event).__name__}" for service, position, event in tx.placed(Put, Paid))

    made = books(placed)
    made.enter(("shelf", "shelf.put.v1", {"name": "a", "units": 3}))
    made.enter(("shelf", "shelf.gone.v1", {"sku": "a", "units": 2}), ("till", "till.paid.v1", {"sku": "a", "units": 2}))
    made.enter(("shelf", "shelf.put.v1", {"name": "a", "units": 1}))
    assert made.says() == ["shelf@1 Put", "till@1 Paid", "shelf@3 Put"]


class Balanced:
    """Nothing is gone that was not put."""

    put: int = 0
    gone: int = 0
    skus: list[str] = []

    def settled(self, tx: Happened, key: str) -> None:
        self.put += sum(event.units for event in tx.of(Put) if event.sku == key)
        self.gone += sum(event.units for event in tx.of(Gone) if event.sku == key)
        self.skus.append(key)

    def holds(self) -> Iterator[str]:
        assert set(self.skus) == {self.skus[0]}, "keys are folded apart"
        if self.gone > self.put:
            yield f"{self.gone} of {self.put} are gone"


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2)), max_size=3), max_size=12))
def test_a_fold_judged_as_it_grows_is_one_judged_from_scratch(happens: list[list[tuple[str, int]]]) -> None:
    """After each transaction a fold by key says what the same one says that begins with nothing, and what sums made by
    hand say; what does not hold any more is said, and what holds again is not said any longer."""
    growing = books(Balanced, key=skus_of)
    for upto in range(len(happens) + 1):
        fresh = books(Balanced, key=skus_of)
        sums, gone = Counter[str](), Counter[str]()
        for number, lines in enumerate(happens[:upto]):
            events: list[tuple[str, str, dict[str, Any]]] = []
            for sku, units in lines:
                name = "put.v2" if units > 0 else "gone.v1"
                events.append(("shelf", f"shelf.{name}", {"sku": sku, "units": abs(units)}))
                (sums if units > 0 else gone)[sku] += abs(units)
            fresh.enter(*events)
            if number == upto - 1:
                growing.enter(*events)
        wrong = sorted(f"{sku}: {gone[sku]} of {sums[sku]} are gone" for sku in "abc" if gone[sku] > sums[sku])
        assert sorted(growing.says()) == sorted(fresh.says()) == wrong
        assert growing.audit.report().counted == fresh.audit.report().counted


def test_a_fold_names_the_last_records_that_went_into_it() -> None:
    """A violation of a fold names the last records, no more than a bounded number, the key and the last transaction; a
    composite key is shown whole; it is said again while it lasts, and not when it holds again."""

    class Even:
        """Of each shelf an even number is put."""

        units: int = 0

        def settled(self, tx: Happened) -> None:
            self.units += sum(event.units for event in tx.of(Put))

        def holds(self) -> Iterator[str]:
            if self.units % 2:
                yield f"{self.units} is odd"

    made = books(Even, key=lambda tx: ("left", 7) if Put in tx else None)
    last = [made.put("a") for _ in range(RECORDS_NAMED_MAX + 5)][-1]
    made.put("b", log="till", name="paid.v1")
    assert made.says() == ["left/7: 25 is odd"] == made.says()
    (one,) = made.audit.report().violations
    assert one.records == tuple(f"shelf@{n}" for n in range(6, 26)) and one.tx == last
    made.put("a")
    assert made.says() == [] and made.audit.report().counted == {"Even": 1}


def test_a_fold_may_be_given_what_is_in_flight() -> None:
    """`holds` with a second parameter is given the transactions that are not settled, of its key; it is judged again
    when they have landed though nothing was folded."""

    class Reserved:
        """Nothing is held for ever."""

        puts: int = 0

        def settled(self, tx: Happened) -> None:
            self.puts += len(tx.of(Put))

        def holds(self, in_flight: list[Happened]) -> Iterator[str]:
            for tx in in_flight:
                assert not tx.settled
                yield f"{tx.tx} flies, {len(tx.of(Put))} put, {self.puts} before"

    made = books(Reserved, key=skus_of)
    made.put("f")
    made.put("g")
    flying = made.fly()
    assert made.says() == [f"f: {flying} flies, 1 put, 1 before"]
    assert made.audit.report().violations[0].records == ("shelf@1", "shelf@3")
    assert made.audit.report().oldest_us == 3 and made.audit.report().open == 1
    made.land()
    assert made.says() == [] and made.audit.report().open == 0

    class Idle:
        """Nothing flies."""

        def settled(self, tx: Happened) -> None: ...

        def holds(self, in_flight: list[Happened]) -> Iterator[str]:
            yield from (f"{tx.tx} flies" for tx in in_flight)

    made = books(Idle)
    assert [made.fly(), *made.says()] == ["t1", "t1 flies"]
    made.land()
    assert made.says() == []


def test_what_has_nothing_to_judge_has_not_passed() -> None:
    """An invariant that asked for no record that was there is no proof of anything, whatever the others found; what was
    entered by services that are not known is passed over."""

    def about_gone(tx: Happened) -> Iterator[str]:
        """About what is gone."""
        for event in tx.of(Gone):
            yield f"{event.sku} is gone"

    made = books(Balanced, key=skus_of)
    assert made.says() == [] and not made.audit.report().passed
    made.put("a")
    made.enter(("shelf", "elsewhere.put.v1", {"sku": "a"}))
    assert made.says() == [] and made.audit.report().passed
    made = books(about_gone)
    made.put("a")
    assert made.says() == [] and made.audit.report().counted == {"about_gone": 0} and not made.audit.report().passed


def test_a_cause_past_the_end_of_its_log_is_said() -> None:
    """G7: a record whose cause is past the end of its log, as after a restore, is named once that log was read again
    and has not come there; logs that merely grow while they are read, one after another, are not accused, however often
    it is judged in between. When the records are there again, it is said no longer."""
    made = books(good)
    made.put("a")
    made.enter(("till", "till.paid.v1", {"sku": "a", "units": 1}), cause="shelf@2")
    for _ in range(3):
        made.put("x", log="till", name="paid.v1")
        assert "restored" not in str(made.says())
    made.put("b")
    assert "restored" not in str(made.says()) and made.audit.cut.at == made.heads
    made.enter(("till", "till.paid.v1", {"sku": "a", "units": 1}), cause="shelf@4")
    made.says()
    made.put("c")
    wrong = made.audit.check()
    assert [(one.invariant, one.records) for one in wrong if one.invariant == CAUSES] == [(CAUSES, ("shelf@4",))]
    assert "a record of till after till@4 was caused by shelf@4" in str(made.says())
    made.put("d")
    assert "restored" not in str(made.says()) and made.audit.cut.at == made.heads


def test_violations_are_counted_past_a_bound() -> None:
    """Of single transactions a bounded number of violations is kept, the first; the others are counted."""
    made = books(good)
    for _ in range(VIOLATIONS_MAX + 7):
        made.put("a")
    assert len(made.says()) == VIOLATIONS_MAX
    made.put("a")
    assert len(made.says()) == VIOLATIONS_MAX
    report = made.audit.report()
    assert report.more == 8 and report.violations[0].tx == "t1" and not report.passed


def held(thing: Any, seen: set[int]) -> int:
    """How many objects are kept by an audit, its system aside."""
    if id(thing) in seen or isinstance(thing, type | Service | System | Contract) or callable(thing):
        return 0
    seen.add(id(thing))
    found = 1
    if isinstance(thing, dict):
        found += sum(held(key, seen) + held(value, seen) for key, value in cast(dict[Any, Any], thing).items())
    elif isinstance(thing, list | tuple | set | frozenset) or type(thing).__name__ == "deque":
        found += sum(held(one, seen) for one in cast(Iterable[Any], thing))
    else:
        names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
        found += sum(held(getattr(thing, name, None), seen) for name in names)
    return found


@pytest.mark.parametrize("silent", [False, True])
def test_what_is_kept_does_not_grow_with_what_is_settled(*, silent: bool) -> None:
    """What an audit keeps grows with what is in flight and with the keys of folds, not with what was judged; nor, while
    a service does not answer, with how often the others were asked."""
    made = system()
    made.invariant(key=skus_of)(Kept)
    found = Books(made)
    sizes: list[int] = []
    chance = random.Random(1)
    if silent:
        found.enter(("shelf", "shelf.put.v2", {"sku": "a", "units": 1}), cause="till@1")
    for _ in range(3):
        for _ in range(200):
            if not silent:
                found.put(chance.choice("abc"))
                found.fly()
            head = found.heads["shelf"] + 1 if silent else found.heads["shelf"]
            found.heads["shelf"] = head
            mark = Mark(head, {"exchange:till": chance.randint(1, 9)}, frozenset({("till", chance.randint(1, 99))}))
            found.audit.take("shelf", [], head, head=head, mark=mark)
            if not silent:
                found.land()
            found.audit.check()
        sizes.append(held(found.audit, set()))
    assert sizes[2] <= sizes[1] + 20, sizes


class Kept:
    """Adds up, by key."""

    units: int = 0

    def settled(self, tx: Happened, key: str) -> None:
        self.units += sum(event.units for event in tx.of(Put) if event.sku == key)

    def holds(self) -> list[str]:
        return []


def test_a_keyed_fold_is_told_its_key() -> None:
    """`holds` of a fold by key is given its key after what is in flight; without a key that is refused."""
    made = System([Service(Contract("told"))])

    @made.invariant(key=lambda tx: ["a", "b"])
    class Told:
        def settled(self, tx: Happened) -> None:
            assert tx.settled

        def holds(self, in_flight: list[Happened], key: str) -> Iterator[str]:
            yield f"it is {key}, of {len(in_flight)}"

    judge, found = Judge(made.invariants["Told"]), Open("t", "", 0)
    said = judge.check([Happened(found, Types({}), settled=False)])
    assert [(one.key, one.says) for one in said] == [("a", "it is a, of 1"), ("b", "it is b, of 1")]

    class Unkeyed(Told):
        """The same, without a key."""

    with pytest.raises(Misuse, match="then the key"):
        made.invariant(Unkeyed)
