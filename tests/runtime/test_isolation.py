"""Isolation of staged commit, checked: what clients saw of lists, judged by a checker that shares nothing with it.

First the checker is shown histories with a known anomaly each, and good ones. Then staged transactions append to lists
of three services and read them while services crash and frames are lost; what they saw must be strictly serializable
(G6). At last the lock is taken out, and the checker has to say so.
"""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from holdfast import Command, Contract, Event, Rejected, Rejection, Service, System, answer, decide, evolve, step
from holdfast.errors import CommandError, StoreError
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.stages import Stages
from holdfast.runtime.edge.commands import Outcome
from holdfast.testing import VirtualSystem, run_virtual
from support.isolation_checker import Anomaly, Append, Read, Transaction, Verdict, check
from support.systems.deals import ask

left, right, desk = Contract("left"), Contract("right"), Contract("desk")


@left.event
class LeftAdded(Event):
    key: str
    value: str
    seen: tuple[str, ...]


@left.command(key="key")
class LeftAdd(Command[LeftAdded]):
    key: str
    value: str


@right.event
class RightAdded(Event):
    key: str
    value: str
    seen: tuple[str, ...]


@right.command(key="key")
class RightAdd(Command[RightAdded]):
    key: str
    value: str


@desk.event
class DeskAdded(Event):
    key: str
    value: str
    seen: tuple[str, ...]


@desk.command(key="key")
class DeskAdd(Command[DeskAdded]):
    key: str
    value: str


