"""The feed port: how a service reads what others have published, page by page.

Comes after `runtime.feeds.subscriptions`, which decides from which position to read and keeps the checkpoint; before
the wire. Reading changes nothing at the producer: a page may be asked for again, by any number of readers. An adapter
that passes `holdfast.testing.conformance.feed` is a feed. Failures are `holdfast.errors.ExchangeError`s.
"""

from typing import Protocol

from holdfast.core.wire.frame import FeedPage, FeedRequest

__all__ = ["Feed", "Producer"]


class Producer(Protocol):
    """What a service lets others read."""

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Events of this service's log. Raises Forked for a checkpoint this log has never given out, Unavailable."""
        ...


class Feed(Protocol):
    """The way to what other services publish."""

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of a producer's events: all of the types that were asked for in (`request.after`, `page.upto`] of its
        log, committed, in commit order, each as it was written.

        `page.upto` is never less than `request.after`: a page without records moves a reader too, past events of other
        types. A page that is too large for the wire is cut: its beginning comes, and `page.upto` is its last record.
        `page.incarnation` is the one that wrote `page.upto`, and what the reader says with its next request.
        `page.head` is how far the log went. With a limit of 0 the page has no records and does not move the reader.

        Where there is nothing yet, the producer may hold the answer for `request.wait_ms`; the call ends in time all
        the same. Raises Unreachable (the page may be asked for again), Forked where the reader's position and
        incarnation were never given out by this log, or what else the producer named.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
