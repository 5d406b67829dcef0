"""A checker of isolation: what clients saw of lists that are only appended to, and which anomalies are in it.

It shares nothing with holdfast. Values are unique per key, so a read shows whose appends came before it and in which
order: version orders follow from the reads, and from those who depends on whom: ww (wrote after), wr (read what it
wrote), rw (read before it wrote), and real-time (began after it had ended). A cycle is an anomaly, named by its weakest
edges. (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020; the
names are those of Adya, "Weak Consistency", 1999.)
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

WW, WR, RW, RT = "ww", "wr", "rw", "real-time"
KINDS = (WW, WR, RW, RT)
CYCLES = (("G0", WW, (WW,)), ("G1c", WR, (WW, WR)), ("G-single", RW, (WW, WR)), ("G2", RW, (WW, WR, RW)))
"""Name, the kind of edge a cycle has to have, and the kinds that may lead back from its end to its beginning."""


@dataclass(frozen=True)
class Append:
    """A value was put at the end of a list."""

    key: str
    value: str


@dataclass(frozen=True)
class Read:
    """All of a list was seen."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Transaction:
    """What a client asked and was told. `unknown`: it was never told whether it is committed."""

    id: str
    status: Literal["committed", "aborted", "unknown"]
    operations: tuple[Append | Read, ...]
    began: float | None = None
    ended: float | None = None
    """When it was asked, and when the answer was there; without them real time is not checked."""

    def appends(self, key: str) -> list[str]:
        """What it appends to a key, in order."""
        return [one.value for one in self.operations if isinstance(one, Append) and one.key == key]


@dataclass(frozen=True)
class Anomaly:
    """What may not be: its name, and where it is."""

    name: str
    where: str


@dataclass
class Verdict:
    """What was found, and how much was looked at."""

    anomalies: list[Anomaly] = field(default_factory=list[Anomaly])
    edges: Counter[str] = field(default_factory=Counter[str])
    """Dependencies by kind."""
    statuses: Counter[str] = field(default_factory=Counter[str])
    """Transactions by what is known of them: an unknown one of which anything was seen counts as committed."""

    def names(self) -> set[str]:
        """The names of all that was found."""
        return {one.name for one in self.anomalies}


Edges = dict[tuple[str, str], dict[str, str]]
"""(from, to) -> kind -> why."""


def check(history: Sequence[Transaction], final: Mapping[str, Sequence[str]] | None = None) -> Verdict:
    """Check a history; `final` is every list as it is in the end, where that is known."""
    return _Checked(history, final).verdict


