"""Escrow: what only moves a counter goes on side by side, within its bounds, and comes out the same in any order."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from holdfast import Command, Context, Contract, Event, Rejected, Rejection, Service, decide, escrow, evolve
from holdfast.core.declare.aggregate import AggregateType
from holdfast.core.declare.escrow import Differs, Moves, beside, moves_of
from holdfast.errors import Misuse
from holdfast.testing import VirtualSystem, given, run_virtual, virtual_time
from support.systems.deals import ask, until
from support.systems.trades import ALL, Order, Rename, Renamed, Take, Took, Trade, Traded, events, system

hall = Contract("hall")


@hall.event
class Seated(Event):
    hall: str
    seat: str
    free: int = 0


@hall.event
class Left(Event):
    hall: str
    seat: str


@hall.event
class Counted(Event):
    hall: str
    free: int


@hall.command(key="hall")
class Seat(Command[Seated]):
    hall: str
    seat: str


@hall.command(key="hall")
class Leave(Command[Left]):
    hall: str
    seat: str


@hall.command(key="hall")
class Count(Command[Counted]):
    hall: str
    free: int


class Hall:
    free: int = escrow(default=3, min=0, max=3)
    seats: dict[str, int] = escrow()
    open: bool = True

    @decide(creates=True)
    def seat(self, command: Seat) -> Seated:
        if command.seat in self.seats:
            raise Rejected("taken")
        return Seated(command.hall, command.seat)

    @decide(creates=True)
    def leave(self, command: Leave) -> Left:
        return Left(command.hall, command.seat)

    @decide(creates=True)
    def count(self, command: Count) -> Counted:
        return Counted(command.hall, command.free)

    @evolve
    def seated(self, event: Seated) -> None:
        self.free -= 1
        self.seats[event.seat] = event.free or 1

    @evolve
    def left(self, event: Left) -> None:
        self.free += 1
        self.seats.pop(event.seat, None)

    @evolve
    def counted(self, event: Counted) -> None:
        self.free = event.free


CONTEXT = Context(0, "x@1", "h", "x", "x")


def test_what_may_go_on_beside_what_is_held() -> None:
    """A command is taken only where it comes out the same in the worst and the best case of what is held: a number
    within its bounds, an entry that nobody else touches; one that sets a number is no move at all."""
    by = AggregateType(Hall, "hall")
    state = by.shape.new()
    seated = moves_of(by, state, [Seated("h", "a1")])
    assert seated is not None and seated.numbers == {"free": -1} and list(seated.entries["seats"]) == ["a1"]
    assert moves_of(by, state, [Counted("h", 2)]) is None

    def found(command: Any, *held: Moves) -> Any:
        try:
            return beside(by, state, command, CONTEXT, held)[0]
        except Rejected as no:
            return no.code
        except Differs:
            return "waits"

    assert found(Seat("h", "b1"), seated) == (Seated("h", "b1"),)
    assert found(Seat("h", "a1"), seated) == "waits", "taken if that commits, free if not"
    assert found(Count("h", 2), seated) == "waits"
    assert found(Leave("h", "zz")) == "out_of_bounds"
    assert found(Leave("h", "zz"), seated) == "waits", "below the maximum only if somebody sits down"
    many = [Moves({"free": -1}, {"seats": {f"c{n}": 1}}) for n in range(3)]
    assert found(Seat("h", "b1"), *many) == "waits", "full if all of them commit"
    assert found(Seat("h", "b1"), *many[:2]) == (Seated("h", "b1"),)
    assert (state.free, state.seats, state.open) == (3, {}, True), "deciding changes nothing"
    state.seats["a1"] = 7
    left = moves_of(by, state, [Left("h", "a1")])
    assert left is not None and found(Seat("h", "a1"), left) == "waits"


def test_nobody_else_touches_an_entry_that_is_held() -> None:
    """Two that set the same entry would not come out the same in another order, whatever stood there before."""

    class Names:
        names: dict[str, int] = escrow()

        @decide(creates=True)
        def count(self, command: Count) -> Counted:
            return Counted(command.hall, command.free)

        @evolve
        def counted(self, event: Counted) -> None:
            self.names["x"] = event.free

    by = AggregateType(Names, "hall")
    held = moves_of(by, by.shape.new(), [Counted("h", 1)])
    assert held is not None
    with pytest.raises(Differs):
        beside(by, by.shape.new(), Count("h", 2), CONTEXT, [held])


def test_an_evolver_that_does_more_than_move_is_no_move() -> None:
    """Clearing a dict, or a step that depends on the number, would not come out the same in another order."""

    class Odd:
        count: int = escrow()
        names: dict[str, int] = escrow()

        @decide(creates=True)
        def seat(self, command: Seat) -> Seated:
            return Seated(command.hall, command.seat)

        @evolve
        def seated(self, event: Seated) -> None:
            if event.seat == "clear":
                self.names.clear()
            elif self.count == 0:
                self.count += 1

    by = AggregateType(Odd, "hall")
    state = by.shape.new()
    assert moves_of(by, state, [Seated("h", "clear")]) is None
    assert moves_of(by, state, [Seated("h", "x")]) is None


def test_bounds_hold_for_every_command() -> None:
    """A command that would leave the bounds is rejected by name, though its decider does not look."""
    given(Hall, Seated("h", "a"), Seated("h", "b"), Seated("h", "c")).when(Seat("h", "d")).then_rejected(
        "out_of_bounds", field="free", min=0
    )


def test_the_kit_finds_an_event_that_does_not_commute() -> None:
    """The test kit fails where an event sets an escrow field that it should move."""
    with pytest.raises(AssertionError, match="free: an event sets an escrow field"):
        given(Hall).when(Count("h", 2))


@pytest.mark.parametrize(
    ("field", "why"),
    [((str, escrow()), "an int or a dict"), ((int, escrow(default=-1, min=0)), "outside the bounds"),
     ((dict[str, int], escrow(min=0)), "no default and no bounds")],
)  # fmt: skip
def test_what_cannot_be_escrow_is_refused(field: tuple[Any, Any], why: str) -> None:
    """A field of another type, a default out of bounds, a dict with bounds: each is refused when it is built."""
    with pytest.raises(Misuse, match=why):
        Service(hall).aggregate(type("Bad", (Hall,), {"__annotations__": {"worse": field[0]}, "worse": field[1]}))


async def holding(virtual: VirtualSystem, *trades: Trade) -> list[asyncio.Task[Any]]:
    """These trades, begun and held: they wait for the shop, which is cut off."""
    virtual.transport.cut.add("shop")
    tasks = [asyncio.ensure_future(virtual.client.send(one, key=one.deal, wait_seconds=500)) for one in trades]
    rows = virtual.stores["depot"]._rows
    await until(lambda: sum(kind == "stage" for kind, _ in rows) == sum(len(one.takes) for one in trades))
    return tasks


def stock(virtual: VirtualSystem) -> int:
    """What the depot's log says is left of the tea."""
    bodies = [msgspec.json.decode(one.data) for one in events(virtual, "depot")]
    return 100 - sum(body["quantity"] for body in bodies if "quantity" in body)


