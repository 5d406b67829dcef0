"""The system that was recorded: a shop with everything in it, in one file that imports only what is promised.

`counter` sells (an ordinary saga, a staged one, a view), `stall` keeps goods, `till` charges by an effect and keeps
notes in a table of its own, `bank` moves money. What is recorded of it lies beside this file: nothing here may change,
or the recording is of another system. `make(mended=False)` fails as it failed when it was recorded.
"""

from holdfast import (
    Attempt,
    Command,
    Contract,
    Event,
    Rejected,
    Retry,
    Sensitive,
    Service,
    System,
    Transaction,
    answer,
    decide,
    evolve,
    pivot,
    step,
    undo,
)

stall, till, bank, counter = Contract("stall"), Contract("till"), Contract("bank"), Contract("counter")
YEARS = 10**9
"""Seconds until what waits is tried by itself: it stands where it stood, whenever it is read."""
NOTES = "CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"


@stall.event
class Restocked(Event):
    sku: str
    quantity: int


@stall.event
class Taken(Event):
    sku: str
    order: str
    quantity: int


@stall.event
class PutBack(Event):
    sku: str
    order: str


@stall.event
class Sent(Event):
    order: str


@stall.command(key="sku")
class Restock(Command[Restocked]):
    sku: str
    quantity: int


@stall.command(key="sku")
class Take(Command[Taken]):
    sku: str
    order: str
    quantity: int


@stall.command(key="sku")
class Return(Command[PutBack]):
    sku: str
    order: str


@stall.command(key="order")
class Send(Command[Sent]):
    order: str


@till.event
class Charged(Event):
    order: str
    cents: int


@till.event
class Refunded(Event):
    order: str


@till.event
class Noted(Event):
    id: str


@till.command(key="order")
class Charge(Command[Charged]):
    order: str
    cents: int
    card: Sensitive[str]


@till.command(key="order")
class Refund(Command[Refunded]):
    order: str


@till.command(key="id")
class Note(Command[Noted]):
    id: str
    text: str


@bank.event
class Moved(Event):
    account: str
    amount: int
    deal: str


@bank.command(key="account")
class Move(Command[Moved]):
    account: str
    amount: int
    deal: str


@counter.event
class Booked(Event):
    order: str
    cents: int


@counter.event
class Bought(Event):
    order: str
    cents: int


@counter.event
class Swapped(Event):
    deal: str


@counter.event
class Saved(Event):
    deal: str


@counter.command(key="order")
class Book(Command[Booked]):
    order: str
    cents: int


@counter.command(key="order")
class Buy(Command[Bought]):
    """Take, charge, book, send."""

    order: str
    sku: str
    quantity: int = 1
    card: Sensitive[str] = "4111"


@counter.command(key="deal")
class Swap(Command[Swapped]):
    """Move money from one account to another; staged."""

    deal: str
    giver: str
    taker: str
    amount: int


@counter.command(key="deal")
class Save(Command[Saved]):
    """Move money into an account."""

    deal: str
    account: str


def make(*, mended: bool) -> dict[str, Service]:
    """The four services, anew."""
    return {
        "counter": make_counter(),
        "stall": make_stall(mended=mended),
        "till": make_till(mended=mended),
        "bank": make_bank(),
    }


def system(*, mended: bool) -> System:
    """The four services as a system."""
    return System(make(mended=mended).values(), name="bazaar")


def make_stall(*, mended: bool) -> Service:
    """Goods. Bricks and glass cannot be taken, planks not be put back, order o5 not be sent: until it is mended."""
    service = Service(stall, owner="team-stall", retry=Retry(attempts_max=1))
    service.retry(Return, Retry(first_seconds=YEARS, last_seconds=YEARS))

    @service.aggregate
    class Shelf:
        on_hand: int = 0
        held: dict[str, int] = {}

        @decide(creates=True)
        def restock(self, command: Restock) -> Restocked:
            if command.quantity < 1:
                raise Rejected("not_positive", "a restock adds at least one unit")
            return Restocked(command.sku, command.quantity)

        @decide
        def take(self, command: Take) -> Taken:
            if command.sku in ("brick", "glass") and not mended:
                raise KeyError(f"no shelf for {command.sku}")
            if command.quantity > self.on_hand:
                raise Rejected("out_of_stock", "not that many on hand", available=self.on_hand)
            return Taken(command.sku, command.order, command.quantity)

        @decide
        def put_back(self, command: Return) -> PutBack:
            if command.sku == "plank" and not mended:
                raise KeyError("planks are too long")
            return PutBack(command.sku, command.order)

        @evolve
        def restocked(self, event: Restocked) -> None:
            self.on_hand += event.quantity

        @evolve
        def taken(self, event: Taken) -> None:
            self.on_hand -= event.quantity
            self.held[event.order] = event.quantity

        @evolve
        def was_put_back(self, event: PutBack) -> None:
            self.on_hand += self.held.pop(event.order)

    @service.aggregate
    class Parcel:
        sent: bool = False

        @decide(creates=True)
        def send(self, command: Send) -> Sent:
            if command.order == "o5" and not mended:
                raise Rejected("no_van", "the van is away")
            return Sent(command.order)

        @evolve
        def was_sent(self, event: Sent) -> None:
            self.sent = True

    return service


