"""A ticket office: `order` sells seats, `wallet` has cards charged by a provider, which it reaches by HTTP.

Run it in examples/: `python -m cards.provider --lose-answer 0.3`, and beside it `holdfast run cards.services:cards`.
Nobody here guards against a charge that is made twice: the effect says what each answer means, and whom to ask when
none came. A provider that is down is waited for; after `CHARGE_SECONDS` the sale is cancelled, and what was charged
is given back.
"""

import os
from typing import Any

import aiohttp

from cards.contracts import (
    Bought,
    Buy,
    Charge,
    Charged,
    Refund,
    Refunded,
    Release,
    Released,
    Reserve,
    Reserved,
    Sell,
    Sold,
    order,
    wallet,
)
from holdfast import Attempt, Rejected, Retry, Service, System, answer, decide, evolve, pivot, step, undo
from holdfast.errors import NotDone

CHARGE_SECONDS = 5
"""How long a sale waits for its charge."""

wallet_service = Service(wallet, owner="team-money", retry=Retry(attempts_max=1000, last_seconds=1))
order_service = Service(order, owner="team-office")


async def ask(method: str, path: str, body: dict[str, Any] | None = None, key: str = "") -> tuple[int, dict[str, Any]]:
    """What the provider answers. Raises NotDone where nothing can have happened, anything else where it may have."""
    url = os.environ.get("CARDS_URL", "http://127.0.0.1:8099") + path
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, json=body, headers={"Idempotency-Key": key}) as found,
        ):
            status, said = found.status, await found.json()
    except aiohttp.ClientConnectorError as error:
        raise NotDone(f"the provider is down: {error}") from error
    if status == 503:  # the provider's promise: it has not begun
        raise NotDone(said["error"])
    if status not in (200, 402, 404):
        raise RuntimeError(f"the provider answered {status}: {said}")
    return status, said


async def look_up(command: Charge, attempt: Attempt) -> Charged | None:
    """What became of a charge: the probe."""
    status, said = await ask("GET", f"/charges/{attempt.key}")
    return None if status == 404 else charged(command, status, said)


@wallet_service.effect(probe=look_up, seconds=2)
async def charge(command: Charge, attempt: Attempt) -> Charged:
    body = {"amount_cents": command.amount_cents, "card": command.card, "reference": command.order_id}
    return charged(command, *await ask("POST", "/charges", body, attempt.key))


def charged(command: Charge, status: int, said: dict[str, Any]) -> Charged:
    if status == 402:
        raise Rejected("declined", said["error"])
    return Charged(command.order_id, said["amount_cents"], said["charge"])


@wallet_service.effect(idempotent=True, seconds=2)
async def refund(command: Refund, attempt: Attempt) -> Refunded:
    """Idempotent: the provider gives a charge back once, however often it is asked."""
    status, said = await ask("POST", "/refunds", {"charge": command.charge}, attempt.key)
    if status != 200:
        raise Rejected("no_such_charge", said["error"])
    return Refunded(command.order_id, said["amount_cents"])


@order_service.aggregate
class Seat:
    taken_by: str = ""
    sold: bool = False

    @decide(creates=True)
    def reserve(self, command: Reserve) -> Reserved:
        if self.taken_by:
            raise Rejected("taken", f"seat {command.seat} is not free")
        return Reserved(command.seat, command.order_id)

    @decide
    def release(self, command: Release) -> Released:
        if self.taken_by != command.order_id or self.sold:
            raise Rejected("not_reserved", f"seat {command.seat} is not held for {command.order_id}")
        return Released(command.seat, command.order_id)

    @decide
    def sell(self, command: Sell) -> Sold:
        if self.taken_by != command.order_id or self.sold:
            raise Rejected("not_reserved", f"seat {command.seat} is not held for {command.order_id}")
        return Sold(command.seat, command.order_id)

    @evolve
    def reserved(self, event: Reserved) -> None:
        self.taken_by = event.order_id

    @evolve
    def released(self, event: Released) -> None:
        self.taken_by = ""

    @evolve
    def was_sold(self, event: Sold) -> None:
        self.sold = True


@order_service.saga
class BuySaga:
    buy: Buy

    @step
    def reserve(self) -> Reserve:
        return Reserve(self.buy.seat, self.buy.order_id)

    @undo(reserve)
    def release(self, reserved: Reserved) -> Release:
        return Release(reserved.seat, reserved.order_id)

    @step(deadline_seconds=CHARGE_SECONDS)
    def charge(self) -> Charge:
        return Charge(self.buy.order_id, self.buy.amount_cents, self.buy.card)

    @undo(charge)
    def refund(self, charged: Charged) -> Refund:
        return Refund(charged.order_id, charged.amount_cents, charged.charge)

    @pivot
    def sell(self) -> Sell:
        return Sell(self.buy.seat, self.buy.order_id)

    @answer
    def done(self, charge: Charged) -> Bought:
        return Bought(self.buy.order_id, self.buy.seat, charge.amount_cents)


cards = System([order_service, wallet_service], name="cards")
