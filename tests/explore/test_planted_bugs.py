"""Eight bugs of the classic kinds, planted: each passes an undisturbed run, and the fault explorer finds it.

Each is planted in the runtime's own classes and functions, so that forked workers have it too. It has to be found
within a number of schedules, named as one would expect, and shrunk to two faults at the most; the same schedules
without the bug find nothing, and the one that was found passes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from holdfast import Rejection
from holdfast.core.declare.effect import ATTEMPTED
from holdfast.core.declare.saga import SagaType
from holdfast.core.log.batch import Batch, CommitOutcome, Cursor
from holdfast.core.saga import advance
from holdfast.core.saga.progress import SagaState
from holdfast.core.wire.frame import Frame, check
from holdfast.ports.store import Store
from holdfast.runtime.decide.stages import Stages
from holdfast.runtime.exchange.conversation import AskingDriver
from holdfast.runtime.execute.effects import Effects
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.log.work import Work
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.timers import Timers
from holdfast.stores.memory import MemoryStore
from holdfast.testing import Found, Schedule, VirtualSystem, explore, replay
from holdfast.testing.explorer.search import Scenario
from support import scenarios
from support.systems import trades
from support.systems.deals import Deal, Fill

Patch = pytest.MonkeyPatch


def publish_outside_the_commit(patch: Patch) -> None:
    """Records are handed to peers and feeds before their commit is durable."""
    commit = Writer._commit

    async def publish_first(self: Writer, group: list[tuple[Work, Batch]]) -> Any:
        records = [record for _, batch in group for record in batch.records]
        placed = [msgspec.structs.replace(one, position=self.head + n) for n, one in enumerate(records, 1)]
        self._flushed([one for one in placed if one.destination])
        return await commit(self, group)

    def only_count(self: Writer, group: list[tuple[Work, Batch]], outcomes: list[CommitOutcome]) -> None:
        for (_, batch), outcome in zip(group, outcomes, strict=True):
            self.head = max(self.head, getattr(outcome, "position", 0) + len(batch.records) - 1)

    patch.setattr(Writer, "_commit", publish_first)
    patch.setattr(Writer, "_publish", only_count)


def acknowledge_before_the_commit(patch: Patch) -> None:
    """The receiver's cursor, and so its acknowledgement, is moved when the writer has the message."""
    receive = AskingDriver.receive

    async def eager(self: AskingDriver, frame: Frame) -> None:
        records = check(frame, self.party.name, self.party.peers, self.state.received_upto)
        task = asyncio.ensure_future(receive(self, frame))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        if records:
            self.state.durable = Cursor(frame.incarnation, records[-1].position)

    patch.setattr(AskingDriver, "receive", eager)


def undo_before_the_answer(patch: Patch) -> None:
    """A saga is undone, and ends, while a command of it has no answer; what is accepted late is ignored."""
    backward = advance._backward

    def hasty(saga: SagaType, state: SagaState) -> Any:
        waits, state.open = state.open, {}
        try:
            return backward(saga, state)
        finally:
            state.open = waits

    patch.setattr(advance, "_backward", hasty)


def repeat_an_effect(patch: Patch) -> None:
    """An attempt is not flushed before its call leaves: after a crash nobody knows of it, and it is made again."""
    note = Effects._note

    async def unflushed(self: Effects, stored: str, *rest: Any) -> None:
        if stored != ATTEMPTED:
            await note(self, stored, *rest)

    patch.setattr(Effects, "_note", unflushed)


def forget_an_undo(patch: Patch) -> None:
    """What is accepted after its command was cancelled is not undone."""
    backward = advance._backward

    def forgetful(saga: SagaType, state: SagaState) -> Any:
        answers = state.answers
        off = {version: Rejection("cancelled") for version in state.cancel_sent if version in answers}
        state.answers = answers | off
        try:
            return backward(saga, state)
        finally:
            state.answers = answers

    patch.setattr(advance, "_backward", forgetful)