def make_till(*, mended: bool) -> Service:
    """Charges, of which the one of o6 is lost on its way and those of o2 and o7 are declined; and notes."""
    service = Service(till, owner="team-till", retry=Retry(attempts_max=1))

    @service.effect
    async def charge(command: Charge, attempt: Attempt) -> Charged:
        if command.order == "o6" and not mended:
            raise ConnectionError("the line broke")
        if command.order in ("o2", "o7"):
            raise Rejected("declined", "the card was declined")
        return Charged(command.order, command.cents)

    @service.effect(idempotent=True)
    async def refund(command: Refund, attempt: Attempt) -> Refunded:
        return Refunded(command.order)

    @service.handle
    async def note(command: Note, tx: Transaction) -> Noted:
        tx.connection.execute(NOTES)
        tx.connection.execute("INSERT INTO notes VALUES (?, ?)", (command.id, command.text))
        return Noted(command.id)

    @service.reaction
    def on_booked(event: Booked) -> Note:
        return Note(event.order, f"{event.cents} cents")

    return service


def make_bank() -> Service:
    """Accounts that never go below zero."""
    service = Service(bank, owner="team-bank")

    @service.aggregate
    class Account:
        balance: int = 0

        @decide(creates=True)
        def move(self, command: Move) -> Moved:
            if self.balance + command.amount < 0:
                raise Rejected("poor", "not that much there", balance=self.balance)
            return Moved(command.account, command.amount, command.deal)

        @evolve
        def moved(self, event: Moved) -> None:
            self.balance += event.amount

    return service


def make_counter() -> Service:
    """Sales, swaps, savings and a page for each order."""
    service = Service(counter, owner="team-counter")

    @service.aggregate
    class Order:
        cents: int = 0

        @decide(creates=True)
        def book(self, command: Book) -> Booked:
            return Booked(command.order, command.cents)

        @evolve
        def booked(self, event: Booked) -> None:
            self.cents = event.cents

    @service.saga
    class Sale:
        buy: Buy

        @step
        def take(self) -> Take:
            return Take(self.buy.sku, self.buy.order, self.buy.quantity)

        @undo(take)
        def put_back(self, taken: Taken) -> Return:
            return Return(taken.sku, taken.order)

        @step(deadline_seconds=YEARS)
        def charge(self, take: Taken) -> Charge:
            return Charge(self.buy.order, take.quantity * 100, self.buy.card)

        @undo(charge)
        def refund(self, charged: Charged) -> Refund:
            return Refund(charged.order)

        @pivot
        def book(self, charge: Charged) -> Book:
            return Book(self.buy.order, charge.cents)

        @step
        def send(self) -> Send:
            return Send(self.buy.order)

        @answer
        def bought(self, book: Booked) -> Bought:
            return Bought(book.order, book.cents)

    @service.saga(staged=True)
    class Swapping:
        swap: Swap

        @step
        def move(self) -> list[Move]:
            swap = self.swap
            return [Move(swap.giver, -swap.amount, swap.deal), Move(swap.taker, swap.amount, swap.deal)]

        @answer
        def swapped(self) -> Swapped:
            return Swapped(self.swap.deal)

    @service.saga
    class Saving:
        save: Save

        @step
        def move(self) -> Move:
            return Move(self.save.account, 1, self.save.deal)

        @undo(move)
        def move_back(self, moved: Moved) -> Move:
            return Move(moved.account, -moved.amount, moved.deal)

        @answer
        def saved(self) -> Saved:
            return Saved(self.save.deal)

    @service.view
    class Page:
        cents: int = 0
        sent: bool = False
        seen: tuple[str, ...] = ()

        @evolve(key=lambda event: event.order)
        def charged(self, event: Charged) -> None:
            self.seen = (*self.seen, "charged")

        @evolve(key=lambda event: event.order)
        def booked(self, event: Booked) -> None:
            self.cents = event.cents
            self.seen = (*self.seen, "booked")

        @evolve(key=lambda event: event.order)
        def was_sent(self, event: Sent) -> None:
            self.sent = True
            self.seen = (*self.seen, "sent")

    return service