@desk.event
class Worked(Event):
    deal: str
    saw: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(key, value appended or empty, the list before it), in order."""


@desk.command(key="deal")
class Work(Command[Worked]):
    deal: str
    first: tuple[tuple[str, str], ...]
    second: tuple[tuple[str, str], ...] = ()
    """(key, value): an empty value only reads, `no` is refused, `raises` fails."""
    by_length: bool = False
    """Append in the second step only if the first saw an even number of values."""


ADDS: dict[str, Any] = {"left": LeftAdd, "right": RightAdd, "desk": DeskAdd}
KEYS = ("left:a", "left:b", "right:c", "right:d", "desk:e")


def add(key: str, value: str) -> Any:
    """The command for a key, whose service its name says."""
    return ADDS[key.partition(":")[0]](key, value)


def lists(service: Service, command_type: Any, event_type: Any) -> Service:
    """Lists that are appended to, or only read; what happens carries the list as it was before."""

    @service.aggregate
    class List:
        values: list[str] = []

        @decide(creates=True)
        def add(self, command: command_type) -> event_type:
            if command.value == "raises":
                raise RuntimeError("a bug")
            if command.value == "no":
                raise Rejected("no")
            return event_type(command.key, command.value, tuple(self.values))

        @evolve
        def added(self, event: event_type) -> None:
            if event.value:
                self.values.append(event.value)

    return service


def system() -> System:
    """Two services of lists, and a desk that has lists too and whose work is staged."""
    desks = lists(Service(desk), DeskAdd, DeskAdded)

    @desks.saga(staged=True)
    class Working:
        work: Work

        @step
        def first(self) -> list[LeftAdd | RightAdd | DeskAdd]:
            return [add(key, value) for key, value in self.work.first]

        @step
        def second(self, first: list[LeftAdded | RightAdded | DeskAdded]) -> list[LeftAdd | RightAdd | DeskAdd]:
            appends = not self.work.by_length or sum(len(one.seen) for one in first) % 2 == 0
            return [add(key, value if appends else "") for key, value in self.work.second]

        @answer
        def worked(
            self,
            first: list[LeftAdded | RightAdded | DeskAdded],
            second: list[LeftAdded | RightAdded | DeskAdded],
        ) -> Worked:
            return Worked(self.work.deal, tuple((one.key, one.value, one.seen) for one in (*first, *second)))

    return System(
        [lists(Service(left), LeftAdd, LeftAdded), lists(Service(right), RightAdd, RightAdded), desks], name="lists"
    )


def told(id: str, text: str, *, status: Any = "committed", at: tuple[float, float] | None = None) -> Transaction:
    """A transaction written short: `x+1` appends 1 to x, `x=12` reads the list (1, 2), `x=` the empty one."""
    operations: list[Append | Read] = []
    for word in text.split():
        key, rest = word[0], word[2:]
        operations.append(Append(key, rest) if word[1] == "+" else Read(key, tuple(rest)))
    return Transaction(id, status, tuple(operations), *(at or (None, None)))


BAD: dict[str, tuple[list[Transaction], dict[str, str] | None]] = {
    "G0": ([told("a", "x+1 y+1"), told("b", "x+2 y+2"), told("c", "x=12"), told("d", "y=21")], None),
    "G1a": ([told("a", "x+1", status="aborted"), told("b", "x=1")], {"x": ""}),
    "G1b": ([told("a", "x+1 x+2"), told("b", "x=1"), told("c", "x=12")], None),
    "G1c": ([told("a", "x+1 y=1"), told("b", "y+1 x=1")], None),
    "G-single": ([told("a", "x+1 y+1"), told("b", "x= y=1")], {"x": "1", "y": "1"}),
    "G2": ([told("a", "x= y+1"), told("b", "y= x+1")], {"x": "1", "y": "1"}),
    "incompatible order": ([told("a", "x+1"), told("b", "x+2"), told("c", "x=12"), told("d", "x=21")], None),
    "duplicate": ([told("a", "x+1"), told("b", "x=11")], None),
    "lost append": ([told("a", "x+1"), told("b", "x+2")], {"x": "2"}),
    "aborted append": ([told("a", "x+1", status="aborted")], {"x": "1"}),
    "unwritten": ([told("a", "x=1")], None),
    "internal": ([told("a", "x= x+1 x=")], None),
    "real-time": ([told("a", "x+1", at=(1, 2)), told("b", "x=", at=(3, 4))], {"x": "1"}),
}


@pytest.mark.parametrize("name", BAD)
def test_each_anomaly_is_found_under_its_name(name: str) -> None:
    """A history that has one anomaly is found to have that one, and once."""
    history, final = BAD[name]
    found = check(history, final)
    wanted = {name, "G-single"} if name == "G1b" else {name}  # who reads half of another is also before and after it
    assert found.names() == wanted and len(found.anomalies) == len(wanted), found.anomalies


def test_a_lost_update_and_a_half_done_transaction_are_found() -> None:
    """Two that read the same and both append; one of which part is seen and nobody was told; one that swaps three."""
    lost = check([told("a", "x= x+1"), told("b", "x= x+2")], {"x": "12"})
    assert lost.anomalies == [Anomaly("G-single", "b -rw (x: before 1)-> a -ww (x: 1, 2)-> b")]
    half = check([told("a", "x+1 y+1", status="unknown"), told("b", "x=1")], {"x": "1", "y": ""})
    assert half.names() == {"lost append"} and half.statuses == {"committed": 2}
    three = [told("a", "x= y+1"), told("b", "y= z+1"), told("c", "z= x+1")]
    found = check(three, {"x": "1", "y": "1", "z": "1"})
    assert found.anomalies == [Anomaly("G2", "a -rw (x: before 1)-> c -rw (z: before 1)-> b -rw (y: before 1)-> a")]
    assert found.edges == {"rw": 3}
    assert check(three[:2], {"y": "1", "z": "1"}).anomalies == []


def test_good_histories_are_good() -> None:
    """One after another; at once and yet serializable; with aborted and unknown ones that left nothing."""
    serial = [told("a", "x= x+1", at=(1, 2)), told("b", "x=1 x+2 y+1", at=(3, 4)), told("c", "x=12 y=1", at=(5, 6))]
    found = check(serial, {"x": "12", "y": "1"})
    assert found.anomalies == [] and found.edges == {"ww": 1, "wr": 2, "real-time": 2}
    at_once = [
        told("a", "x= y=2 x+1", at=(1, 9)), told("b", "y= y+2 z+1", at=(1, 9)), told("c", "x=1 x+3 x=13", at=(2, 8)),
        told("d", "z+9", status="aborted"), told("e", "z+8", status="unknown"), told("f", "x+4", status="unknown"),
        told("g", "x=134 z=1"),
    ]  # fmt: skip
    found = check(at_once, {"x": "134", "y": "2", "z": "1"})
    assert found.anomalies == [] and found.statuses == {"committed": 5, "aborted": 1, "unknown": 1}
    with pytest.raises(ValueError, match="unique"):
        check([told("a", "x+1"), told("b", "x+1")])


class Ran(msgspec.Struct):
    """What came of one run."""

    verdict: Verdict
    crashes: int
    left: list[str]
    """What is still held."""


class Clients:
    """Clients that work side by side, each one transaction after another, and write down what they were told."""

    def __init__(self, virtual: VirtualSystem, seed: int) -> None:
        self.virtual, self.rng = virtual, random.Random(seed)
        self.history: list[Transaction] = []

    def drawn(self, deal: str) -> Work:
        """What to ask: one to three keys, then none to two, some of them again; some only read, some are refused."""
        rng = self.rng

        def pairs(count: int, mark: str) -> tuple[tuple[str, str], ...]:
            return tuple((key, f"{deal}{mark}" if rng.random() < 0.6 else "") for key in rng.sample(KEYS, count))

        second = pairs(rng.choice((0, 1, 1, 2)), "b")
        if rng.random() < 0.15:
            second = (*second, (rng.choice(KEYS), rng.choice(("no", "raises"))))
        return Work(deal, pairs(rng.choice((1, 2, 2, 3)), "a"), second, rng.random() < 0.3)

    async def client(self, number: int, count: int) -> None:
        """One client."""
        for turn in range(count):
            await asyncio.sleep(self.rng.random() * self.rng.choice((0, 0.02, 0.2, 1)))
            deal = f"{number}.{turn}"
            if self.rng.random() < 0.2:
                key = self.rng.choice(KEYS)
                await self.asked(deal, add(key, self.rng.choice((deal, ""))), False)
            else:
                await self.asked(deal, self.drawn(deal), self.rng.random() < 0.1)

    async def asked(self, deal: str, command: Any, hasty: bool) -> None:
        """Ask, wait for the answer (not long, who is `hasty`), and write down what it says."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        pairs = (*command.first, *command.second) if isinstance(command, Work) else ((command.key, command.value),)
        try:
            if hasty:
                command = msgspec.structs.replace(command, by_length=False)
                outcome = await self.virtual.client.send(command, key=deal, wait_seconds=0.005)
            else:
                outcome = await ask(self.virtual, command, deal, seconds=600)
        except (CommandError, StoreError):
            self.history.append(Transaction(deal, "unknown", tuple(intended(pairs)), began))
            return
        self.history.append(_told(deal, outcome, pairs, began, loop.time()))


