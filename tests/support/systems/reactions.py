"""Three services that react to each other: a post is noted, each note is stamped, each stamp begins a walk, a saga that
rings twice. Every hop is a reaction or a saga begun by an event, so that nobody waits for the end; some notes are only
taken when they are tried again."""

from collections import Counter

from holdfast import Command, Contract, Event, Rejected, Retry, Service, System, answer, decide, evolve, step, undo

mill, notary, porter = Contract("mill"), Contract("notary"), Contract("porter")
RETRY = Retry(attempts_max=50, first_seconds=0.2, last_seconds=1)


@mill.event
class Posted(Event):
    id: str
    notes: int


@mill.event
class Rung(Event):
    id: str
    bell: str


@mill.event
class Hushed(Event):
    id: str


@mill.command(key="id")
class Post(Command[Posted]):
    id: str
    notes: int = 1


@mill.command(key="id")
class Ring(Command[Rung]):
    id: str
    bell: str


@mill.command(key="id")
class Hush(Command[Hushed]):
    id: str


@notary.event
class Noted(Event):
    id: str


@notary.event
class Stamped(Event):
    id: str


@notary.command(key="id")
class Note(Command[Noted]):
    id: str


@notary.command(key="id")
class Stamp(Command[Stamped]):
    id: str


@porter.event
class Walked(Event):
    id: str


def chained(*, notes: bool = True) -> System:
    """The three services, anew. `notes`: posts are noted."""
    mills, notaries, porters = (Service(one, retry=RETRY) for one in (mill, notary, porter))
    failures = Counter[str]()

    @mills.aggregate
    class Place:
        rung: int = 0

        @decide(creates=True)
        def post(self, command: Post) -> Posted:
            return Posted(command.id, command.notes)

        @decide(creates=True)
        def ring(self, command: Ring) -> Rung:
            if command.bell == "second" and command.id.endswith("0"):
                raise Rejected("cracked")
            return Rung(command.id, command.bell)

        @decide
        def hush(self, command: Hush) -> Hushed:
            return Hushed(command.id)

        @evolve
        def did_post(self, event: Posted) -> None:
            self.rung = 0

        @evolve
        def did_ring(self, event: Rung) -> None:
            self.rung += 1

        @evolve
        def did_hush(self, event: Hushed) -> None:
            self.rung -= 1

    @notaries.aggregate
    class Entry:
        @decide(creates=True)
        def note(self, command: Note) -> Noted:
            failures[command.id] += 1
            if command.id.endswith(("1", "2")) and failures[command.id] < 4:
                raise RuntimeError("not yet")
            return Noted(command.id)

        @decide
        def stamp(self, command: Stamp) -> Stamped:
            return Stamped(command.id)

        @evolve
        def noted(self, event: Noted) -> None: ...

        @evolve
        def stamped(self, event: Stamped) -> None: ...

    def on_posted(event: Posted) -> list[Note]:
        return [Note(f"{event.id}.{number}") for number in range(event.notes)]

    if notes:
        notaries.reaction(on_posted)

    @notaries.reaction
    def on_noted(event: Noted) -> Stamp:
        return Stamp(event.id)

    @porters.reaction
    def hears(event: Noted) -> list[Ring]:
        return [Ring(event.id, "door")] if event.id.endswith("1") else []

    @porters.saga
    class Walk:
        stamped: Stamped

        @step
        def first(self) -> Ring:
            return Ring(self.stamped.id, "first")

        @undo(first)
        def hush(self, rung: Rung) -> Hush:
            return Hush(rung.id)

        @step
        def second(self) -> Ring:
            return Ring(self.stamped.id, "second")

        @answer
        def walked(self) -> Walked:
            return Walked(self.stamped.id)

    return System([mills, notaries, porters], name="chained")