class _Checked:
    """One history on its way to a verdict."""

    def __init__(self, history: Sequence[Transaction], final: Mapping[str, Sequence[str]] | None) -> None:
        self.verdict, self.final = Verdict(), final
        self.writers: dict[tuple[str, str], Transaction] = {}
        for one in history:
            for done in one.operations:
                if isinstance(done, Append):
                    if (done.key, done.value) in self.writers:
                        raise ValueError(f"{done} is there twice: values must be unique")
                    self.writers[done.key, done.value] = one
        if len({one.id for one in history}) < len(history):
            raise ValueError("two transactions have one id")
        self.aborted = {one.id for one in history if one.status == "aborted"}
        seen = {writer.id for key, values in self._seen(history) for writer in self._writers(key, values)}
        self.committed = [one for one in history if one.status == "committed" or one.id in seen - self.aborted]
        self.ids = {one.id for one in self.committed}
        self.verdict.statuses.update("committed" if one.id in self.ids else one.status for one in history)
        for one in self.committed:
            self._inside(one)
        self._lists()
        self.edges: Edges = {}
        self._depend()
        self.verdict.edges.update(kind for kinds in self.edges.values() for kind in kinds)
        self._cycles()

    def _say(self, name: str, where: str) -> None:
        self.verdict.anomalies.append(Anomaly(name, where))

    def _seen(self, history: Sequence[Transaction]) -> Iterator[tuple[str, Sequence[str]]]:
        yield from (self.final or {}).items()
        yield from ((key, values) for one in history if one.status == "committed" for key, values in _reads(one))

    def _writers(self, key: str, values: Sequence[str]) -> list[Transaction]:
        return [self.writers[key, value] for value in values if (key, value) in self.writers]

    def _clean(self, key: str, values: Sequence[str]) -> list[str]:
        """Of the values those that committed transactions wrote, once each."""
        return [
            one for one in dict.fromkeys(values) if (key, one) in self.writers and self._writer(key, one) in self.ids
        ]

    def _writer(self, key: str, value: str) -> str:
        return self.writers[key, value].id

    def _inside(self, one: Transaction) -> None:
        """What one transaction read: its own appends, nobody's aborted or half-done ones, and nothing twice."""
        known: dict[str, tuple[str, ...]] = {}
        own: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
        for done in one.operations:
            key = done.key
            if isinstance(done, Append):
                own[key] += (done.value,)
                if key in known:
                    known[key] += (done.value,)
                continue
            where = f"{one.id} read {key}: {list(done.values)}"
            if (
                done.values != known.get(key, done.values)
                or done.values[len(done.values) - len(own[key]) :] != own[key]
            ):
                self._say("internal", f"{where}, and had itself seen or made it {list(known.get(key, own[key]))}")
            known[key] = done.values
            self._strange(key, done.values, where, "G1a")
            for other in dict.fromkeys(self._writers(key, done.values)):
                if (
                    other is not one
                    and other.id in self.ids
                    and (missing := set(other.appends(key)) - set(done.values))
                ):
                    self._say("G1b", f"{where}, without {sorted(missing)}, which {other.id} appended too")

    def _strange(self, key: str, values: Sequence[str], where: str, aborted: str) -> None:
        for value, count in Counter(values).items():
            if count > 1:
                self._say("duplicate", f"{where}: {value} {count} times")
            if (key, value) not in self.writers:
                self._say("unwritten", f"{where}: nobody appended {value}")
            elif self._writer(key, value) in self.aborted:
                self._say(aborted, f"{where}: {value} is of {self._writer(key, value)}, which aborted")

    def _lists(self) -> None:
        """The final lists, and the version orders: each read is a beginning of the longest one."""
        if self.final is not None:
            for key, values in self.final.items():
                self._strange(key, values, f"in the end {key} is {list(values)}", "aborted append")
            for (key, value), one in self.writers.items():
                if one.id in self.ids and value not in self.final.get(key, ()):
                    self._say("lost append", f"{one.id} appended {value} to {key}, where it is not in the end")
        self.orders: dict[str, list[str]] = {}
        for key, values in self._seen(self.committed):
            self.orders[key] = max(self.orders.get(key, []), self._clean(key, values), key=len)
        for key, values in self._seen(self.committed):
            clean, order = self._clean(key, values), self.orders[key]
            if clean != order[: len(clean)]:
                self._say("incompatible order", f"{key} was seen as {clean} and as {order}")

    def _depend(self) -> None:
        for key, order in self.orders.items():
            for before, after in pairwise(order):
                self._edge(WW, self._writer(key, before), self._writer(key, after), f"{key}: {before}, {after}")
        for one in self.committed:
            for key, values in _reads(one):
                clean, order = self._clean(key, values), self.orders.get(key, [])
                if clean:
                    self._edge(WR, self._writer(key, clean[-1]), one.id, f"{key}: {clean[-1]}")
                if clean == order[: len(clean)] != order:
                    after = order[len(clean)]
                    self._edge(RW, one.id, self._writer(key, after), f"{key}: before {after}")
        timed = [one for one in self.committed if one.began is not None]
        for one in timed:
            before = [other for other in timed if _ended(other) < (one.began or 0)]
            last = max((other.began or 0 for other in before), default=0)
            for other in before:
                if _ended(other) >= last:  # the others come before one of these
                    self._edge(RT, other.id, one.id, f"{other.ended:g} < {one.began:g}")

    def _edge(self, kind: str, first: str, second: str, why: str) -> None:
        if first != second:
            self.edges.setdefault((first, second), {}).setdefault(kind, why)

    def _cycles(self) -> None:
        """For each name the shortest cycles, none of them over a transaction of a shorter one of that name."""
        edges = _peeled(self.edges)
        graphs = {kinds: _graph(edges, kinds) for kinds in ((WW,), (WW, WR), (WW, WR, RW), KINDS)}
        single: set[tuple[str, str]] = set()
        for name, through, back in (*CYCLES, (RT, RT, KINDS)):
            found: list[list[str]] = []
            for (first, second), kinds in edges.items():
                if _strongest(kinds) != through or (name == "G2" and (first, second) in single):
                    continue
                if path := _path(graphs[back], second, first):
                    found.append([first, *path])
                    if name == "G-single":
                        single.add((first, second))
            taken: set[str] = set()
            for cycle in sorted(found, key=lambda one: (len(one), one)):
                if taken.isdisjoint(cycle):
                    taken.update(cycle)
                    self._say(name, self._drawn(cycle))

    def _drawn(self, cycle: list[str]) -> str:
        text = cycle[0]
        for first, second in pairwise(cycle):
            kinds = self.edges[first, second]
            text += f" -{_strongest(kinds)} ({kinds[_strongest(kinds)]})-> {second}"
        return text


def _reads(one: Transaction) -> list[tuple[str, tuple[str, ...]]]:
    return [(done.key, done.values) for done in one.operations if isinstance(done, Read)]


def _ended(one: Transaction) -> float:
    return one.ended if one.ended is not None and one.status == "committed" else float("inf")


def _strongest(kinds: Mapping[str, str]) -> str:
    return next(kind for kind in KINDS if kind in kinds)


def _peeled(edges: Edges) -> Edges:
    """Without the transactions that nothing leads to or from, again and again: what is left holds every cycle."""
    while True:
        froms, tos = {first for first, _ in edges}, {second for _, second in edges}
        left = {pair: kinds for pair, kinds in edges.items() if pair[0] in tos and pair[1] in froms}
        if len(left) == len(edges):
            return left
        edges = left


def _graph(edges: Edges, kinds: Sequence[str]) -> dict[str, list[str]]:
    graph: defaultdict[str, list[str]] = defaultdict(list)
    for (first, second), found in edges.items():
        if not found.keys().isdisjoint(kinds):
            graph[first].append(second)
    return dict(graph)


def _path(graph: Mapping[str, Sequence[str]], start: str, end: str) -> list[str]:
    """A shortest path, both ends in it; empty where there is none."""
    came: dict[str, str] = {start: ""}
    queue = deque([start])
    while queue and end not in came:
        at = queue.popleft()
        for following in graph.get(at, ()):
            if following not in came:
                came[following] = at
                queue.append(following)
    path = [end] if end in came else []
    while path and came[path[0]]:
        path.insert(0, came[path[0]])
    return path
