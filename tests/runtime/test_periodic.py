"""What is done every so often: only where there is work, also after it has failed, and not after the end."""

import asyncio

import pytest

from holdfast.runtime.tasks import Periodic
from holdfast.testing import virtual_time


class Work:
    """Work that may be wanted, may fail, and takes its time."""

    def __init__(self) -> None:
        self.wanted, self.fails, self.seconds = True, False, 0.0
        self.begun: list[float] = []
        self.ended = 0

    async def do(self) -> None:
        """Do it once."""
        self.begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("dropped it")
        self.ended += 1

    def periodic(self) -> Periodic:
        """It, every second."""
        return Periodic(1.0, lambda: self.wanted, self.do)


@virtual_time
async def test_it_is_done_where_there_is_work() -> None:
    """Every second there is a look, and work only where it is wanted; the next look comes a second after its end."""
    work = Work()
    work.seconds = 0.5
    periodic = work.periodic()
    periodic.start()
    await asyncio.sleep(3.0)
    work.wanted = False
    await asyncio.sleep(10.25)
    work.wanted = True
    await asyncio.sleep(1.0)
    await periodic.stop()
    assert work.begun == [1.0, 2.5, 14.0]


@virtual_time
async def test_a_failure_is_logged_and_the_next_look_comes(caplog: pytest.LogCaptureFixture) -> None:
    """What fails is logged with its name; a second later it is done again."""
    work = Work()
    work.fails = True
    periodic = work.periodic()
    periodic.start()
    await asyncio.sleep(1.5)
    work.fails = False
    await asyncio.sleep(1.0)
    await periodic.stop()
    assert work.begun == [1.0, 2.0] and work.ended == 1
    assert [record.message for record in caplog.records] == ["unexpected error in Work.do; it runs again in 1 s"]
    assert "dropped it" in caplog.text


@virtual_time
async def test_a_look_that_fails_is_logged_and_the_next_comes(caplog: pytest.LogCaptureFixture) -> None:
    """Where it cannot be said whether there is work there is none this time; a second start changes nothing."""
    looked: list[float] = []

    def wanted() -> bool:
        looked.append(asyncio.get_running_loop().time())
        if len(looked) == 1:
            raise RuntimeError("lost the list")
        return False

    periodic = Periodic(1.0, wanted, Work().do)
    periodic.start()
    periodic.start()
    await asyncio.sleep(3.5)
    await periodic.stop()
    assert looked == [1.0, 2.0, 3.0] and caplog.text.count("unexpected error") == 1


@virtual_time
async def test_after_the_end_nothing_is_done() -> None:
    """A stop leaves off what is being done, and what would be looked at next; it may come before a start."""
    work = Work()
    work.seconds = 5.0
    await work.periodic().stop()
    periodic = work.periodic()
    periodic.start()
    await asyncio.sleep(2.0)
    await periodic.stop()
    await asyncio.sleep(20.0)
    assert work.begun == [1.0] and work.ended == 0
    work.seconds = 0.0
    other = work.periodic()
    other.start()
    await asyncio.sleep(1.0)  # its work has ended at this very instant; that is noticed after the stop
    await other.stop()
    await asyncio.sleep(20.0)
    assert len(work.begun) == 2
