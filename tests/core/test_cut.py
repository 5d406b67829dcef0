"""The consistent cut beside brute force, on histories drawn at random and read page by page (G7)."""

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.audit.cut import NOTHING, Cut, Seen
from holdfast.core.saga.stage import DONE

LOGS = ("a", "b", "c")


def record(position: int, cause: str, tx: str, at: int, kind: str = "x.y.v1") -> Seen:
    """A record of which only what a cut looks at is set."""
    return Seen(position, "event", kind, tx, cause, at, "", "", 0, "", False, NOTHING)


class History:
    """Logs as services write them: commits one after another, each caused by something that was there before."""

    def __init__(self, steps: list[tuple[int, ...]]) -> None:
        self.commits: list[tuple[str, list[Seen], int]] = []
        """(log, records, the head that the log has with them), in the order they happened."""
        self.heads = dict.fromkeys(LOGS, 0)
        self._all: list[tuple[str, Seen]] = []
        self._at = 0
        for step in steps:
            self._happens(*step)

    def _happens(self, log: int, what: int, one: int, other: int, count: int, leaps: int, later: int) -> None:
        name = LOGS[log]
        self._at += later
        self.heads[name] += leaps
        if what == 0 or not self._all:
            causes, tx, end = [f"t{len(self.commits)}"] * count, f"t{len(self.commits)}", ""
        elif what == 1:
            causes, tx, end = [f"{name}!{one}"] * count, self._all[one % len(self._all)][1].tx, ""
        elif what == 2:
            self._at += 1  # a decision takes time: nothing else of its transaction has its instant
            parts = sorted((one, other))
            causes = [self._id(parts[n % 2]) for n in range(count)] + [self._id(one + other)]
            tx, end = self._all[one % len(self._all)][1].tx, DONE
        else:
            causes, tx, end = [self._id(one)] * count, self._all[one % len(self._all)][1].tx, ""
        found: list[Seen] = []
        for number, cause in enumerate(causes):
            self.heads[name] += 1
            kind = end if end and number == len(causes) - 1 else "x.y.v1"
            found.append(record(self.heads[name], cause, tx, self._at, kind))
        if leaps == 3:
            self.heads[name] += 2  # a leap with nothing behind it yet
        self._all += [(name, one) for one in found]
        self.commits.append((name, found, self.heads[name]))

    def _id(self, number: int) -> str:
        log, found = self._all[number % len(self._all)]
        return f"{log}@{found.position}"


class Reader:
    """Pages of the logs, read while they grow, into a `Cut`; and by brute force what the cut has to be."""

    def __init__(self, history: History) -> None:
        self.history, self.cut = history, Cut(LOGS)
        self.there = 0
        """Commits that have happened when it reads."""
        self.got: dict[str, list[Seen]] = {log: [] for log in LOGS}
        self.ends: dict[str, set[int]] = {log: {0} for log in LOGS}
        """Positions of which the reader was told that a commit ends there."""
        self.admitted: list[tuple[str, Seen]] = []

    def page(self, log: str, limit: int, *, says: bool) -> None:
        """Read so many records on; `says`: at the head it is said that this is the head."""
        known = self.history.commits[: self.there]
        head = max((head for name, _, head in known if name == log), default=0)
        after = self.cut.read[log]
        rest = [one for name, found, _ in known if name == log for one in found if one.position > after]
        page = rest[:limit]
        upto = page[-1].position if len(page) < len(rest) else head
        whole = says and upto == head
        if not says and page:
            upto = page[-1].position
        self.got[log] += page
        self.cut.take(log, page, upto, whole=whole)
        if whole:
            self.ends[log].add(upto)
        for name, run in self.cut.advance():
            assert run
            self.admitted += [(name, one) for one in run]

    def may_end(self, log: str) -> list[int]:
        """Where a cut may be, by all that was read of one log: between two commits for sure."""
        got, sure = self.got[log], set(self.ends[log])
        for number, one in enumerate(got):
            following = got[number + 1] if number + 1 < len(got) else None
            limit = following.position if following is not None else self.cut.read[log] + 1
            said = any(one.position <= end < limit for end in self.ends[log])
            another = following is not None and (one.tx, one.at) != (following.tx, following.at)
            if one.type == DONE or said or another:
                sure.add(one.position)
        found = set(sure)
        for before, after in pairwise(got):
            if before.position in sure or before.cause == after.cause:
                continue
            inside = [one for one in got if one.position >= after.position]
            closes = next((one for one in inside if one.position in sure), None)
            if closes is not None and closes.type != DONE:
                found.add(before.position)
        return sorted(found)

    def brute_force(self) -> dict[str, int]:
        """The greatest vector that is closed under cause: begin with all that was read, take back what has no cause,
        until nothing is to be taken back."""
        ends = {log: self.may_end(log) for log in LOGS}
        at = {log: ends[log][-1] for log in LOGS}
        changed = True
        while changed:
            changed = False
            for log in LOGS:
                for one in self.got[log]:
                    producer, _, position = one.cause.rpartition("@")
                    if one.position <= at[log] and producer in LOGS and int(position) > at[producer]:
                        at[log] = max(end for end in ends[log] if end < one.position)
                        changed = True
        return at

    def check(self) -> None:
        """The vector is what brute force finds; what was admitted is all up to it, once, causes before effects."""
        for log, at in self.brute_force().items():
            there = [one.position for one in self.got[log] if one.position <= at]
            assert there == [one.position for one in self.got[log] if one.position <= self.cut.at[log]]
        ids = [(log, one.position) for log, one in self.admitted]
        assert sorted(ids) == sorted(
            (log, one.position) for log in LOGS for one in self.got[log] if one.position <= self.cut.at[log]
        )
        seen: set[str] = set()
        before = Counter[str]()
        for log, one in self.admitted:
            producer = one.cause.rpartition("@")[0]
            assert producer not in LOGS or one.cause in seen
            assert one.position > before[log]
            before[log] = one.position
            seen.add(f"{log}@{one.position}")
        for log, found, _ in self.history.commits:
            parts = {one.position <= self.cut.at[log] for one in found}
            assert len(parts) == 1, "a commit was parted"