def taking(deal: str, quantity: int) -> Trade:
    return Trade(deal, (), (), ("late",), takes=(("tea", quantity),))


@virtual_time
async def test_moves_go_on_side_by_side() -> None:
    """G6: while transactions hold moves of a counter, others and plain commands move it too; what depends on how they
    end waits for them; nobody sees what is not committed; after it all is as in any order."""
    async with VirtualSystem(system("bank", "shop", "depot", "desk")) as virtual:
        client = virtual.client
        tasks = await holding(virtual, taking("d1", 30), taking("d2", 40))
        assert await client.run(Take("tea", "plain", 20)) == Took("tea", "plain", 20)
        assert stock(virtual) == 80, "what is held shows nowhere"
        waits = asyncio.ensure_future(client.send(Take("tea", "one too many", 20)))
        later = asyncio.ensure_future(client.run(Take("tea", "behind", 1)))
        await asyncio.sleep(2)
        assert not waits.done(), "10 or 80 are left: nobody can say yet"
        assert not later.done(), "once one waits, later ones wait behind it"
        no = asyncio.ensure_future(client.send(Take("tea", "never", 99)))
        await asyncio.sleep(0.5)
        assert not no.done()
        virtual.transport.cut.clear()
        assert [(await one).answer for one in tasks] == [Traded("d1"), Traded("d2")]
        answers = [(await waits).answer, await later, (await no).answer]
        assert isinstance(answers[0], Rejection) and answers[0].facts == {"on_hand": 10}
        assert answers[1] == Took("tea", "behind", 1) and isinstance(answers[2], Rejection)
        await virtual.settle()
        assert stock(virtual) == 9


