"""What decides what a transport is: every sentence of `holdfast.ports.transport`, as tests for any adapter.

    class TestMyTransport(TransportConformance):
        @asynccontextmanager
        async def connect(self, peers: Mapping[str, Peer]) -> AsyncGenerator[Transport]:
            ...serve `peers` and yield a transport that reaches them

Comes after the port; before every adapter's test file, which is those lines and what only its wire has. The peers are
plain objects that record what they hear: no service is around them. It needs pytest-asyncio in any mode.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import Record
from holdfast.core.saga.stage import Carried, Standing
from holdfast.core.wire.frame import Frame, to_wire
from holdfast.errors import (
    Busy,
    Forked,
    Gap,
    Garbled,
    HoldfastError,
    Misdirected,
    ProtocolMismatch,
    Unavailable,
    Unreachable,
)
from holdfast.ports.transport import Peer, Transport
from holdfast.testing.conformance.feed import FULL

__all__ = ["TransportConformance"]

NAMED: list[type[HoldfastError]] = [Gap, Forked, Garbled, Misdirected, ProtocolMismatch, Unavailable, Busy]


def frame(sender: str, receiver: str, upto: int, *records: Record) -> Frame:
    """A frame of these records."""
    wire = tuple(to_wire(record) for record in records)
    return Frame(sender, receiver, "i1", 1, 0, upto, Cursor("i2", upto), upto, wire)


class Hearing:
    """A peer that keeps what it hears and answers as told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frames: list[Frame] = []
        self.error: HoldfastError | None = None
        self.delay_seconds = 0.0

    async def exchange(self, frame: Frame) -> Frame:
        """Answer with the records that came, from here to there."""
        await asyncio.sleep(self.delay_seconds)
        if self.error is not None:
            raise self.error
        self.frames.append(frame)
        return msgspec.structs.replace(frame, sender=self.name, receiver=frame.sender)

    async def standing(self, tx: str) -> Standing:
        """Answer with what it knows."""
        await asyncio.sleep(self.delay_seconds)
        if self.error is not None:
            raise self.error
        return Standing(
            self.name, 7, (f"desk:Trade/{tx}#1",), (Carried(f"desk:Trade/{tx}#0", False, "me"),), ("x:y#2",)
        )


class TransportConformance:
    """The suite. A subclass says how peers are reached."""

    def connect(self, peers: Mapping[str, Peer]) -> AbstractAsyncContextManager[Transport]:
        """Serve the peers; a transport that reaches them by name, and nobody else."""
        raise TypeError("say in the subclass how peers are reached")

    @pytest.mark.asyncio
    async def test_what_a_peer_knows_of_a_transaction_arrives_as_it_is(self) -> None:
        """A standing arrives whole, whatever stands in the transaction's id."""
        peer = Hearing("stock")
        async with self.connect({"stock": peer}) as transport:
            for tx in ("01ABC", "a/b c%2F#?"):
                assert await transport.standing("stock", tx) == await peer.standing(tx)

    @pytest.mark.asyncio
    async def test_a_frame_and_its_answer_arrive_as_they_are(self) -> None:
        """Every field of a frame and of its records arrives, there and back, at the peer that is named."""
        stock, order = Hearing("stock"), Hearing("order")
        async with self.connect({"stock": stock, "order": order}) as transport:
            sent = frame("desk", "stock", 3, msgspec.structs.replace(FULL, position=2), FULL)
            answer = await transport.exchange("stock", sent)
        assert len(stock.frames) == 1 and not order.frames
        assert msgspec.json.encode(stock.frames[0]) == msgspec.json.encode(sent)
        assert (answer.sender, answer.receiver, answer.upto, answer.ack) == ("stock", "desk", 3, Cursor("i2", 3))
        assert msgspec.json.encode(answer.records) == msgspec.json.encode(sent.records)

    @pytest.mark.parametrize("error", NAMED, ids=lambda error: error.__name__)
    @pytest.mark.asyncio
    async def test_what_a_peer_names_comes_back_by_name(self, error: type[HoldfastError]) -> None:
        """A peer's refusal is the same exception here, with its sentence: never taken for a lost connection."""
        stock = Hearing("stock")
        stock.error = error('what is wrong: 1 < 2 & "é"')
        async with self.connect({"stock": stock}) as transport:
            with pytest.raises(error) as caught:
                await transport.exchange("stock", frame("desk", "stock", 1))
            assert type(caught.value) is error and 'wrong: 1 < 2 & "é"' in str(caught.value)
            with pytest.raises(error):
                await transport.standing("stock", "TX")
            stock.error = None
            assert (await transport.exchange("stock", frame("desk", "stock", 1))).upto == 1

    @pytest.mark.asyncio
    async def test_who_is_not_there_is_unreachable(self) -> None:
        """A peer that nobody knows is Unreachable, by name, for both verbs."""
        async with self.connect({"stock": Hearing("stock")}) as transport:
            with pytest.raises(Unreachable, match="nobody"):
                await transport.exchange("nobody", frame("desk", "nobody", 1))
            with pytest.raises(Unreachable, match="nobody"):
                await transport.standing("nobody", "TX")

    @pytest.mark.asyncio
    async def test_many_at_once_get_their_own_answers(self) -> None:
        """Answers never change places, however many are on their way."""
        stock, order = Hearing("stock"), Hearing("order")
        stock.delay_seconds = 0.01
        async with self.connect({"stock": stock, "order": order}) as transport:
            names = ["stock", "order"] * 50
            found = await asyncio.gather(
                *(transport.exchange(name, frame("desk", name, n)) for n, name in enumerate(names))
            )
        assert [(one.sender, one.upto) for one in found] == [(name, n) for n, name in enumerate(names)]

    @pytest.mark.asyncio
    async def test_a_large_frame_arrives(self) -> None:
        """A frame as large as the exchange makes them goes through, both ways."""
        stock = Hearing("stock")
        data = b'"' + b"x" * (1024 * 1024) + b'"'
        records = [msgspec.structs.replace(FULL, position=n, data=data) for n in range(1, 8)]
        async with self.connect({"stock": stock}) as transport:
            answer = await transport.exchange("stock", frame("desk", "stock", 7, *records))
        assert [len(bytes(record.data)) for record in answer.records] == [len(data)] * 7

    @pytest.mark.asyncio
    async def test_a_call_that_is_given_up_harms_no_other(self) -> None:
        """A call cancelled on its way leaves the transport as it was."""
        stock = Hearing("stock")
        stock.delay_seconds = 30
        async with self.connect({"stock": stock}) as transport:
            for verb in (
                transport.exchange("stock", frame("desk", "stock", 1)),
                transport.standing("stock", "TX"),
            ):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await verb
            stock.delay_seconds = 0
            async with asyncio.timeout(5):
                assert (await transport.exchange("stock", frame("desk", "stock", 2))).upto == 2