small = st.integers(0, 60)
happening = st.tuples(
    st.integers(0, 2), st.integers(0, 5), small, small, st.integers(1, 3), st.integers(0, 3), st.integers(0, 2)
)
reading = st.tuples(st.integers(0, 2), st.integers(1, 6), st.booleans(), st.integers(0, 4))


@given(st.lists(happening, max_size=25), st.lists(reading, max_size=25))
def test_the_cut_is_the_greatest_there_is(
    happens: list[tuple[int, ...]], pages: list[tuple[int, int, bool, int]]
) -> None:
    """Whatever order the pages come in, and wherever they end, the cut after each is the greatest within what was read
    that is closed under cause and parts no commit; each record is admitted once, after its cause. When all was read,
    all is admitted."""
    reader = Reader(History(happens))
    for log, limit, says, more in pages:
        reader.there = min(len(happens), reader.there + more)
        reader.page(LOGS[log], limit, says=says)
        reader.check()
    reader.there = len(happens)
    for log in LOGS:
        reader.page(log, 1_000, says=True)
        reader.check()
    assert reader.cut.at == reader.history.heads and reader.cut.blocked() == {}


@given(st.lists(happening, min_size=5, max_size=25), st.integers(0, 2), st.integers(1, 20))
def test_what_a_lost_cause_holds_back(happens: list[tuple[int, ...]], log: int, lost: int) -> None:
    """Where the end of a log is lost, all that it caused is held back, and nothing else; who waits names the cause."""
    reader = Reader(History(happens))
    kept = [n for n, (name, _, _) in enumerate(reader.history.commits) if name != LOGS[log]]
    gone = [n for n, (name, _, _) in enumerate(reader.history.commits) if name == LOGS[log]][-lost:]
    reader.history.commits = [one for n, one in enumerate(reader.history.commits) if n in kept or n not in gone]
    reader.there = len(reader.history.commits)
    for name in LOGS:
        reader.page(name, 1_000, says=True)
        reader.check()
    for name, cause in reader.cut.blocked().items():
        producer, _, position = cause.rpartition("@")
        assert int(position) > reader.cut.at[producer] and name in LOGS
    assert set(reader.cut.blocked()) == {name for name in LOGS if reader.cut.at[name] < reader.cut.read[name]}


def test_a_commit_of_many_parts_is_seen_whole() -> None:
    """G6: parts of a staged commit wait for the cause of each of them, and are admitted with the record that ends it,
    though all of them but that were read long before."""
    cut = Cut(("a", "b"))
    parts = [record(n, f"b@{n}", "t", 7) for n in range(1, 4)]
    cut.take("a", parts, 3, whole=False)
    cut.take("b", [record(n, "t", "t", n) for n in range(1, 5)], 4, whole=True)
    assert [(log, len(run)) for log, run in cut.advance()] == [("b", 1)] * 4
    cut.take("a", [record(4, "b@5", "t", 7, DONE)], 4, whole=True)
    assert list(cut.advance()) == [] and cut.blocked() == {"a": "b@5"}
    cut.take("b", [record(5, "t", "t", 9)], 5, whole=True)
    assert [(log, len(run)) for log, run in cut.advance()] == [("b", 1), ("a", 4)]