def lose_timers(patch: Patch) -> None:
    """Timers are kept in memory alone: what was set before a start is not read."""

    async def nothing(self: Timers, store: Store) -> None:
        pass

    patch.setattr(Timers, "reload", nothing)


def decide_on_stale_state(patch: Patch) -> None:
    """State in memory outlives the flush that failed, and the store does not check what was read."""
    refusal = MemoryStore._refusal

    def unchecked(self: MemoryStore, batch: Batch) -> Any:
        return refusal(self, msgspec.structs.replace(batch, reads=()))

    patch.setattr(Streams, "clear", lambda self: None)
    patch.setattr(MemoryStore, "_refusal", unchecked)


def release_a_lock_early(patch: Patch) -> None:
    """A participant lets go of its stream with its vote; the decision finds what is held all the same."""
    hold = Stages.hold

    def unlocked(self: Stages, command: Any, stream: str, *rest: Any) -> None:
        hold(self, command, stream, *rest)
        self.held.pop(stream, None)

    patch.setattr(Stages, "hold", unlocked)


async def in_ring(system: VirtualSystem) -> None:
    """A deal whose undo is refused twice; its customer loses patience after a while."""
    for name in ("a", "b"):
        await system.ask(Fill(name), f"fill {name}")
    try:
        await system.ask(Deal("d", pays=False, return_refusals=2), "deal", seconds=600)
    except TimeoutError:
        pass


async def in_bank(system: VirtualSystem) -> None:
    """A staged trade takes what is on an account, and when it is done an ordinary command wants it too."""
    await system.ask(trades.Move("a", 100))
    await system.ask(trades.Trade("d", (("a", -80), ("b", 80)), (), ("tea",), "", (("leaf", 1),)))
    await asyncio.sleep(1)
    await system.ask(trades.Move("a", -80))


@dataclass
class Bug:
    """One of the eight."""

    plant: Callable[[Patch], None]
    made: Callable[[], Any]
    scenario: Scenario
    violation: str
    """The name of what is violated."""
    says: str
    """A part of what is said of it."""
    schedules: int
    """Within which it has to be found."""


BUGS = [
    Bug(publish_outside_the_commit, scenarios.shop, scenarios.in_shop, "causes", "was caused by", 250),
    Bug(acknowledge_before_the_commit, scenarios.shop, scenarios.in_shop, "settles", "sagas open", 250),
    Bug(undo_before_the_answer, scenarios.selling, scenarios.in_selling, "whole_sale", "not sold", 200),
    Bug(repeat_an_effect, scenarios.cards, scenarios.in_cards, "scenario", "'charge'", 150),
    Bug(forget_an_undo, scenarios.selling, scenarios.in_selling, "whole_sale", "not sold", 200),
    Bug(lose_timers, scenarios.ring, in_ring, "settles", "desk: 1 sagas open", 200),
    Bug(decide_on_stale_state, scenarios.shop, scenarios.in_shop, "NothingOversold", "more went than came in", 100),
    Bug(release_a_lock_early, scenarios.trading, in_bank, "NeverBelowZero", "overdrawn", 250),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.plant.__name__)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """It is invisible in the undisturbed run; found in so many schedules, by its name, with two faults at the most;
    without it the same schedules find nothing, and what was found passes."""
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        assert replay(bug.made, bug.scenario, Schedule()).violations == ()
        with pytest.raises(Found) as caught:
            explore(bug.made, bug.scenario, schedules=bug.schedules)
    found = caught.value
    print(f"{bug.plant.__name__}: {found.exploration.runs} schedules, {found.schedule}, {found.violations}")
    assert bug.violation in {one.invariant for one in found.violations}, found
    assert any(bug.says in one.says for one in found.violations), found
    assert 1 <= len(found.schedule.faults) <= 2
    runs = found.exploration.runs
    assert explore(bug.made, bug.scenario, schedules=runs).runs == runs
    replay(bug.made, bug.scenario, found.schedule)