def intended(pairs: tuple[tuple[str, str], ...]) -> list[Append]:
    """What is appended if all goes well."""
    return [Append(key, value) for key, value in pairs if value not in ("", "no", "raises")]


def _told(
    deal: str, outcome: Outcome, pairs: tuple[tuple[str, str], ...], began: float, ended: float
) -> Transaction:  # fmt: skip
    found: Any = outcome.answer
    if isinstance(found, Rejection):
        return Transaction(deal, "aborted", tuple(intended(pairs)), began, ended)
    operations: list[Append | Read] = []
    for key, value, seen in found.saw if isinstance(found, Worked) else ((found.key, found.value, found.seen),):
        operations += [Read(key, tuple(seen)), *intended(((key, value),))]
    return Transaction(deal, "committed", tuple(operations), began, ended)


def final(virtual: VirtualSystem) -> dict[str, list[str]]:
    """Every list as the logs have it."""
    found: dict[str, list[str]] = {key: [] for key in KEYS}
    for name in virtual.stores:
        for record in virtual.log(name):
            body = msgspec.json.decode(record.data) if record.kind == "event" else {}
            if body.get("value"):
                found[body["key"]].append(body["value"])
    return found


def run(seed: int, *, clients: int = 12, turns: int = 10) -> Ran:
    """Clients over five lists in three services, with crashes and lost frames, and what the checker says of it."""

    async def main() -> Ran:
        async with VirtualSystem(system(), loss=0.03, snapshot_every=5, streams_in_memory_max=3) as virtual:
            them = Clients(virtual, seed)

            async def crashes() -> None:
                for _ in range(8):
                    await asyncio.sleep(them.rng.random())
                    store = virtual.stores[them.rng.choice(sorted(virtual.stores))]
                    (store.crash_before if them.rng.random() < 0.5 else store.crash_after).add(store.commits + 1)

            await asyncio.gather(*(them.client(number, turns) for number in range(clients)), crashes())
            await virtual.settle()
            await asyncio.sleep(30)  # until the last deadline has passed
            held = [stream for node in virtual.nodes.values() for stream in node.dispatch.stages.held]
            return Ran(check(them.history, final(virtual)), len(virtual.crashes), held)

    return run_virtual(main, seed=seed)


def looked_at(ran: Ran) -> None:
    """A run in which little happened proves nothing."""
    statuses, edges = ran.verdict.statuses, ran.verdict.edges
    assert statuses["committed"] >= 60 and statuses["aborted"] >= 3 and ran.crashes >= 3, (statuses, ran.crashes)
    assert min(edges[kind] for kind in ("ww", "wr", "rw", "real-time")) >= 30, edges


@pytest.mark.parametrize("seed", range(8))
def test_staged_transactions_are_strictly_serializable(seed: int) -> None:
    """G6: what staged transactions and plain commands saw of lists over three services, with crashes and losses, could
    have come of one after another, in an order that keeps to real time; nothing committed is lost, nothing aborted is
    there."""
    ran = run(seed)
    assert ran.verdict.anomalies == [] and ran.left == []
    looked_at(ran)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_many_runs_are_strictly_serializable(seed: int) -> None:
    """The same, two hundred times, with more clients."""
    ran = run(seed, clients=16, turns=12)
    assert ran.verdict.anomalies == [] and ran.left == []
    looked_at(ran)


def never_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the lock out: what meets a stream that another transaction holds is decided as if it were free."""

    def beside(
        self: Stages, by: Any, state: Any, command: Any, stream: str, others: Any, decision: Decision
    ) -> tuple[tuple[Event, ...], None]:
        return by.decide(state, command, decision.envelope.context(stream[len(by.name) + 1 :])), None

    monkeypatch.setattr(Stages, "_beside", beside)


def test_without_the_lock_the_checker_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs with the lock taken out are found bad, by what reads saw: so a clean run means something."""
    never_locked(monkeypatch)
    found = [run(seed).verdict.names() for seed in range(3)]
    assert all(names & {"G-single", "G1c", "G2"} for names in found), found
