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
├── NotDone              an effect's call has certainly not happened; an effect raises it, and the call is made again
├── StoreError           a store cannot do what is asked
│   ├── StoreFailed      a commit could not be made durable; nothing of it was written
│   ├── StoreLocked      another process writes to it
│   ├── StoreForeign     not a holdfast store
│   ├── StoreMismatch    the store of another log
│   ├── StoreCorrupt     the engine says the file is damaged
│   ├── TransactionLost  the engine ended a handler's transaction; nothing of it was written, it may run again
│   ├── TransactionRefused  a handler's transaction cannot be committed
│   ├── SchemaNewer      written by a later release
│   └── LimitExceeded    a value over a stated limit
└── ExchangeError        two services cannot exchange frames
    ├── Unreachable      the peer does not answer: it is down, or the network is
    ├── Garbled          the bytes are not a frame
    ├── ProtocolMismatch another protocol version
    ├── Misdirected      the frame is for another service, or from an unknown one
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
        """Events to record together with the rejection."""
        self.facts: Mapping[str, Any] = facts


class KeyReused(CommandError):
    """The idempotency key was used before with other content; use a new key for a new command.

    `field`: the first field that differs, or `type` if the other command had another type.
    """

    def __init__(self, key: str, field: str) -> None:
        super().__init__(f"idempotency key {key!r} was used before with another {field!r}; use a new key")
        self.key = key
        self.field = field


class Contradicted(CommandError):
    """The request contradicts an existing decision; nothing was changed. Read the decision and its reason."""


class NotFound(CommandError):
    """There is no such thing; check its name."""


class Busy(CommandError):
    """The service is at its limit; try again after `retry_after_seconds`."""

    def __init__(self, message: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(CommandError):
    """The service's store does not take commits now; nothing was recorded, try again."""

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
    """The call has certainly not happened and is made again. An effect raises it if it knows this."""


class StoreError(HoldfastError):
    """The store cannot do this."""


class StoreFailed(StoreError):
    """The commit could not be made durable and nothing was written; free space or repair the engine."""


class StoreLocked(StoreError):
    """Another process writes to this store; stop it first."""


class StoreForeign(StoreError):
    """This is not a holdfast store; give another path."""


class StoreMismatch(StoreError):
    """This store holds the log of another service; give another path."""


class StoreCorrupt(StoreError):
    """The engine says this store is damaged; restore it from a backup."""


class TransactionLost(StoreError):
    """The engine ended a handler's transaction (a deadlock, a broken connection); nothing of it was written."""


class TransactionRefused(StoreError):
    """The transaction of a handler cannot be committed; nothing of it was written. Correct the handler."""


class SchemaNewer(StoreError):
    """This store was written by a later release of holdfast; run that release."""


class LimitExceeded(StoreError):
    """A value is over a stated limit."""


class ExchangeError(HoldfastError):
    """Two services could not exchange."""


class Unreachable(ExchangeError):
    """The peer did not answer; check that it runs and that its URL is right."""


class Garbled(ExchangeError):
    """The received bytes are not a frame; nothing was applied."""


class ProtocolMismatch(ExchangeError):
    """The peer speaks another version of the exchange protocol; nothing was applied."""


class Misdirected(ExchangeError):
    """The frame is for another service, or from a service that is not known here; nothing was applied."""


class Unauthorized(ExchangeError):
    """The signature is missing, too old or wrong; check that both sides have the same secret."""


class Gap(ExchangeError):
    """Positions are missing between what was received and this frame; nothing was applied."""


class Forked(ExchangeError):
    """This log has never given out the cursor: a store was restored from a backup. See docs/restore.md."""
