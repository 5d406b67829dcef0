"""The shop, to be broken: `python -m shop.trouble WHAT` makes one command fail, in every process, until it is mended.

`shop.trouble:shop` is the shop of `shop.services`, whose deciders first look into the file `trouble` of the folder they
run in: `reserve` (or `reserve eggs`, of that product or order alone) breaks; `refuse release` says no. `buy` is what a
customer hears. Only docs/repair.md and its test use it.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from holdfast import Client, HoldfastError, Rejected, Retry, Service
from holdfast.cli.options import say, settings_of
from holdfast.errors import Pending
from shop import services
from shop.contracts import Checkout, Item, Restock

SWITCH = Path("trouble")
CARDS = {"": "4242424242424242", "declined": "4000000000000002"}
WAIT_SECONDS = 1.5


def _troubled(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A decider that fails as long as the file says so."""

    def decide(state: Any, command: Any, *rest: Any) -> Any:
        what = SWITCH.read_text("utf-8").split() if SWITCH.exists() else []
        refuse = what[:1] == ["refuse"]
        verb, *only = what[1:] if refuse else what or [""]
        if verb == name and all(word in map(str, msgspec.structs.astuple(command)) for word in only):
            if refuse:
                raise Rejected("not_now", f"{name} is refused")
            raise KeyError(f"no shelf for {only[0] if only else 'it'}")
        return method(state, command, *rest)

    return decide


def _break(service: Service) -> None:
    for aggregate in service.aggregates.values():
        for command, decider in list(aggregate.deciders.items()):
            method = _troubled(decider.command.name, decider.method)
            service.retry(decider.command.cls, Retry(attempts_max=2, first_seconds=0.2))
            aggregate.deciders[command] = msgspec.structs.replace(decider, method=method)


shop = services.shop
for _service in shop.services.values():
    _break(_service)


async def buy(urls: dict[str, str], order: str, sku: str, customer: str, card: str = "") -> str:
    """Buy two of a product, and wait a moment for the answer."""
    client = Client.http(urls)
    try:
        await client.run(Restock(sku, 10), key=f"restock-{sku}")
        checkout = Checkout(order, customer, (Item(sku, 2, 450),), CARDS[card])
        done = await client.run(checkout, key=order, correlation=order, wait_seconds=WAIT_SECONDS)
        return f"{order}: bought for {done.amount_cents} cents"
    except Rejected as no:
        return f"{order}: {no.code}"
    except Pending:
        return f"{order}: no answer yet"
    finally:
        await client.close()


def main(what: list[str]) -> int:
    """`buy ORDER PRODUCT CUSTOMER [declined]`, `mended`, or the trouble to make."""
    settings = settings_of(None)
    if what[:1] == ["buy"]:
        say(None, as_json=False, text=asyncio.run(buy(settings.urls(), *what[1:])))
    elif what == ["mended"]:
        SWITCH.unlink(missing_ok=True)
    else:
        SWITCH.write_text(" ".join(what), "utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HoldfastError as error:
        sys.exit(f"shop.trouble: {error}")
