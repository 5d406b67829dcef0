"""Invariants: statements that must be true of a system, each written once as a function over its transactions.

There are three kinds. A function judges each settled transaction by itself. A class folds settled transactions and says
whether its fold holds; or a class follows events one by one, each log's events in order, settled or not. A class works
for the whole system or per key; if `holds` takes a second argument, it also receives the transactions in flight. All
see events as they were recorded, causes before effects, within a consistent cut (`core.audit.cut`,
`core.audit.settled`). A violation names the records in which it was found. Pure; an invariant is compiled when it is
declared, and fails with `Misuse`. `core.audit.audit` runs them.
"""

import copy
import inspect
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, cast

import msgspec

from holdfast.core.audit.happened import Happened
from holdfast.core.declare.aggregate import events_in, parameters
from holdfast.core.declare.message import Event
from holdfast.core.declare.state import ATOMS, hints_of
from holdfast.errors import Invalid, Misuse

RECORDS_NAMED_MAX = 20
"""How many records a violation names at most; for a fold, the last ones that went into it."""


class Violation(msgspec.Struct, frozen=True):
    """A statement that does not hold, and the records that show it."""

    invariant: str
    says: str
    records: tuple[str, ...] = ()
    """Ids of the records in which it was found."""
    tx: str = ""
    """The transaction; for a fold the last one that went into it."""
    correlation: str = ""
    key: str = ""
    """For a fold by key: the key."""


class Invariant:
    """A declared invariant, compiled."""

    def __init__(
        self, declared: Any, key: Callable[[Happened], Any] | None = None, by: Callable[[Any], Any] | None = None
    ) -> None:
        self.declared, self.key, self.by = declared, key, by
        self.name: str = getattr(declared, "__name__", type(declared).__name__)
        self.doc = (inspect.getdoc(declared) or self.name).partition("\n")[0].rstrip(".")
        """The statement that must hold: the first line of its docstring."""
        self.folds = inspect.isclass(declared)
        self.follows: tuple[type[Event], ...] = ()
        """The events that it receives one by one; empty for an invariant that receives transactions."""
        self._defaults: dict[str, Any] = {}
        """For a fold, the fields with mutable defaults: each instance has its own copies."""
        self.keyed = self.judges = self.wants_flight = self.keyed_holds = False
        for name, function, what in (("key", key, "what happened in one transaction"), ("by", by, "one event")):
            if function is not None and (not callable(function) or _parameters(function) != 1):
                raise Misuse(
                    f"{self.name}: `{name}` must be a function that takes {what} and returns the keys it belongs to"
                )
        if self.folds:
            self._check_fold(declared)
        elif key is not None or by is not None or not callable(declared) or _parameters(declared) != 1:
            raise Misuse(f"{self.name}: an invariant function takes one transaction; only an invariant class has a key")

    def _check_fold(self, cls: type[Any]) -> None:
        settled, follow, holds = (getattr(cls, name, None) for name in ("settled", "follow", "holds"))
        if callable(settled) == callable(follow) or (callable(settled) and not callable(holds)):
            raise Misuse(
                f"{self.name}: an invariant class needs settled(self, tx) and holds(self), or follow(self, event)"
            )
        keyed = self.key is not None or self.by is not None
        if callable(follow):
            self._check_follow(follow, keyed=keyed)
        else:
            takes = _parameters(cast(Callable[..., Any], settled))
            if takes not in (2, 3) or (takes == 3 and not keyed):
                raise Misuse(f"{self.name}.settled must take a transaction, and then the key if the invariant has one")
            if self.by is not None:
                raise Misuse(f"{self.name}: `by` belongs to follow(self, event); with settled(self, tx), use `key`")
            self.keyed = takes == 3
        given = _parameters(holds) if callable(holds) else 0
        if callable(holds) and (given not in (1, 2, 3) or (given == 3 and not keyed)):
            raise Misuse(
                f"{self.name}.holds must take nothing or the transactions in flight, and then the key if the invariant"
                " has one"
            )
        self.judges, self.wants_flight, self.keyed_holds = callable(holds), given > 1, given == 3
        self._defaults = {
            name: getattr(cls, name)
            for name in hints_of(cls, self.name)
            if hasattr(cls, name) and not isinstance(getattr(cls, name), ATOMS)
        }
        try:
            self.fresh()
        except Exception as error:  # noqa: BLE001 - the user's own
            raise Misuse(
                f"{self.name}: the invariant class must be callable without arguments: {type(error).__name__}: {error}"
            ) from None

    def _check_follow(self, follow: Callable[..., Any], *, keyed: bool) -> None:
        params, _ = parameters(follow, f"{self.name}.follow")
        kinds = events_in(next(iter(params.values()), None))
        if not kinds or len(params) > 1 + keyed:
            raise Misuse(
                f"{self.name}.follow must take one parameter annotated with an event (or `One | Other`), and then the"
                " key if the invariant has one"
            )
        if self.key is not None:
            raise Misuse(f"{self.name}: `key` belongs to settled(self, tx); with follow(self, event), use `by`")
        self.follows, self.keyed = kinds, len(params) > 1

    def fresh(self) -> Any:
        """A new instance of a fold, its mutable defaults copied."""
        made = self.declared()
        for name, default in self._defaults.items():
            setattr(made, name, copy.deepcopy(default))
        return made

    def keys(self, tx: Happened) -> Iterable[Hashable]:
        """The keys that a transaction belongs to; for a fold without a key, the one empty key."""
        if self.follows:
            return dict.fromkeys(key for event in tx.of(*self.follows) for key in self.keys_of(event))
        return ("",) if self.key is None else _keys(self.key(tx))

    def keys_of(self, event: Event) -> Iterable[Hashable]:
        """The keys that an event belongs to, for an invariant that follows events."""
        return ("",) if self.by is None else _keys(self.by(event))


