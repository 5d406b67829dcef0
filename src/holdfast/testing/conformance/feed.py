"""What decides what a feed is: every sentence of `holdfast.ports.feed`, as tests for any adapter.

    class TestMyFeed(FeedConformance):
        @asynccontextmanager
        async def connect(self, producers: Mapping[str, Producer]) -> AsyncGenerator[Feed]:
            ...serve `producers` and yield a feed that reads them

Comes after the port; before every adapter's test file, which is those lines and what only its wire has. The producers
are plain objects that record what they are asked: no service is around them. It needs pytest-asyncio in any mode.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from holdfast.core.log.record import Headers, Record
from holdfast.core.wire.frame import FeedPage, FeedRequest
from holdfast.errors import Busy, Forked, Garbled, HoldfastError, Misdirected, Unavailable, Unreachable
from holdfast.ports.feed import Feed, Producer

__all__ = ["FeedConformance"]

NAMED: tuple[type[HoldfastError], ...] = (Forked, Garbled, Misdirected, Unavailable, Busy)
FULL = Record(
    position=3,
    kind="event",
    type="stock.reserved.v1",
    data='{"sku":"😀 \\u0000 é \' \\" \\\\"}'.encode(),
    tx="TX",
    cause="order@7",
    at=1_700_000_000_000_001,
    correlation="label",
    stream="Stock/😀",
    version=4,
    destination="payment",
    headers=Headers(3, True, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", "Saga/1#2", True),
)
"""An event in which every field that a feed carries is set."""


class Publishing:
    """A producer that keeps what it is asked and answers as told."""

    def __init__(self, page: FeedPage | None = None) -> None:
        self.page = page or FeedPage((FULL,), 9, "i3", 12)
        self.requests: list[FeedRequest] = []
        self.error: HoldfastError | None = None
        self.delay_seconds = 0.0

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Answer with the page."""
        await asyncio.sleep(self.delay_seconds)
        if self.error is not None:
            raise self.error
        self.requests.append(request)
        return self.page


class FeedConformance:
    """The suite. A subclass says how producers are read."""

    def connect(self, producers: Mapping[str, Producer]) -> AbstractAsyncContextManager[Feed]:
        """Serve the producers; a feed that reads them by name, and nobody else."""
        raise TypeError("say in the subclass how producers are read")

    @pytest.mark.asyncio
    async def test_a_page_and_its_question_arrive_as_they_are(self) -> None:
        """Every field of a question arrives; every field of the page comes back, an empty one too (G9)."""
        stock = Publishing()
        asked = [
            FeedRequest(7, ("stock.reserved.v1", "stock.released.v1"), 100, 50, "i3"),
            FeedRequest(0, (), 0, 0, ""),
        ]
        async with self.connect({"stock": stock}) as feed:
            assert await feed.feed("stock", asked[0]) == stock.page
            stock.page = FeedPage((), 5, "i3", 5)
            assert await feed.feed("stock", asked[1]) == stock.page
        assert stock.requests == asked

    @pytest.mark.asyncio
    async def test_a_page_may_be_read_again(self) -> None:
        """Reading takes nothing away: the same question brings the same page, however often it is asked."""
        stock = Publishing()
        async with self.connect({"stock": stock}) as feed:
            pages = [await feed.feed("stock", FeedRequest(2)) for _ in range(3)]
        assert pages == [stock.page] * 3

    @pytest.mark.parametrize("error", NAMED, ids=lambda error: error.__name__)
    @pytest.mark.asyncio
    async def test_what_a_producer_names_comes_back_by_name(self, error: type[HoldfastError]) -> None:
        """A producer's refusal is the same exception here, with its sentence: never taken for a lost connection."""
        stock = Publishing()
        stock.error = error('what is wrong: 1 < 2 & "é"')
        async with self.connect({"stock": stock}) as feed:
            with pytest.raises(error) as caught:
                await feed.feed("stock", FeedRequest(0))
            assert type(caught.value) is error and 'wrong: 1 < 2 & "é"' in str(caught.value)
            stock.error = None
            assert await feed.feed("stock", FeedRequest(0)) == stock.page

    @pytest.mark.asyncio
    async def test_who_is_not_there_is_unreachable(self) -> None:
        """A producer that nobody knows is Unreachable, by name."""
        async with self.connect({"stock": Publishing()}) as feed:
            with pytest.raises(Unreachable, match="nobody"):
                await feed.feed("nobody", FeedRequest(0))

    @pytest.mark.asyncio
    async def test_an_answer_that_is_held_is_waited_for(self) -> None:
        """A producer may hold the answer for as long as it was asked to."""
        stock = Publishing()
        stock.delay_seconds = 0.3
        async with self.connect({"stock": stock}) as feed:
            assert await feed.feed("stock", FeedRequest(0, wait_ms=500)) == stock.page

    @pytest.mark.asyncio
    async def test_many_at_once_get_their_own_pages(self) -> None:
        """Pages never change places, however many are on their way."""
        stock, order = Publishing(FeedPage((), 1, "s", 1)), Publishing(FeedPage((), 2, "o", 2))
        stock.delay_seconds = 0.01
        async with self.connect({"stock": stock, "order": order}) as feed:
            names = ["stock", "order"] * 50
            found = await asyncio.gather(*(feed.feed(name, FeedRequest(0)) for name in names))
        assert [page.incarnation for page in found] == ["s", "o"] * 50

    @pytest.mark.asyncio
    async def test_a_large_page_arrives_or_says_where_it_ends(self) -> None:
        """Large records go through in order; if a page is too large, its beginning comes, and `upto` says so."""
        data = b'"' + b"x" * (1024 * 1024) + b'"'
        records = tuple(msgspec.structs.replace(FULL, position=n, data=data) for n in range(1, 8))
        stock = Publishing(FeedPage(records, 9, "i3", 12))
        async with self.connect({"stock": stock}) as feed:
            page = await feed.feed("stock", FeedRequest(0))
        count = len(page.records)
        assert count > 0 and page.records == records[:count]
        assert page.upto == (9 if count == 7 else count) and page.head == 12

    @pytest.mark.asyncio
    async def test_a_call_that_is_given_up_harms_no_other(self) -> None:
        """A call cancelled on its way leaves the feed as it was."""
        stock = Publishing()
        stock.delay_seconds = 30
        async with self.connect({"stock": stock}) as feed:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await feed.feed("stock", FeedRequest(0))
            stock.delay_seconds = 0
            async with asyncio.timeout(5):
                assert await feed.feed("stock", FeedRequest(0)) == stock.page
