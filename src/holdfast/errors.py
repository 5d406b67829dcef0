"""Every exception of holdfast, as a tree. The docstring of a class is its default message and says what to do.

HoldfastError
├── Misuse               a declaration that cannot work; raised when a service is built
├── ConfigInvalid        a setting that is unknown or out of range; raised before anything starts
├── CommandError         what a caller of a command can meet (HTTP status in brackets)
│   ├── Invalid          the input does not fit its type [422]
│   ├── Rejected         a business no, with code and facts; raised by deciders too [409]
│   ├── Contradicted     a decision exists that says otherwise [409]
│   ├── KeyReused        the same idempotency key with other content [422]
│   ├── NotFound         no such command, view, stream [404]
│   ├── Busy             a bounded queue is full; come back later [503]
│   ├── Unavailable      the service's store is not taking commits [503]
│   ├── Pending          no outcome within the time given: unknown, not failed [202 or 504]
│   └── CommandFailed    the handler raised: a bug in it; nothing was recorded [500]
├── NotDone              an effect's call has certainly not happened: raised by effects, it is made again
├── StoreError           what a store can meet
│   ├── StoreFailed      a commit could not be made durable; nothing of it is there
│   ├── StoreLocked      another process writes to it
│   ├── StoreForeign     not a holdfast store
│   ├── StoreMismatch    the store of another log
│   ├── StoreCorrupt     the engine says the file is damaged
│   ├── TransactionLost  a handler's transaction was ended by the engine; nothing of it is there, it may run again
│   ├── TransactionRefused  what a handler did cannot be committed
│   ├── SchemaNewer      written by a later release
│   └── LimitExceeded    a value over a stated limit
└── ExchangeError        what two services can say of each other's frames
    ├── Unreachable      no answer: down, or the network
    ├── Garbled          not a frame
    ├── ProtocolMismatch another protocol version
    ├── Misdirected      for somebody else, or from nobody known
    ├── Unauthorized     the signature is missing or wrong
    ├── Gap              positions are missing before this frame
    └── Forked           a cursor this log has never given out: a store was restored
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "Busy",
    "CommandError",
    "CommandFailed",
    "ConfigInvalid",
    "Contradicted",
    "ExchangeError",
    "Forked",
    "Gap",
    "Garbled",
    "HoldfastError",
    "Invalid",
    "KeyReused",
    "LimitExceeded",
    "Misdirected",
    "Misuse",
    "NotDone",
    "NotFound",
    "Pending",
    "ProtocolMismatch",
    "Rejected",
    "SchemaNewer",
    "StoreCorrupt",
    "StoreError",
    "StoreFailed",
    "StoreForeign",
    "StoreLocked",
    "StoreMismatch",
    "TransactionLost",
    "TransactionRefused",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]


class HoldfastError(Exception):
    """Something holdfast cannot do."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class Misuse(HoldfastError):
    """The declaration cannot work; change it as the message says."""


class ConfigInvalid(HoldfastError):
    """The configuration is not valid; change it as the message says."""


class CommandError(HoldfastError):
    """A command was not accepted."""


class Invalid(CommandError):
    """The input does not fit its type; correct the fields named."""

    def __init__(self, message: str = "", *, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)
        """(path, what is wrong there); the path is a JSON pointer-like `$.items[2].sku`."""


class Rejected(CommandError):
    """The command was rejected by a business rule."""

    def __init__(self, code: str, message: str = "", *, events: Sequence[object] = (), **facts: Any) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message or code
        self.events = tuple(events)
        """Events to record together with the no."""
        self.facts: Mapping[str, Any] = facts


class KeyReused(CommandError):
    """The idempotency key was used before with other content; use a new key for a new command.

    `field`: the first field that differs, or `type` where it was another command.
    """

    def __init__(self, key: str, field: str) -> None:
        super().__init__(f"idempotency key {key!r} was used before with another {field!r}; use a new key")
        self.key = key
        self.field = field


class Contradicted(CommandError):
    """What is asked contradicts a decision that exists; nothing was changed. Read what was decided, and why."""


class NotFound(CommandError):
    """There is no such thing; check its name."""


class Busy(CommandError):
    """The service is at its limit; try again after `retry_after_seconds`."""

    def __init__(self, message: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(CommandError):
    """The service's store is not taking commits now; nothing was recorded, try again."""

    def __init__(self, message: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Pending(CommandError):
    """No outcome yet: it is unknown, not failed. Ask again with the same key."""

    def __init__(self, tx: str) -> None:
        super().__init__(f"transaction {tx} has no outcome yet; ask again with the same key")
        self.tx = tx


class CommandFailed(CommandError):
    """The handler of the command failed; nothing was recorded and the key is free."""


class NotDone(HoldfastError):
    """The call has certainly not happened; it is made again. Raised by effects, where they can know."""


class StoreError(HoldfastError):
    """The store cannot do this."""


class StoreFailed(StoreError):
    """The commit could not be made durable and nothing of it is there; free space or repair the engine."""


class StoreLocked(StoreError):
    """Another process writes to this store; stop it first."""


class StoreForeign(StoreError):
    """This is not a holdfast store; give another path."""


class StoreMismatch(StoreError):
    """This store holds the log of another service; give another path."""


class StoreCorrupt(StoreError):
    """The engine says this store is damaged; restore it from a backup."""


class TransactionLost(StoreError):
    """The engine ended a handler's transaction (a deadlock, a broken connection); nothing of it is there."""


class TransactionRefused(StoreError):
    """What a handler did in its transaction cannot be committed; nothing of it is there."""


class SchemaNewer(StoreError):
    """This store was written by a later release of holdfast; run that release."""


class LimitExceeded(StoreError):
    """A value is over a stated limit."""


class ExchangeError(HoldfastError):
    """Two services could not exchange."""


class Unreachable(ExchangeError):
    """The peer did not answer."""


class Garbled(ExchangeError):
    """What came is not a frame; nothing was applied."""


class ProtocolMismatch(ExchangeError):
    """The peer speaks another version of the exchange protocol; nothing was applied."""


class Misdirected(ExchangeError):
    """The frame is for another service, or from one that is not known here; nothing was applied."""


class Unauthorized(ExchangeError):
    """The signature is missing, too old or wrong; check that both sides have the same secret."""


class Gap(ExchangeError):
    """Positions are missing between what was received and this frame; nothing was applied."""


class Forked(ExchangeError):
    """A cursor stands where this log has never been: a store was restored from a backup. See docs/restore.md."""