def _keys(found: Any) -> tuple[Hashable, ...]:
    if found is None:
        return ()
    if isinstance(found, str | bytes | tuple) or not isinstance(found, Iterable):
        found = (found,)
    return tuple(dict.fromkeys(cast(Iterable[Hashable], found)))


def _parameters(function: Callable[..., Any]) -> int:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Misuse(f"{function.__qualname__}: an invariant must be a plain def; it may not wait or call anybody")
    try:
        return len(inspect.signature(function).parameters)
    except ValueError:
        return -1


class _Fold:
    """One key of a fold."""

    __slots__ = ("records", "state", "tx")

    def __init__(self, state: Any) -> None:
        self.state = state
        self.records: deque[str] = deque(maxlen=RECORDS_NAMED_MAX)
        self.tx: tuple[str, str] = ("", "")


class Judge:
    """One invariant at work on one system."""

    def __init__(self, invariant: Invariant) -> None:
        self.invariant = invariant
        self.counted = 0
        """The number of transactions, or of keys of a fold, that it has judged."""
        self._folds: dict[Hashable, _Fold] = {}
        self._dirty: dict[Hashable, None] = {}
        self._flown: dict[Hashable, None] = {}
        """Keys of the transactions that were in flight at the last check."""
        self._wrong: dict[Hashable, list[Violation]] = {}
        self._unkeyed: list[Violation] = []
        """Violations because the key function failed on a transaction in flight at the last check."""

    def settled(self, tx: Happened) -> list[Violation]:
        """Take one settled transaction; return its violations if transactions are judged one by one."""
        tx.begin()
        if self.invariant.follows:
            return []
        if self.invariant.folds:
            return self._fold(tx)
        said, error = _said(self.invariant.declared, tx)
        self.counted += tx.was_looked_at
        if not said and not error:
            return []
        records = (tx.looked_at() or tx.ids())[:RECORDS_NAMED_MAX]
        name = self.invariant.name
        return [Violation(name, text, records, tx.tx, tx.correlation) for text in (*said, *error)]

    def _fold(self, tx: Happened) -> list[Violation]:
        invariant = self.invariant
        try:
            for key in invariant.keys(tx):
                fold = self._fold_of(key)
                fold.state.settled(tx, key) if invariant.keyed else fold.state.settled(tx)
                if looked := tx.looked_at():
                    self.counted += not fold.records
                    fold.records.extend(looked)
                    tx.begin()
                    fold.tx = (tx.tx, tx.correlation)
                    self._dirty[key] = None
        except Exception as error:  # noqa: BLE001 - the user's code failed: it is reported, and the other invariants go on
            return [self._failed(tx, error)]
        return []

    def follow(self, event: Event, record: str, tx: str, correlation: str) -> list[Violation]:
        """Take the next event of a log; return the violations, if this invariant follows events."""
        invariant, found = self.invariant, list[Violation]()
        try:
            keys = invariant.keys_of(event)
        except Exception as error:  # noqa: BLE001 - the user's code failed: it is reported, and the other invariants go on
            return [self.unread(error, record, tx, correlation)]
        for key in keys:
            fold = self._fold_of(key)
            self.counted += not fold.records
            fold.records.append(record)
            fold.tx = (tx, correlation)
            if invariant.judges:
                self._dirty[key] = None
            said, error = _said(fold.state.follow, event, *((key,) if invariant.keyed else ()))
            if said or error:
                records, shown = tuple(fold.records), _shown(key)
                found += [Violation(invariant.name, text, records, tx, correlation, shown) for text in (*said, *error)]
        return found

    def unread(self, error: Exception, record: str, tx: str, correlation: str) -> Violation:
        """The violation for an event that could not be decoded for an invariant that follows it."""
        return Violation(self.invariant.name, _failure(error), (record,), tx, correlation)

    def _failed(self, tx: Happened, error: Exception) -> Violation:
        return Violation(self.invariant.name, _failure(error), tx.ids()[:RECORDS_NAMED_MAX], tx.tx, tx.correlation)

    def _fold_of(self, key: Hashable) -> _Fold:
        if key not in self._folds:
            self._folds[key] = _Fold(self.invariant.fresh())
        return self._folds[key]

    def check(self, in_flight: Iterable[Happened]) -> list[Violation]:
        """The violations of the fold so far, at a consistent cut."""
        if not self.invariant.judges:
            return []
        flying: dict[Hashable, list[Happened]] = {}
        self._unkeyed = []
        for tx in in_flight if self.invariant.wants_flight else ():
            try:
                for key in self.invariant.keys(tx):
                    flying.setdefault(key, []).append(tx)
            except Exception as error:  # noqa: BLE001 - the user's code failed: it is reported, and the other invariants go on
                self._unkeyed.append(self._failed(tx, error))
        for key in dict.fromkeys((*self._dirty, *self._flown, *flying)):
            found = self._check(key, self._fold_of(key), flying.get(key, []))
            self._wrong.pop(key, None)
            if found:
                self._wrong[key] = found
        self._dirty, self._flown = {}, dict.fromkeys(flying)
        return self.wrong

    @property
    def wrong(self) -> list[Violation]:
        """The violations of a fold at the last check."""
        return self._unkeyed + [one for found in self._wrong.values() for one in found]

    def _check(self, key: Hashable, fold: _Fold, flying: list[Happened]) -> list[Violation]:
        given = (flying,) if self.invariant.wants_flight else ()
        given += (key,) if self.invariant.keyed_holds else ()
        for tx in flying:
            tx.begin()
        said, error = _said(fold.state.holds, *given)
        looked = [record for tx in flying for record in tx.looked_at()]
        records = tuple([*fold.records, *looked][-RECORDS_NAMED_MAX:])
        tx, correlation = fold.tx
        return [Violation(self.invariant.name, text, records, tx, correlation, _shown(key)) for text in (*said, *error)]


def _shown(key: Hashable) -> str:
    return "/".join(map(str, cast(tuple[Any, ...], key))) if isinstance(key, tuple) else str(key)


def _said(judge: Callable[..., Any], *given: Any) -> tuple[list[str], list[str]]:
    """(the violations that an invariant reports, the error if it failed itself)."""
    said: list[str] = []
    try:
        found: Any = judge(*given)
        if isinstance(found, str) or (found is not None and not isinstance(found, Iterable)):
            return [], [f"must yield sentences about what is wrong; it returned {found!r:.100}"]
        for text in cast(Iterable[Any], found or ()):
            said.append(str(text))  # noqa: PERF401 - the violations before the failure are kept
    except Exception as error:  # noqa: BLE001 - the user's code failed: it is reported, and the other invariants go on
        return said, [_failure(error)]
    return said, []


def _failure(error: Exception) -> str:
    shown = str(error) if isinstance(error, Invalid) else f"{type(error).__name__}: {error}"
    return f"could not judge: {shown}"[:500]
