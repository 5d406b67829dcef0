"""What soaks do: the shop's checkouts, some of which must be undone, and trades that are staged over three services.

Everything is drawn from the generator that is handed in. In the shop one order in ten wants a product that runs out,
and some cards are refused. Of the trades some are refused by a service, some find an account poor, and many meet on a
few accounts and stocks; plain commands on the same accounts go on beside them.
"""

import random
from functools import partial

from support.soak.run import Ask, Work
from support.systems.trades import system

UNITS, RARE_UNITS = 10**9, 60
REFUSED_CARD = "4000000000000002"
"""The number that card companies give out for a card that is declined."""
HOT_ACCOUNTS, OPENING, HOT_OPENING = 4, 20, 1000
TEAS = 10
PLACES = ("desk", "bank", "shop", "depot")

places = system(*PLACES)
"""The services of the trades, as the processes find them."""


def shopping(skus: int) -> Work:
    """Checkouts over so many products: 1 in 10 wants what is rare, 1 in 20 more than there is, 1 in 7 is not paid."""
    shelves = [(f"p{number}", UNITS) for number in range(skus)] + [("rare", RARE_UNITS)]
    opening = [
        Ask("stock", "/commands/restock", {"sku": sku, "quantity": units}, f"restock-{sku}") for sku, units in shelves
    ]
    return Work("shop.services:shop", ("order", "stock", "payment", "shipping"), opening, partial(checkout, skus))


def checkout(skus: int, number: int, rng: random.Random) -> Ask:
    """One order."""
    chance, order = rng.random(), f"o{number:06d}"
    wanted = [f"p{sku}" for sku in rng.sample(range(skus), rng.choice((1, 1, 2, 3)))]
    items = [{"sku": sku, "quantity": rng.randint(1, 3), "price_cents": 250} for sku in wanted]
    if chance < 0.1:
        items.append({"sku": "rare", "quantity": 1, "price_cents": 900})
    elif chance < 0.15:
        items[-1]["quantity"] = 2 * UNITS
    card = REFUSED_CARD if rng.random() < 1 / 7 else "4111111111111111"
    body = {"order_id": order, "customer_id": "c1", "items": items, "card_number": card}
    return Ask("order", f"/orders/{order}/checkout", body, order)


def trades(accounts: int) -> Work:
    """Trades between so many accounts of a bank, a depot and a shop, coordinated by the desk."""
    opened = {f"a{number}": OPENING for number in range(accounts)}
    opened |= {f"hot{number}": HOT_OPENING for number in range(HOT_ACCOUNTS)}
    opening = [
        Ask("bank", "/commands/move", {"account": account, "amount": amount}, f"open-{account}")
        for account, amount in opened.items()
    ]
    opening += [
        Ask("depot", "/commands/take", {"sku": f"tea{number}", "deal": "", "quantity": -5000}, f"open-tea{number}")
        for number in range(TEAS)
    ]
    return Work("support.soak.workloads:places", PLACES, opening, partial(trade, accounts))


def trade(accounts: int, number: int, rng: random.Random) -> Ask:
    """One trade; one in ten asks is a plain deposit on a hot account, which has to wait where that is locked."""
    if rng.random() < 0.1:
        body = {"account": f"hot{rng.randrange(HOT_ACCOUNTS)}", "amount": 1, "deal": ""}
        return Ask("bank", "/commands/move", body, f"plain{number:06d}")
    giver, taker = (f"a{account}" for account in rng.sample(range(accounts), 2))
    if rng.random() < 0.05:
        giver = f"hot{rng.randrange(HOT_ACCOUNTS)}"
    amount, tea = rng.randint(1, 15), "rare" if rng.random() < 0.03 else f"tea{rng.randrange(TEAS)}"
    deal = f"d{number:06d}"
    body = {
        "deal": deal, "moves": [[giver, -amount], [taker, amount]], "takes": [[tea, rng.choice((1, 1, 1, -1))]],
        "lists": [f"l{rng.randrange(accounts // 2)}"], "how": "no" if rng.random() < 0.07 else "",
    }  # fmt: skip
    return Ask("desk", "/commands/trade", body, deal)