@virtual_time
async def test_what_is_no_move_takes_the_lock() -> None:
    """G6: a command that changes more than escrow fields waits for every mover; movers wait while it is held."""
    async with VirtualSystem(system("bank", "shop", "depot", "desk")) as virtual:
        client = virtual.client
        (first,) = await holding(virtual, taking("d1", 30))
        rename = asyncio.ensure_future(client.run(Rename("tea", "green")))
        await asyncio.sleep(1)
        assert not rename.done()
        virtual.transport.cut.clear()
        assert (await first).answer == Traded("d1") and await rename == Renamed("tea", "green")
        virtual.transport.cut.add("shop")
        second = asyncio.ensure_future(client.send(Trade("d2", (), (), ("late",), renames=("tea",))))
        await until(lambda: bool(virtual.nodes["depot"].dispatch.stages.held))
        plain = asyncio.ensure_future(client.run(Take("tea", "plain", 1)))
        await asyncio.sleep(1)
        assert not plain.done()
        virtual.transport.cut.clear()
        assert (await second).answer == Traded("d2") and await plain == Took("tea", "plain", 1)


@virtual_time
async def test_once_one_waits_later_ones_wait_behind_it() -> None:
    """G6: while a command that is no move waits, no move passes it: neither a staged one nor one from the edge, whether
    it came from the edge itself or from another service."""
    async with VirtualSystem(system(*ALL)) as virtual:
        client = virtual.client
        rows = virtual.stores["depot"]._rows
        for number, far in enumerate((False, True)):
            (first,) = await holding(virtual, taking(f"d{number}", 1))
            virtual.transport.cut.discard("depot")
            order = Order(f"o{number}", Trade(f"t{number}", ()), rename="tea")
            rename = asyncio.ensure_future(client.run(order if far else Rename("tea", "green")))
            depot = virtual.nodes["depot"]
            await until(lambda depot=depot: bool(depot.turns.waiters() or depot.waiting.slots()))
            later = asyncio.ensure_future(client.send(taking(f"later{number}", 1), wait_seconds=60))
            plain = asyncio.ensure_future(client.run(Take("tea", f"plain{number}", 1)))
            await asyncio.sleep(1)
            assert not plain.done() and not rename.done()
            assert sum(kind == "stage" for kind, _ in rows) == 1, "nothing more is held"
            virtual.transport.cut.clear()
            await asyncio.gather(first, rename, plain)
            assert (await later).answer == Traded(f"later{number}")
            await virtual.settle()
        kinds = [one.type.split(".")[1] for one in events(virtual, "depot")]
        assert kinds == ["took", "renamed", "took", "took"] * 2


