"""What an operator can do about a running saga, and what that leads to: retry, skip, undo, close by hand.

`actions` lists the repairs that are possible and says what each would do. `repaired` carries one out: it returns the
repair itself, then all the progress that follows from it. Both are pure, so a plan is the same call on a copy of the
state. Comes after `core.saga.advance`; `runtime.ops.repair` records the result. Fails with `Contradicted` if a verb
cannot be carried out, and says why.
"""

from typing import Any, Literal

import msgspec

from holdfast.core.declare.message import Rejection, message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.saga.advance import advance, cancelled, past_return
from holdfast.core.saga.progress import Asked, CarriedOut, Completed, Progress, Repaired, SagaState, Undone, apply
from holdfast.errors import Contradicted

Verb = Literal["retry", "skip", "undo", "done", "undone"]


class Action(msgspec.Struct, frozen=True):
    """One repair that is possible, and what it would do."""

    verb: str
    """`retry`, `skip`, `undo` or `resolve`."""
    target: str
    """The id of the record, saga or transaction to repair."""
    does: str
    """What the repair would lead to, as a sentence without its subject."""
    flags: str = ""
    """The further arguments that the command line takes."""

    @property
    def typed(self) -> str:
        """The repair as an operator types it after `holdfast`."""
        return " ".join(filter(None, (self.verb, self.target, self.flags)))


def actions(saga: SagaType, state: SagaState, stream: str) -> tuple[Action, ...]:
    """The repairs that are possible for this saga now."""
    found: list[Action] = []
    verbs: tuple[Literal["retry", "skip", "undo"], ...] = ("retry", "skip", "undo")
    found += [Action(verb, stream, _does(saga, state, verb)) for verb in verbs if not refusal(saga, state, verb)]
    if state.status == "stuck":
        found += [
            Action("resolve", stream, f"closes it by hand as {way}: nothing more is asked of anybody", f"--{way}")
            for way in ("done", "undone")
            if not refusal(saga, state, way)
        ]
    return tuple(found)


def repaired(saga: SagaType, state: SagaState, verb: Verb, by: str, why: str) -> list[Progress]:
    """Carry out an operator's repair; all that follows is folded into the state. Raises Contradicted."""
    if no := refusal(saga, state, verb):
        raise Contradicted(no)
    stuck = state.stuck
    word = Repaired(verb, by, why)
    apply(saga, state, word)
    done: list[Progress] = [word]
    if verb == "undo":
        cause = Rejection("undone", f"undone by {by}: {why}", {"by": by, "why": why})
        return [*done, *cancelled(saga, state, cause)]
    if verb == "retry" and stuck is not None:
        asked = state.asked[stuck.to]
        again = Asked(asked.step, asked.index, asked.command, 0, asked.undoes)
        apply(saga, state, again)
        done.append(again)
    elif verb in ("done", "undone") and not state.ended:
        end = _end(saga, state, verb, by, why)
        apply(saga, state, end)
        return [*done, end]
    return [*done, *([] if state.ended else advance(saga, state))]


def refusal(saga: SagaType, state: SagaState, verb: str) -> str:
    """Why a verb cannot be carried out; empty when it can."""
    stuck = state.stuck
    if state.ended:
        return f"the saga has ended: {state.status}"
    if stuck is not None and stuck.cause.startswith("unknown_shape"):
        return "its steps are declared otherwise now: run the release that knows its shape, or declare it so again"
    if verb == "undo":
        return _no_undo(saga, state)
    if stuck is None:
        return f"the saga is {state.status}, not stuck"
    if verb in ("retry", "skip"):
        if not stuck.to:
            return f"it is not stuck at a command: {stuck.cause}; it can be closed by hand"
        return _no_skip(saga, state, state.asked[stuck.to]) if verb == "skip" else ""
    if verb == "done" and not saga.staged and not state.concluded and saga.answer is not None:
        missing = [name for name in saga.answer.inputs if not _has(saga, state, name)]
        if missing:
            return f"its answer is made of what {', '.join(missing)} answered, which is not there: close it as undone"
    if verb == "undone" and state.concluded and not saga.staged and state.resumes == "completed":
        return "its caller was told that it is done: it cannot be closed as undone"
    return ""


def _no_undo(saga: SagaType, state: SagaState) -> str:
    if state.status != "running":
        return f"the saga is {state.status}: only a running one can be undone"
    if not saga.staged and past_return(saga, state):
        return f"{saga.steps[saga.pivot].name}, its point of no return, was asked: it can only go forward"
    return ""


def _no_skip(saga: SagaType, state: SagaState, asked: Asked) -> str:
    """Whether a command can be skipped: an undo always, a step after the pivot only if no later step takes its
    answer."""
    step = saga.steps[saga.by_name[asked.step]]
    if asked.undoes or step.partial:
        return ""
    later = [one.name for one in saga.steps if asked.step in one.inputs and one.name not in state.latest]
    if saga.answer is not None and asked.step in saga.answer.inputs and not state.concluded:
        later.append("the answer")
    return f"{', '.join(later)} takes what {asked.step} answers: it cannot be passed over" if later else ""


def _has(saga: SagaType, state: SagaState, name: str) -> bool:
    versions = state.latest.get(name, {}).values()
    partial = saga.steps[saga.by_name[name]].partial
    if not versions:
        return name in state.skipped
    answers = [state.answers.get(version) for version in versions]
    return all(found is not None and (partial or not isinstance(found, Rejection)) for found in answers)


def _end(saga: SagaType, state: SagaState, verb: str, by: str, why: str) -> Progress:
    if saga.staged:
        return CarriedOut()
    if verb == "undone":
        return Undone(Rejection("resolved", f"closed by {by}: {why}", {"by": by, "why": why}))
    if saga.answer is None:
        return Completed()
    found: list[Any] = []
    for name in saga.answer.inputs:
        answers = [state.answers[version] for version in state.latest.get(name, {}).values()]
        found.append(answers if saga.steps[saga.by_name[name]].group else (answers[0] if answers else None))
    return Completed(saga.answer.function(state.instance, *found))


def _does(saga: SagaType, state: SagaState, verb: str) -> str:
    if verb == "undo":
        accepted = [step.name for step in reversed(saga.steps) if step.undo and _accepted(state, step.name)]
        off = [asked.step for version, asked in state.asked.items() if version not in state.answers]
        parts = [f"calls {', '.join(dict.fromkeys(off))} off"] if off else []
        parts += [f"undoes {', '.join(accepted)}"] if accepted else []
        return "; ".join(parts) or "ends it as undone"
    asked = state.asked[state.stuck.to if state.stuck is not None else 0]
    what = f"the undo of {asked.step}" if asked.undoes else asked.step
    if verb == "retry":
        return f"asks {message_of(asked.command).contract} for {what} again"
    return f"passes over {what}, as if somebody had done it, and goes on"


def _accepted(state: SagaState, step: str) -> bool:
    versions = state.latest.get(step, {}).values()
    return any(v in state.answers and not isinstance(state.answers[v], Rejection) for v in versions)
