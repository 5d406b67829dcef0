"""Systems as declared: services that run together, and the invariants over all of them.

Comes after `core.declare.service` and the invariants, before the runtime; fails with `Misuse`.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from holdfast.core.audit.happened import Happened
from holdfast.core.audit.invariant import Invariant
from holdfast.core.declare.service import Service
from holdfast.core.log.name import LogName, SlotMap
from holdfast.errors import Misuse

T = TypeVar("T", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])


class System:
    """Services that run together, each with its own store. Peers of a service outside the list need a URL."""

    def __init__(self, services: Iterable[Service], *, name: str = "system") -> None:
        self.name = name
        self.services: dict[str, Service] = {}
        for service in services:
            if service.name in self.services:
                raise Misuse(f"system {name!r}: two services are named {service.name!r}")
            self.services[service.name] = service
        self.invariants: dict[str, Invariant] = {}
        """The invariants of the system by name, see `invariant`."""
        self._slots = {name: SlotMap(name) for name in self.services}
        if not self.services:
            raise Misuse(f"system {name!r} has no services; give it at least one")
        for service in self.services.values():
            service.check_staged(self.services)

    def log_of(self, service: str, key: str) -> LogName:
        """The log that a key of a service belongs to. A service has one log today."""
        found = self._slots.get(service)
        return found.log_of(key) if found is not None else LogName(service)

    @overload
    def invariant(self, declared: T, /) -> T: ...
    @overload
    def invariant(self, declared: F, /) -> F: ...
    @overload
    def invariant(self, /, *, key: Callable[[Happened], Any]) -> Callable[[T], T]: ...
    @overload
    def invariant(self, /, *, by: Callable[[Any], Any]) -> Callable[[T], T]: ...
    def invariant(
        self,
        declared: Any = None,
        /,
        *,
        key: Callable[[Happened], Any] | None = None,
        by: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Register an invariant; it yields a sentence for each thing that is wrong.

        A function takes one settled transaction (`Happened`). A class folds: `settled(self, tx)` takes one transaction
        after another, `holds(self)` judges the fold so far; `holds(self, in_flight)` is also given the transactions
        that are not settled. A class with `follow(self, event)` is given events one by one as they happened,
        those of each log in its order. `key` gives the keys a transaction belongs to, `by` those of an event:
        then each key has an instance of its own, and only instances that changed are judged again. Raises Misuse.
        """

        def register(declared: Any) -> Any:
            found = Invariant(declared, key, by)
            if found.name in self.invariants:
                raise Misuse(f"system {self.name!r}: two invariants are named {found.name!r}")
            self.invariants[found.name] = found
            return declared

        return register if declared is None else register(declared)
