"""Systems, scenarios and invariants that the fault explorer hunts in: of sagas, staged commit, effects and feeds.

Each is a function that makes a system with its invariants, and a scenario of the same name with `in_` before it. What
the scenarios assert is judged by code that shares nothing with the runtime (`deals.wrong`, `payments.judge`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cards.contracts import Bought, Buy
from cards.services import order_service as office_service
from holdfast import Command, Contract, Event, Rejection, Service, System, decide, evolve, step
from holdfast.core.audit.happened import Happened
from holdfast.testing import VirtualSystem
from shop.contracts import (
    Cancelled,
    Charged,
    CheckedOut,
    Checkout,
    Item,
    Placed,
    Refunded,
    Released,
    Reserved,
    Restock,
    Restocked,
    Shipped,
)
from shop.services import shop as shop_as_shown
from support.systems import deals, sales, trades
from support.systems.deals import Deal, Fill
from support.systems.payments import Provider, judge, wallet_of

Says = Iterator[str]


def all_or_undone(tx: Happened) -> Says:
    """A checkout that is bought is charged and shipped once; one that is not leaves nothing taken."""
    if not tx.of(Placed):
        return
    charged, refunded = len(tx.of(Charged)), len(tx.of(Refunded))
    kept = Counter[str]()
    for event in tx.of(Reserved, Released):
        kept[event.sku] += event.quantity if isinstance(event, Reserved) else -event.quantity
    bought = isinstance(tx.outcome, CheckedOut)
    if (charged - refunded, refunded) != (bought, refunded if not bought else 0) or charged > 1:
        yield f"charged {charged} times and refunded {refunded}, bought: {bought}"
    if len(tx.of(Shipped)) != bought or len(tx.of(Cancelled)) == bought:
        yield f"{len(tx.of(Shipped))} parcels, {len(tx.of(Cancelled))} times off, bought: {bought}"
    wanted = {item.sku: item.quantity for item in tx.of(Placed)[0].items} if bought else {}
    if dict(+kept) != wanted or -kept:
        yield f"keeps {dict(kept)}, not {wanted}"


class MoneyAddsUp:
    """What was charged and not given back is what was bought."""

    taken: int = 0
    bought: int = 0

    def settled(self, tx: Happened) -> None:
        self.taken += sum(event.amount_cents for event in tx.of(Charged))
        self.taken -= sum(event.amount_cents for event in tx.of(Refunded))
        self.bought += sum(event.amount_cents for event in tx.of(CheckedOut))

    def holds(self) -> Says:
        if self.taken != self.bought:
            yield f"{self.taken} cents taken, {self.bought} bought"


def skus(tx: Happened) -> list[str]:
    return [event.sku for event in tx.of(Restocked, Reserved, Released)]


class NothingOversold:
    """No more of a product is held than came in, also counting what is under way."""

    sku: str = ""
    left: int = 0

    def settled(self, tx: Happened, sku: str) -> None:
        self.sku = sku
        self.left += self._moved(tx, sku)

    def holds(self, in_flight: list[Happened]) -> Says:
        left = self.left + sum(self._moved(tx, self.sku) for tx in in_flight)
        if left < 0:
            yield f"{-left} more went than came in"

    @staticmethod
    def _moved(tx: Happened, sku: str) -> int:
        found = [event for event in tx.of(Restocked, Reserved, Released) if event.sku == sku]
        return sum(-event.quantity if isinstance(event, Reserved) else event.quantity for event in found)


def shop() -> System:
    """The shop of examples/, with what must be true of it."""
    made = System(shop_as_shown.services.values(), name="shop")
    made.invariant(all_or_undone)
    made.invariant(MoneyAddsUp)
    made.invariant(key=skus)(NothingOversold)
    return made


async def in_shop(system: VirtualSystem) -> None:
    """Two customers want the one cup there is, at once."""
    await asyncio.gather(system.ask(Restock("tea", 5)), system.ask(Restock("cup", 1)))
    both = (Item("tea", 1, 300), Item("cup", 1, 500))
    asked = (Checkout("o1", "ann", both), Checkout("o2", "bob", both))
    told = await asyncio.gather(*(system.ask(one, one.order_id) for one in asked))
    no = [outcome.answer for outcome in told if isinstance(outcome.answer, Rejection)]
    assert {one.code for one in no} <= {"out_of_stock", "deadline"}, told


DEALS = {
    "fine": Deal("fine", gifts=("c", "e")),
    "unpaid": Deal("unpaid", pays=False, return_refusals=2),
    "closed": Deal("closed", books=False),
    "told": Deal("told", tell_refusals=2),
}


def ring() -> System:
    """Desk, cells and till."""
    return deals.ring()


async def in_ring(system: VirtualSystem) -> None:
    """Four deals at once: one goes well, two are undone, one is pressed forward after its pivot."""
    for name in ("a", "b", "c", "e"):
        await system.ask(Fill(name, 0 if name == "e" else 3), f"fill {name}")
    told = await asyncio.gather(*(system.ask(deal, name) for name, deal in DEALS.items()))
    await system.settle(within_seconds=2700)
    wrong = deals.wrong(system, DEALS, clocks_agree=False)
    assert not wrong, wrong
    assert [getattr(one.answer, "code", "") for one in told[1:3]] in (
        ["declined", "closed"], ["deadline", "closed"], ["declined", "deadline"], ["deadline", "deadline"],
    ), told  # fmt: skip


def trading() -> System:
    """Bank, shop, depot, desk and office: staged trades, and an ordinary saga of which one is a step."""
    made = trades.system(*trades.ALL)
    made.invariant(whole_trade)
    made.invariant(key=lambda tx: [event.account for event in tx.of(trades.Moved)])(NeverBelowZero)
    return made


def whole_trade(tx: Happened) -> Says:
    """A trade is there with all its parts, or nothing of it is."""
    moved = Counter((event.deal, event.account) for event in tx.of(trades.Moved) if event.account in ("a", "b"))
    listed, took = Counter(e.deal for e in tx.of(trades.Listed)), Counter(e.deal for e in tx.of(trades.Took))
    for deal in {event.deal for event in tx.of(trades.Traded)}:
        if deal.endswith("-back"):
            continue
        parts = (moved[deal, "a"], moved[deal, "b"], listed[deal], took[deal])
        if parts not in ((1, 1, 1, 1), (2, 2, 1, 1)):
            yield f"{deal}: moved, listed and took {parts}"
    traded = {event.deal for event in tx.of(trades.Traded)}
    if lost := {deal for deal, _ in moved if deal} - traded - {deal.removesuffix("-back") for deal in traded}:
        yield f"moved for {lost}, which were never traded"


class NeverBelowZero:
    """No account is overdrawn."""

    balance: int = 0

    def settled(self, tx: Happened, account: str) -> None:
        self.balance += sum(event.amount for event in tx.of(trades.Moved) if event.account == account)

    def holds(self) -> Says:
        if self.balance < 0:
            yield f"it is overdrawn by {-self.balance}"


async def in_trading(system: VirtualSystem) -> None:
    """Trades that want the same streams in opposite order, one that is refused, one in a saga that is undone."""
    await asyncio.gather(system.ask(trades.Move("a", 100)), system.ask(trades.Move("b", 100)))

    def trade(deal: str, amount: int, how: str = "") -> trades.Trade:
        return trades.Trade(deal, (("a", -amount), ("b", amount)), (), ("tea",), how, (("leaf", 2),))

    asked = (trade("d1", 30), trade("d2", -20), trade("d3", 10, "no"))
    order = trades.Order("o1", trade("d4", 5), after=-1)
    one, two, three, four, _ = await asyncio.gather(
        *(system.ask(command) for command in asked), system.ask(order), system.ask(trades.Move("a", 1))
    )
    await system.settle(within_seconds=2700)
    assert isinstance(three.answer, Rejection) and isinstance(four.answer, Rejection), (three, four)
    found = trades.balances(system)
    moved = {"a": -30, "b": 30} if isinstance(one.answer, trades.Traded) else {}
    back = {"a": 20, "b": -20} if isinstance(two.answer, trades.Traded) else {}
    wanted = {name: 100 + moved.get(name, 0) + back.get(name, 0) + (name == "a") for name in ("a", "b")}
    assert {name: found[name] for name in ("a", "b")} == wanted and not found["deposit"], (found, one, two)
    left = [hold for node in system.nodes.values() for hold in node.dispatch.stages.items()]
    assert not left, left


provider = Provider()
"""Of the run that goes on now: each has its own."""


def cards() -> System:
    """The ticket office; its wallet charges at a provider that knows no keys."""
    global provider
    provider = Provider()
    return System([office_service, wallet_of(provider)], name="cards")


async def in_cards(system: VirtualSystem) -> None:
    """Two seats are bought, one with a card that is declined."""
    provider.log = lambda: system.log("wallet")
    provider.declines.add("o2")
    buys = [Buy(order, f"seat {order}", 700, "4111") for order in ("o1", "o2")]
    told = await asyncio.gather(*(system.ask(one, one.order_id) for one in buys))
    await system.settle(within_seconds=2700)
    judge(system, provider, {"o1": told[0].answer, "o2": told[1].answer})
    assert not isinstance(told[1].answer, Bought)


def calls() -> System:
    """The same, on a bad day of the provider: a call is lost on its way, another on its way back, one takes longer than
    anybody waits, one longer than the sale does, and one is not made."""
    made = cards()
    provider.faults |= {"o1": ["lost after"], "o2": ["lost before"], "o3": ["2.5"], "o4": ["9"], "o5": ["not done"]}
    return made


async def in_calls(system: VirtualSystem) -> None:
    """Five seats are bought: each card is charged once or not at all, and what is charged in vain is given back."""
    provider.log = lambda: system.log("wallet")
    orders = [f"o{number}" for number in range(1, 6)]
    told = await asyncio.gather(*(system.ask(Buy(order, f"seat {order}", 700, "4111"), order) for order in orders))
    await system.settle(within_seconds=2700)
    judge(system, provider, {order: one.answer for order, one in zip(orders, told, strict=True)})


def selling() -> System:
    """Depot, till, ledger and desk; a sale waits five seconds for its payment."""
    made = sales.system()
    made.invariant(whole_sale)
    return made


def whole_sale(tx: Happened) -> Says:
    """What is sold was taken, paid, booked and posted once; else it is all given back."""
    count = Counter(
        type(event).__name__
        for event in tx.of(sales.Taken, sales.Returned, sales.Paid, sales.Refunded, sales.Booked, sales.Posted)
    )
    if sales.Sold in tx:
        if dict(count) != {"Taken": 2, "Paid": 1, "Booked": 1, "Posted": 1}:
            yield f"sold with {dict(count)}"
    elif count["Taken"] != count["Returned"] or count["Paid"] != count["Refunded"] or count["Booked"]:
        yield f"not sold, with {dict(count)}"


async def in_selling(system: VirtualSystem) -> None:
    """Two sales of the same goods."""
    await asyncio.gather(*(system.ask(sales.Sell(f"o{n}", ("tea", "mug"), f"post{n}"), f"o{n}") for n in (1, 2)))


mill, press, store = Contract("mill"), Contract("press"), Contract("store")


@mill.event
class Ground(Event):
    bag: str


@mill.command(key="bag")
class Grind(Command[Ground]):
    bag: str


@press.event
class Pressed(Event):
    bag: str


@press.command(key="bag")
class Press(Command[Pressed]):
    bag: str


@store.event
class Stored(Event):
    bag: str


@store.command(key="bag")
class Store(Command[Stored]):
    bag: str


def feeds() -> System:
    """A mill; a press that reacts to it; a store whose saga begins with what was pressed, and a view of all three."""
    mills, presses, stores = Service(mill), Service(press), Service(store)

    @mills.aggregate
    class Sack:
        @decide(creates=True)
        def grind(self, command: Grind) -> Ground:
            return Ground(command.bag)

    @presses.aggregate
    class Cake:
        @decide(creates=True)
        def press(self, command: Press) -> Pressed:
            return Pressed(command.bag)

    @presses.reaction
    def on_ground(event: Ground) -> Press:
        return Press(event.bag)

    @stores.aggregate
    class Shelf:
        @decide(creates=True)
        def store(self, command: Store) -> Stored:
            return Stored(command.bag)

    @stores.saga
    class Storing:
        pressed: Pressed

        @step
        def keep(self) -> Store:
            return Store(self.pressed.bag)

    @stores.view
    class Bag:
        seen: tuple[str, ...] = ()

        @evolve(key=lambda event: event.bag)
        def ground(self, event: Ground) -> None:
            self.seen = (*self.seen, "ground")

        @evolve(key=lambda event: event.bag)
        def pressed(self, event: Pressed) -> None:
            self.seen = (*self.seen, "pressed")

        @evolve(key=lambda event: event.bag)
        def kept(self, event: Stored) -> None:
            self.seen = (*self.seen, "stored")

    made = System([mills, presses, stores], name="feeds")
    made.invariant(stored_once)
    return made


def stored_once(tx: Happened) -> Says:
    """What was ground is pressed once and stored once, in one transaction."""
    found = [[event.bag for event in tx.of(kind)] for kind in (Ground, Pressed, Stored)]
    if not found[0] == found[1] == found[2] or len(found[0]) != 1:
        yield f"ground, pressed and stored: {found}"


async def in_feeds(system: VirtualSystem) -> None:
    """Three bags are ground; the view has seen each thing once."""
    await asyncio.gather(*(system.ask(Grind(f"b{n}"), f"b{n}") for n in range(3)))
    await system.settle(within_seconds=2700)
    for n in range(3):
        row: Any = (await system.client.query("store", "Bag", f"b{n}")).row
        assert row is not None and sorted(row["seen"]) == ["ground", "pressed", "stored"], row


DAYS_SEEDS = [int(time.time()) // 86_400 * 4 + number for number in range(4)]
"""Of the long hunts: every day they go elsewhere. A find is printed with its seed, and kept as a test."""
HUNTS = {
    "shop": (shop, in_shop),
    "ring": (ring, in_ring),
    "trading": (trading, in_trading),
    "cards": (cards, in_cards),
    "calls": (calls, in_calls),
    "selling": (selling, in_selling),
    "feeds": (feeds, in_feeds),
}
