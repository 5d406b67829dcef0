"""Effects: commands that are carried out by a system outside, through its API.

An effect is an `async def` that calls an external API. A call has one of three outcomes: done (it returns the event),
refused (it raises `Rejected`), unknown (it raises anything else, or takes too long). The runtime records
each attempt before the call leaves and never repeats an unknown one blindly: it asks the `probe` first. Comes after
`core.declare.message`; `runtime.execute.effects` runs them. Fails with `Misuse` when the function cannot work.
"""

import hashlib
import inspect
import typing
from collections.abc import Awaitable, Callable
from types import NoneType
from typing import Any

import msgspec

from holdfast.core.declare.aggregate import is_a
from holdfast.core.declare.message import Command, Context, Event, MessageType, message_type
from holdfast.errors import CommandFailed, Misuse

EFFECT_SECONDS = 10.0
"""How long a call may take if its effect does not say; after that its outcome is unknown."""
ATTEMPTED, UNKNOWN, PROBED = "holdfast.effect.attempted", "holdfast.effect.unknown", "holdfast.effect.probed"
"""Stored types of the records that an effect leaves in the log beside its outcome."""


class Attempt(msgspec.Struct, frozen=True):
    """The attempt: what an effect and its probe receive beside the command."""

    key: str
    """The idempotency key: 32 characters, the same for every attempt at one message, different for any other."""
    number: int
    """1 for the first attempt."""
    context: Context


def key_of(tx: str, message: str, effect: str) -> str:
    """The idempotency key of a message: derived from its cause, so that every attempt has the same key."""
    return hashlib.sha256(f"{tx}/{message}/{effect}".encode()).hexdigest()[:32]


class EffectType:
    """An effect as it was registered: its command, its probe, and how long a call may take."""

    def __init__(
        self,
        function: Callable[..., Any],
        contract: str,
        probe: Callable[..., Any] | None,
        *,
        idempotent: bool,
        seconds: float,
    ) -> None:
        self.name: str = function.__name__
        where = f"{contract}.{self.name}"
        self.command, returned = _signature(function, where)
        if self.command.contract != contract:
            raise Misuse(f"{where}: it carries out {self.command.stored}, which is a command of another contract")
        if not self.command.key_fields:
            raise Misuse(
                f"{where}: {self.command.cls.__name__} has no key; name the key field: @contract.command(key=...)"
            )
        for answer in self.command.answers:
            message_type(answer)
        self._check_returned(returned, where, may_be_none=False)
        if probe is not None:
            probed, found = _signature(probe, f"{contract}.{probe.__name__}")
            if probed is not self.command:
                raise Misuse(f"{contract}.{probe.__name__}: the probe must take the command of its effect, {self.name}")
            self._check_returned(found, f"{contract}.{probe.__name__}", may_be_none=True)
        if not 0 < seconds <= 3600:
            raise Misuse(f"{where}: seconds={seconds:g} must be more than 0 and at most 3600")
        self.function: Callable[[Any, Attempt], Awaitable[Any]] = function
        self.probe: Callable[[Any, Attempt], Awaitable[Any]] | None = probe
        self.idempotent, self.seconds = idempotent, seconds

    def _check_returned(self, returned: Any, where: str, *, may_be_none: bool) -> None:
        allowed = {*self.command.answers, *({NoneType} if may_be_none else ())}
        if returned is not None and not set(typing.get_args(returned) or (returned,)) <= allowed:
            names = " or ".join(answer.__name__ for answer in self.command.answers)
            what = f"{names}, or None where nothing was done" if may_be_none else names
            raise Misuse(f"{where}: it returns {returned!r}, but it must return {what}")

    def answer(self, found: Any) -> Event:
        """The event that a call returned, if it answers the command. Raises CommandFailed on anything else."""
        if type(found) not in self.command.answers:
            names = " or ".join(answer.__name__ for answer in self.command.answers)
            raise CommandFailed(f"{self.name} must return {names}; it returned {found!r:.200}")
        return found


def _signature(function: Callable[..., Any], where: str) -> tuple[MessageType, Any]:
    """The command that an effect or a probe takes, and its return annotation. Raises Misuse."""
    if not inspect.iscoroutinefunction(function):
        raise Misuse(f"{where}: an effect and its probe must be an async def, because they wait for an answer")
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise Misuse(f"{where}: an annotation cannot be resolved: {error}") from None
    given = [hints.get(name) for name in inspect.signature(function).parameters]
    if len(given) != 2 or not is_a(given[0], Command) or given[1] is not Attempt:
        raise Misuse(f"{where}: it must take a command and `attempt: Attempt`, both annotated")
    return message_type(typing.cast("type[Any]", given[0])), hints.get("return")