@virtual_time
async def test_held_moves_are_known_after_a_restart() -> None:
    """G6: a depot that is killed while it holds moves decides the next command by them as before."""
    async with VirtualSystem(system("bank", "shop", "depot", "desk")) as virtual:
        tasks = await holding(virtual, taking("d1", 30), taking("d2", 40))
        await virtual.crash("depot")
        await virtual.start("depot")
        assert (await virtual.client.send(Take("tea", "much", 101))).answer.code == "out_of_stock"
        assert await virtual.client.run(Take("tea", "plain", 30)) == Took("tea", "plain", 30)
        waits = asyncio.ensure_future(virtual.client.send(Take("tea", "one too many", 1)))
        await asyncio.sleep(1)
        assert not waits.done()
        virtual.transport.cut.clear()
        assert [(await one).answer for one in tasks] == [Traded("d1"), Traded("d2")]
        assert isinstance((await waits).answer, Rejection)
        await virtual.settle()
        assert stock(virtual) == 0


@virtual_time
async def test_what_is_confirmed_is_in_snapshots() -> None:
    """G2: a stream that only staged transactions write is folded from a snapshot after as many events as any other."""
    async with VirtualSystem(system("bank", "shop", "depot", "desk"), snapshot_every=3) as virtual:
        for number in range(4):
            await virtual.client.run(Trade(f"d{number}", (), (), takes=(("pot", 1),)))
        await virtual.settle()
        assert ("snapshot", "Stock/pot") in virtual.stores["depot"]._rows
        await virtual.restart("depot")
        assert (await virtual.client.send(Take("pot", "much", 97))).answer.facts == {"on_hand": 96}


def hot(seed: int, count: int) -> tuple[int, int, int]:
    """Many trades on one counter, plain takes and renames between them, random crashes: (yes, no, crashes)."""

    async def main() -> tuple[int, int, int]:
        async with VirtualSystem(system("bank", "shop", "depot", "desk"), loss=0.05, snapshot_every=3) as virtual:
            rng = random.Random(seed)

            async def one(number: int) -> Any:
                await asyncio.sleep(rng.random() * 4)
                kind, quantity = rng.random(), rng.choice((-3, 1, 2, 5, 9))
                command: Any = Trade(
                    f"d{number}", (), (), ("tea",) if kind < 0.4 else (), rng.choice(("", "no")),
                    takes=(("tea", quantity), ("tea", 1)) if kind < 0.2 else (("tea", quantity),),
                    renames=("tea",) if kind > 0.9 else (),
                )  # fmt: skip
                if 0.7 < kind < 0.8:
                    command = Take("tea", f"p{number}", quantity)
                elif 0.8 <= kind < 0.9:
                    command = Rename("tea", f"n{number}")
                return (await ask(virtual, command, f"k{number}", seconds=900)).answer

            async def crashes() -> None:
                for _ in range(10):
                    await asyncio.sleep(rng.random())
                    store = virtual.stores[rng.choice(("depot", "desk", "shop"))]
                    (store.crash_before if rng.random() < 0.5 else store.crash_after).add(store.commits + 1)

            answers, _ = await asyncio.gather(asyncio.gather(*map(one, range(count))), crashes())
            await virtual.settle()
            bodies = [msgspec.json.decode(record.data) for record in events(virtual, "depot")]
            left = 100
            for body in bodies:
                left -= body.get("quantity", 0)
                assert left >= 0, "what is committed is within the bounds at every position"
            deals = {body["deal"] for body in bodies if "deal" in body}
            said = {answer.deal for answer in answers if isinstance(answer, Traded | Took)}
            assert deals <= said and all(not node.dispatch.stages.held for node in virtual.nodes.values())
            no = sum(isinstance(answer, Rejection) for answer in answers)
            return len(answers) - no, no, len(virtual.crashes)

    return run_virtual(main, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_hot_counter_survives_random_crashes(seed: int) -> None:
    """G6: whatever crashes, no position of the log is out of bounds, and what is there is what was answered yes."""
    yes, no, crashes = hot(seed, 40)
    assert yes > 10 and no > 2 and crashes > 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 160))
def test_soak_a_hot_counter_survives_random_crashes(seed: int) -> None:
    """G6: the same, with many seeds."""
    yes, no, crashes = hot(seed, 60)
    assert yes > 10 and no > 2 and crashes
