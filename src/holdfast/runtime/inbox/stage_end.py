"""The end of a staged transaction at a participant: its staged events are committed or dropped, its locks released.

Commands of the transaction that still wait are removed and answered `cancelled`. `runtime.inbox.receive` uses it if the
decision comes from the coordinator, `runtime.inbox.doubt` if it comes from somebody else. The writer comes next. Fails
with the error of an evolver that raises.
"""

import logging

from holdfast.core.declare.message import encode
from holdfast.core.saga.stage import DONE, Carried
from holdfast.errors import Rejected
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.stages import Stages
from holdfast.runtime.inbox.deliver import envelope_of
from holdfast.runtime.inbox.waiting import Removed, Waiting

logger = logging.getLogger("holdfast.received")


def end_stage(
    stages: Stages, waiting: Waiting, stage: str, commit: bool, decision: Decision, *, by: str = ""
) -> list[Removed]:
    """End a transaction here: commit or drop its staged events, and remove its waiting commands, which are returned."""
    removed = waiting.remove_stage(stage)
    for slot, _ in removed:
        message = slot.message
        decision.rows.append(slot.gone())
        no = Rejected("cancelled", "its transaction was cancelled")
        decision.reject(no, slot.stream, to=envelope_of(message.producer, message.record, decision.envelope.at))
    stages.carry_out(stage, decision, commit=commit, by=by)
    return removed


def end_stage_again(stages: Stages, known: Carried, commit: bool, decision: Decision) -> None:
    """Answer the coordinator if its transaction was resolved here before its decision came: done, or mixed."""
    if known.commit == commit:
        decision.vote(DONE, encode(Carried(known.stage, commit)))
    else:
        how = "committed" if known.commit else "cancelled"
        logger.error(
            "the staged transaction %s is mixed: %s %s it at %s, and its coordinator decided otherwise",
            known.stage,
            known.by,
            how,
            stages.service.name,
            extra={
                "service": stages.service.name,
                "stage": known.stage,
                "correlation_id": decision.envelope.correlation or decision.envelope.tx,
            },
        )
        decision.reject(Rejected("mixed", f"it was {how} here by {known.by}"), "")
    stages.forget(known.stage, decision)
