"""Invariants that fail, or cannot judge: said, or refused where they are declared; the others go on (G10)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast import Happened
from holdfast.errors import Misuse
from support.systems.shelf import Books, Gone, Put, books, good, skus_of, system


def raises(tx: Happened) -> Iterator[str]:
    yield "said before"
    tx.of(Put)[7]


def tells(tx: Happened) -> Any:
    return "a string" if Put in tx else None


def counts(tx: Happened) -> Any:
    return len(tx.of(Put))


def no_such(tx: Happened) -> str:
    return tx.of(Gone)[0].sku


def odd(tx: Happened) -> Any:
    return [{}]


class Stumbles:
    def settled(self, tx: Happened) -> None:
        raise LookupError("where is it")

    def holds(self) -> list[str]:
        return []


class Falls:
    def settled(self, tx: Happened) -> None:
        tx.of(Put)

    def holds(self) -> Any:
        return 7


class Flies:
    def settled(self, tx: Happened) -> None: ...

    def holds(self, in_flight: list[Happened]) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("declared", "key", "said"),
    [
        (raises, None, ["said before", "could not judge: IndexError: list index out of range"]),
        (tells, None, ["must yield sentences about what is wrong; it returned 'a string'"]),
        (counts, None, ["must yield sentences about what is wrong; it returned 1"]),
        (Stumbles, None, ["could not judge: LookupError: where is it"]),
        (Falls, None, ["must yield sentences about what is wrong; it returned 7"]),
        (Falls, no_such, ["could not judge: IndexError: list index out of range"]),
        (Falls, odd, ["could not judge: TypeError: unhashable type: 'dict'"]),
        (Flies, no_such, ["could not judge: IndexError: list index out of range"] * 2),
    ],
)  # fmt: skip
def test_an_invariant_that_fails_is_said(declared: Any, key: Any, said: list[str]) -> None:
    """G10: one that raises, of what is settled or in flight, in its key too, or that answers something else than
    sentences, is a violation that says so, with the transaction; the others judge as ever, and nothing crashes."""
    made = system()
    made.invariant(good)
    made.invariant(declared) if key is None else made.invariant(key=key)(declared)
    found = Books(made)
    found.put("a")
    if declared is Flies:
        found.fly()
    assert found.says() == ["good judged", *said]
    assert found.audit.report().violations[1].tx == "t1" and not found.audit.report().passed


def nothing() -> None: ...


def one(tx: Happened) -> None: ...


async def later(tx: Happened) -> None: ...


async def asks(tx: Happened) -> Any:
    yield ""


class Awaits:
    async def settled(self, tx: Happened) -> None: ...

    def holds(self) -> None: ...


class Bare:
    def settled(self, tx: Happened) -> None: ...


class Wide:
    def settled(self, tx: Happened, key: str, more: int) -> None: ...

    def holds(self) -> None: ...


class Keyless:
    def settled(self, tx: Happened, key: str) -> None: ...

    def holds(self) -> None: ...


class Greedy:
    def settled(self, tx: Happened) -> None: ...

    def holds(self, in_flight: Any, more: Any) -> None: ...


class Needs:
    def __init__(self, start: int) -> None: ...

    def settled(self, tx: Happened) -> None: ...

    def holds(self) -> None: ...


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda it: it.invariant(later), "later: an invariant must be a plain def"),
        (lambda it: it.invariant(asks), "asks: an invariant must be a plain def"),
        (lambda it: it.invariant(Awaits), "Awaits.settled: an invariant must be a plain def"),
        (lambda it: it.invariant(nothing), "nothing: an invariant function takes one transaction"),
        (lambda it: it.invariant(lambda tx, key: []), "<lambda>: an invariant function takes one transaction"),
        (lambda it: it.invariant(7), "int: an invariant function takes one transaction"),
        (lambda it: it.invariant(key=skus_of)(one), "one: an invariant function takes one transaction"),
        (lambda it: it.invariant(key=nothing)(Falls), "Falls: `key` must be a function that takes what happened"),
        (lambda it: it.invariant(key=later)(Falls), "later: an invariant must be a plain def"),
        (lambda it: it.invariant(key="sku")(Falls), "Falls: `key` must be a function that takes what happened"),
        (lambda it: it.invariant(Bare), "Bare: an invariant class needs settled"),
        (lambda it: it.invariant(key=skus_of)(Wide), "Wide.settled must take a transaction"),
        (lambda it: it.invariant(Keyless), "Keyless.settled must take a transaction"),
        (lambda it: it.invariant(Greedy), "Greedy.holds must take nothing or"),
        (lambda it: it.invariant(Needs), "Needs: the invariant class must be callable without arguments"),
        (lambda it: (it.invariant(one), it.invariant(one)), "system 'stall': two invariants are named 'one'"),
    ],
)  # fmt: skip
def test_what_cannot_judge_is_refused(declare: Callable[[Any], Any], said: str) -> None:
    """G10: an invariant that cannot work is refused where it is declared, in one sentence that names it."""
    with pytest.raises(Misuse) as found:
        declare(system())
    assert said in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("put.v9", {"sku": "a", "units": 1}, "shelf.put.v9 is not a message of the contract 'shelf'"),
        ("put.v2", {"sku": "a", "units": "many"}, "Expected `int`, got `str`"),
        ("put.v1", {"sku": "a"}, "name"),
    ],
)
def test_an_event_that_cannot_be_read_is_said(name: str, data: dict[str, Any], said: str) -> None:
    """An event of a version that is not known here, or whose payload does not fit, is said by whoever asks for it, with
    its record: it is never left out of a sum in silence. Who does not ask for it judges."""

    class Sum:
        """Adds up."""

        def settled(self, tx: Happened) -> None:
            sum(event.units for event in tx.of(Put))

        def holds(self) -> list[str]:
            return []

    def other(tx: Happened) -> Iterator[str]:
        """Looks at others."""
        if Gone in tx:
            yield "gone"

    made = books(good, Sum, other)
    made.enter(("shelf", f"shelf.{name}", data), ("shelf", "shelf.gone.v1", {"sku": "a", "units": 1}))
    made.says()
    found = {one.invariant: one for one in made.audit.report().violations}
    assert found["other"].says == "gone" and "could not judge" in found["good"].says
    for name in ("good", "Sum"):
        assert said in found[name].says and "shelf@1" in found[name].records
