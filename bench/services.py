"""What is measured: a saga of three steps over three services, each a command with one event."""

from holdfast import (
    Command,
    Contract,
    Event,
    Rejected,
    Service,
    System,
    answer,
    decide,
    evolve,
    step,
    undo,
)

first, second, third, trip = Contract("first"), Contract("second"), Contract("third"), Contract("trip")


@first.event
class FirstDone(Event):
    id: str


@first.event
class FirstUndone(Event):
    id: str


@first.command(key="id")
class First(Command[FirstDone]):
    id: str


@first.command(key="id")
class UndoFirst(Command[FirstUndone]):
    id: str


@second.event
class SecondDone(Event):
    id: str


@second.event
class SecondUndone(Event):
    id: str


@second.command(key="id")
class Second(Command[SecondDone]):
    id: str


@second.command(key="id")
class UndoSecond(Command[SecondUndone]):
    id: str


@third.event
class ThirdDone(Event):
    id: str


@third.command(key="id")
class Third(Command[ThirdDone]):
    id: str
    fails: bool = False


@trip.event
class Arrived(Event):
    id: str


@trip.command(key="id")
class Travel(Command[Arrived]):
    """Three steps; where `fails` is set the third says no and the other two are undone."""

    id: str
    fails: bool = False


first_service, second_service = Service(first), Service(second)
third_service, trip_service = Service(third), Service(trip)


@first_service.aggregate
class FirstPlace:
    held: int = 0

    @decide(creates=True)
    def hold(self, command: First) -> FirstDone:
        return FirstDone(command.id)

    @decide
    def let_go(self, command: UndoFirst) -> FirstUndone:
        return FirstUndone(command.id)

    @evolve
    def done(self, event: FirstDone) -> None:
        self.held += 1

    @evolve
    def undone(self, event: FirstUndone) -> None:
        self.held -= 1


@second_service.aggregate
class SecondPlace:
    held: int = 0

    @decide(creates=True)
    def hold(self, command: Second) -> SecondDone:
        return SecondDone(command.id)

    @decide
    def let_go(self, command: UndoSecond) -> SecondUndone:
        return SecondUndone(command.id)

    @evolve
    def done(self, event: SecondDone) -> None:
        self.held += 1

    @evolve
    def undone(self, event: SecondUndone) -> None:
        self.held -= 1


@third_service.aggregate
class ThirdPlace:
    held: int = 0

    @decide(creates=True)
    def hold(self, command: Third) -> ThirdDone:
        if command.fails:
            raise Rejected("full", "no place left")
        return ThirdDone(command.id)

    @evolve
    def done(self, event: ThirdDone) -> None:
        self.held += 1


@trip_service.saga
class Trip:
    travel: Travel

    @step
    def one(self) -> First:
        return First(self.travel.id)

    @undo(one)
    def undo_one(self, done: FirstDone) -> UndoFirst:
        return UndoFirst(done.id)

    @step
    def two(self, one: FirstDone) -> Second:
        return Second(one.id)

    @undo(two)
    def undo_two(self, done: SecondDone) -> UndoSecond:
        return UndoSecond(done.id)

    @step
    def three(self, two: SecondDone) -> Third:
        return Third(two.id, self.travel.fails)

    @answer
    def arrived(self) -> Arrived:
        return Arrived(self.travel.id)


@trip_service.view
class Arrivals:
    seen: int = 0

    @evolve(key=lambda event: event.id)
    def done(self, event: FirstDone) -> None:
        self.seen += 1


system = System([trip_service, first_service, second_service, third_service], name="bench")
