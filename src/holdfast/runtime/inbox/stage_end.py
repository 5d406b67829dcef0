"""The end of a staged transaction, carried out by a participant: all that it holds here is confirmed, or dropped.

Its commands that still wait are taken out and answered `cancelled`. Used when the coordinator tells its decision
(`runtime.inbox.receive`), and when others tell it (`runtime.inbox.doubt`). Fails with what evolving the held events
raises.
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
    """Carry out the end of a transaction on all that it holds here, and on what of it waits, which is taken out."""
    removed = waiting.remove_stage(stage)
    for slot, _ in removed:
        message = slot.message
        decision.rows.append(slot.gone())
        no = Rejected("cancelled", "its transaction was cancelled")
        decision.reject(no, slot.stream, to=envelope_of(message.producer, message.record, decision.envelope.at))
    stages.carry_out(stage, decision, commit=commit, by=by)
    return removed


def end_stage_again(stages: Stages, known: Carried, commit: bool, decision: Decision) -> None:
    """Answer the coordinator about what was resolved here before it could tell: done, or mixed."""
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
