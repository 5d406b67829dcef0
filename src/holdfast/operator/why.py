"""Gathering: asking every service what it knows of an id, and of the transactions that turn up.

Comes before `cli.verbs.why`, which shows it. A service that does not answer is named with the reason; the others are
asked.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import msgspec

from holdfast.config import Settings
from holdfast.core.explain.status import WhyAnswer
from holdfast.errors import HoldfastError
from holdfast.operator.client import get

T = TypeVar("T")


class Gathered(msgspec.Struct, frozen=True):
    """What the services know of an id."""

    answers: tuple[WhyAnswer, ...]
    """One of each service that answered."""
    silent: dict[str, str]
    """The services that did not answer -> why."""
    now: int
    """The latest of their clocks, µs since 1970-01-01 UTC."""


def gather(urls: Mapping[str, str], id: str, settings: Settings) -> Gathered:
    """What each service knows of an id.

    Each service is asked what the id names there; then, of the transactions that it did not name itself, what it knows.
    """
    answers: dict[str, WhyAnswer] = {}
    silent: dict[str, str] = {}
    for name, where in urls.items():
        try:
            answers[name] = get(where, "/ops/why", {"id": id}, settings, WhyAnswer)
        except HoldfastError as error:
            silent[name] = str(error)
    asked = {name: set(answer.transactions) for name, answer in answers.items()}
    for tx in dict.fromkeys(tx for answer in answers.values() for tx in answer.transactions):
        for name in answers:
            if tx in asked[name] or name in silent:
                continue
            try:
                more = get(urls[name], "/ops/why", {"tx": tx}, settings, WhyAnswer)
                answers[name] = _merged(answers[name], more)
            except HoldfastError as error:
                silent[name] = str(error)
    now = max((answer.now for answer in answers.values()), default=0)
    return Gathered(tuple(answers.values()), silent, now)


def _merged(known: WhyAnswer, more: WhyAnswer) -> WhyAnswer:
    """What a service knows of the id, and of one more transaction."""
    return msgspec.structs.replace(
        known,
        complete=known.complete and more.complete,
        sagas=_joined(known.sagas, more.sagas, lambda saga: saga.id),
        waiting=_joined(known.waiting, more.waiting, lambda message: (message.message, message.stream)),
        held=_joined(known.held, more.held, lambda hold: (hold.stream, hold.stage)),
        records=_joined(known.records, more.records, lambda record: record.position),
    )


def _joined(known: tuple[T, ...], more: tuple[T, ...], key: Callable[[T], Hashable]) -> tuple[T, ...]:
    """What is known, then what is new in `more`."""
    have = {key(one) for one in known}
    return (*known, *(one for one in more if key(one) not in have))
