"""holdfast: services that own their data behave like one system that can be trusted.

Contents, in the order data flows:

declare    `Contract`, `Command`, `Event`, `Sensitive`   what services say to each other
           `Service`, `decide`, `evolve`, `Rejected`, `Context`   who decides it, and what it changes
           `escrow`   a counter that many transactions move at once
           `LocalTransaction`   a command handled beside tables of your own
           `Attempt`   of an effect: a command carried out outside, on things that are not ours
           `Retry`   how often a message whose handler fails is tried
           `step`, `undo`, `pivot`, `answer`, `Rejection`   sagas: business transactions across services
           `Query`, `Keyed`, `Every`   what a route of a service may return
run        `System`, `Settings`, `ServiceSettings`, `start`, `Running`, `asgi_app`   services together
           `Client`, `Outcome`, `ViewAnswer`   the way in, and what comes of it
           `Happened`, `Report`, `Violation`   what happened in a transaction, and what an audit says of all of them
           errors: `holdfast.errors`
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError, Rejected

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.compose import asgi_app, start
    from holdfast.config import ServiceSettings, Settings
    from holdfast.core.audit.audit import Report
    from holdfast.core.audit.happened import Happened
    from holdfast.core.audit.invariant import Violation
    from holdfast.core.declare.aggregate import decide, escrow, evolve
    from holdfast.core.declare.effect import Attempt
    from holdfast.core.declare.handler import LocalTransaction
    from holdfast.core.declare.message import Command, Context, Contract, Event, Rejection, Sensitive
    from holdfast.core.declare.retry import Retry
    from holdfast.core.declare.saga import answer, pivot, step, undo
    from holdfast.core.declare.service import Every, Keyed, Query, Service
    from holdfast.core.system import System
    from holdfast.runtime.decide.outcomes import Outcome
    from holdfast.runtime.feeds.views import ViewAnswer
    from holdfast.runtime.system import Running

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Client",
    "Command",
    "Context",
    "Contract",
    "Event",
    "Every",
    "Happened",
    "HoldfastError",
    "Keyed",
    "LocalTransaction",
    "Outcome",
    "Query",
    "Rejected",
    "Rejection",
    "Report",
    "Retry",
    "Running",
    "Sensitive",
    "Service",
    "ServiceSettings",
    "Settings",
    "System",
    "ViewAnswer",
    "Violation",
    "answer",
    "asgi_app",
    "decide",
    "escrow",
    "evolve",
    "pivot",
    "start",
    "step",
    "undo",
]

_HOMES = {
    "holdfast.client": ("Client",),
    "holdfast.compose": ("asgi_app", "start"),
    "holdfast.config": ("ServiceSettings", "Settings"),
    "holdfast.core.audit.audit": ("Report",),
    "holdfast.core.audit.happened": ("Happened",),
    "holdfast.core.audit.invariant": ("Violation",),
    "holdfast.core.declare.aggregate": ("decide", "escrow", "evolve"),
    "holdfast.core.declare.effect": ("Attempt",),
    "holdfast.core.declare.handler": ("LocalTransaction",),
    "holdfast.core.declare.message": ("Command", "Context", "Contract", "Event", "Rejection", "Sensitive"),
    "holdfast.core.declare.retry": ("Retry",),
    "holdfast.core.declare.saga": ("answer", "pivot", "step", "undo"),
    "holdfast.core.declare.service": ("Every", "Keyed", "Query", "Service"),
    "holdfast.core.system": ("System",),
    "holdfast.runtime.decide.outcomes": ("Outcome",),
    "holdfast.runtime.feeds.views": ("ViewAnswer",),
    "holdfast.runtime.system": ("Running",),
}
"""Module -> the public names that it defines."""
_RENAMED = {"Transaction": "LocalTransaction", "every": "Every", "keyed": "Keyed", "query": "Query"}
"""Names of 0.1.0, and what they are called now; they go with the release after the next."""

if not TYPE_CHECKING:  # a type checker would let any name pass
    _MODULES = {name: module for module, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> Any:
        """Load the module of a public name when the name is first used: a command line is not to load the runtime."""
        if name in _RENAMED:
            warnings.warn(f"holdfast.{name} is holdfast.{_RENAMED[name]} now", DeprecationWarning, stacklevel=2)
            return getattr(import_module(__name__), _RENAMED[name])
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
