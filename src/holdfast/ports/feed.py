"""The feed port: how a service reads the published events of other services, page by page.

Comes after `runtime.feeds.subscriptions`, which decides from which position to read and keeps the checkpoint; before
the wire. Reading changes nothing at the producer: any number of readers may ask for a page again. An adapter is a feed
if it passes `holdfast.testing.conformance.feed`. Failures are `holdfast.errors.ExchangeError`s.
"""

from typing import Protocol

from holdfast.core.wire.frame import FeedPage, FeedRequest

__all__ = ["Feed", "Producer"]


class Producer(Protocol):
    """The published part of a service: other services may read it."""

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Events of this service's log. Raises Forked for a checkpoint this log has never given out, Unavailable."""
        ...


class Feed(Protocol):
    """The connection to the events that other services publish."""

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of a producer's events: all committed events of the requested types in (`request.after`, `page.upto`]
        of its log, in commit order, each as it was written.

        `page.upto` is never less than `request.after`: a page without records moves a reader too, past events of other
        types. A page that is too large for the wire is cut: its beginning comes, and `page.upto` is its last record.
        `page.incarnation` wrote `page.upto`; the reader sends it with its next request. `page.head` is the last
        position of the log. With a limit of 0 the page has no records and does not move the reader.

        If there are no events yet, the producer may delay the answer for `request.wait_ms`; the call still ends in
        time. Raises Unreachable (the reader may ask again), Forked if this log never gave out the reader's position
        and incarnation, or another error that the producer named.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