def test_what_was_said_to_be_a_head_stays_an_end() -> None:
    """A record that waited for its cause when its log had ended after it is not joined to a commit that came later, at
    the same instant."""
    cut = Cut(("a", "b"))
    cut.take("a", [record(1, "b@1", "t", 7)], 1, whole=True)
    cut.take("a", [record(2, "b@2", "t", 7)], 2, whole=False)
    cut.take("b", [record(1, "t", "t", 1)], 1, whole=True)
    assert [(log, run[-1].position) for log, run in cut.advance()] == [("b", 1), ("a", 1)]
    assert cut.at == {"a": 1, "b": 1}


def test_causes_that_are_no_records() -> None:
    """A cause at the edge, a timer, and a record of a log that is not audited hold nothing back."""
    cut = Cut(("a",))
    causes = ("key@host", "a!retry:3", "elsewhere@9", "0190-tx", "a@")
    cut.take("a", [record(n, cause, "t", n) for n, cause in enumerate(causes, 1)], 5, whole=True)
    assert sum(len(run) for _, run in cut.advance()) == 5 and cut.at == {"a": 5}


class Cause(str):
    """A cause that counts how often it is taken apart."""

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        Counted.looks += 1
        return super().rpartition(sep)


class Counted:
    """A record that counts how often anything of it is looked at."""

    looks = 0

    def __init__(self, of: Seen) -> None:
        self._of, self._cause = of, Cause(of.cause)

    def __getattr__(self, name: str) -> Any:
        Counted.looks += 1
        return self._cause if name == "cause" else getattr(self._of, name)


def one_instant(count: int) -> list[tuple[str, list[Seen], bool]]:
    """One transaction, asked for by one log and decided by another in one group: as many causes, one instant."""
    asked = [record(n, "t", "t", 1) for n in range(1, count + 1)]
    answers = [record(n, f"a@{n}", "t", 2) for n in range(1, count + 1)]
    return [("a", asked, True), ("b", answers, True)]


def page_by_page(count: int) -> list[tuple[str, list[Seen], bool]]:
    """A log that is read first, all of it, and whose causes then come one by one."""
    answers = [record(n, f"a@{n}", f"t{n}", n + 1) for n in range(1, count + 1)]
    return [("b", answers, True)] + [("a", [record(n, f"t{n}", f"t{n}", n)], True) for n in range(1, count + 1)]


def held_back(count: int) -> list[tuple[str, list[Seen], bool]]:
    """A commit of many records that waits for the last record of a log, which comes page by page."""
    late = [record(n, f"a@{count}", "t", 9) for n in range(1, count + 1)]
    return [("b", late, True)] + [("a", [record(n, f"t{n}", f"t{n}", n)], True) for n in range(1, count + 1)]


def many_parts(count: int) -> list[tuple[str, list[Seen], bool]]:
    """A staged commit of many parts, whose causes come one by one."""
    parts = [record(n, f"a@{n}", "t", 9) for n in range(1, count)] + [record(count, f"a@{count}", "t", 9, DONE)]
    return [("b", parts, True)] + [("a", [record(n, f"t{n}", f"t{n}", n)], True) for n in range(1, count + 1)]


def there_and_back(count: int) -> list[tuple[str, list[Seen], bool]]:
    """Two logs that cause each other's records in turn."""
    a = [record(n, f"b@{n - 1}" if n > 1 else "t", "t", 2 * n) for n in range(1, count + 1)]
    b = [record(n, f"a@{n}", "t", 2 * n + 1) for n in range(1, count + 1)]
    return [("b", b, True), ("a", a, True)]


@pytest.mark.parametrize("shape", [one_instant, page_by_page, held_back, many_parts, there_and_back])
def test_each_record_is_looked_at_a_few_times(shape: Any) -> None:
    """However pages come and whatever waits for what, the cost is that of the records: no more than a few looks at each
    of them, also when there are four times as many."""
    for count in (200, 800):
        Counted.looks = 0
        cut = Cut(("a", "b"))
        admitted = 0
        for log, found, whole in shape(count):
            page: Any = [Counted(one) for one in found]
            cut.take(log, page, found[-1].position, whole=whole)
            admitted += sum(len(run) for _, run in cut.advance())
            cut.blocked()
        assert admitted == 2 * count and cut.at == {"a": count, "b": count}
        assert Counted.looks <= 15 * admitted, Counted.looks / admitted


def test_nothing_is_kept_of_what_was_admitted() -> None:
    """What a cut keeps is what was read and not admitted."""
    cut = Cut(("a", "b"))
    for n in range(1, 200):
        cut.take("a", [record(n, "t", f"t{n}", n)], n, whole=True)
        cut.take("b", [record(n, f"a@{n}", f"t{n}", n)], n, whole=True)
        list(cut.advance())
    assert len(msgspec.json.encode({name: str(kept) for name, kept in vars(cut).items()})) < 2_000
