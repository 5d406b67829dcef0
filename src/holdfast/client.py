"""The client: typed commands and queries, in process and over HTTP.

`await client.run(Reserve(...))` gives the `Reserved` that answers it, or raises `Rejected` with code and facts. The
transport decides where the service is; the outcome is the same everywhere. After a time-out it raises `Pending`: ask
again with the same key. The edge of a service comes next.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from holdfast.core.declare.message import Command, Rejection, message_of
from holdfast.errors import NotFound, Rejected
from holdfast.runtime.decide.outcomes import Outcome
from holdfast.runtime.edge.commands import WAIT_SECONDS
from holdfast.runtime.feeds.views import ViewAnswer
from holdfast.runtime.system import Running

A = TypeVar("A")


class Caller(Protocol):
    """How a client reaches services; `Client.of` and `Client.http` bring one each."""

    async def run(
        self, service: str, command: Command[Any], *, key: str, correlation: str, debug: bool, wait_seconds: float
    ) -> Outcome:
        """Run a command; if a business rule rejects it, the Outcome has a Rejection."""
        ...

    async def query(
        self, service: str, view: str, key: str, at_least: Mapping[str, int], transaction: str, wait_seconds: float
    ) -> ViewAnswer:
        """Ask a view."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Client:
    """Commands to and queries of every service of a system."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @staticmethod
    def of(running: Running) -> "Client":
        """A client of the services of this process, and of the services that they reach by URL."""
        return Client(_LocalCaller(running))

    @staticmethod
    def http(urls: Mapping[str, str]) -> "Client":
        """A client of services by URL: `{"stock": "http://127.0.0.1:8001"}`. Needs the `http` extra."""
        from holdfast.web.client import HttpCaller

        return Client(HttpCaller(urls))

    async def run(
        self,
        command: Command[A],
        *,
        key: str = "",
        correlation: str = "",
        debug: bool = False,
        wait_seconds: float = WAIT_SECONDS,
    ) -> A:
        """Run a command and return the event that accepts it.

        `key` is the idempotency key: the same key gets the recorded answer for as long as the log lives. Raises
        Rejected, Pending (unknown yet, after `wait_seconds`), and the other CommandErrors.
        """
        outcome = await self.send(command, key=key, correlation=correlation, debug=debug, wait_seconds=wait_seconds)
        if isinstance(outcome.answer, Rejection):
            raise Rejected(outcome.answer.code, outcome.answer.message, **dict(outcome.answer.facts))
        return outcome.answer

    async def send(
        self,
        command: Command[Any],
        *,
        key: str = "",
        correlation: str = "",
        debug: bool = False,
        wait_seconds: float = WAIT_SECONDS,
    ) -> Outcome:
        """As `run`, but returns the Outcome: transaction id, answer (an event or a Rejection) and position."""
        service = message_of(command).contract
        return await self._caller.run(
            service, command, key=key, correlation=correlation, debug=debug, wait_seconds=wait_seconds
        )

    async def query(
        self,
        service: str,
        view: str,
        key: str,
        *,
        at_least: Mapping[str, int] | None = None,
        transaction: str = "",
        wait_seconds: float = 5.0,
    ) -> ViewAnswer:
        """The row of a view; `at_least={"order": 17}` waits until it has seen that position of that log, and
        `transaction=outcome.tx` until it has all of that committed transaction, from every log that feeds it."""
        return await self._caller.query(service, view, key, at_least or {}, transaction, wait_seconds)

    async def close(self) -> None:
        """Let go of connections."""
        await self._caller.close()


class _LocalCaller:
    """Reaches services of this process in memory, and other services at the URLs that their system knows."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._far: Caller | None = None

    async def run(
        self, service: str, command: Command[Any], *, key: str, correlation: str, debug: bool, wait_seconds: float
    ) -> Outcome:
        node = self._running.nodes.get(service)
        if node is None:
            far = self._other(service)
            return await far.run(
                service, command, key=key, correlation=correlation, debug=debug, wait_seconds=wait_seconds
            )
        return await node.edge.run(command, key=key, correlation=correlation, debug=debug, wait_seconds=wait_seconds)

    async def query(
        self, service: str, view: str, key: str, at_least: Mapping[str, int], transaction: str, wait_seconds: float
    ) -> ViewAnswer:
        node = self._running.nodes.get(service)
        if node is None:
            return await self._other(service).query(service, view, key, at_least, transaction, wait_seconds)
        return await node.views.query(view, key, at_least=at_least, transaction=transaction, wait_seconds=wait_seconds)

    def _other(self, service: str) -> Caller:
        if service not in self._running.urls:
            raise NotFound(
                f"{service!r} does not run in this process, and its URL is not known; set services.{service}.url"
            )
        if self._far is None:
            from holdfast.web.client import HttpCaller

            self._far = HttpCaller(self._running.urls)
        return self._far

    async def close(self) -> None:
        if self._far is not None:
            await self._far.close()
            self._far = None
