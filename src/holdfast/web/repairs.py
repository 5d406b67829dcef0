"""`POST /ops/repairs` and `/ops/plans`: an operator's repair of work that does not go on by itself, or its plan.

It repairs a restored store, a staged transaction, a waiting message or a saga. Each repair names the operator and the
reason, and the runtime records it. With `dry_run` nothing is written: the answer is the plan. Comes after trust is
checked (`web.app`). Fails with `Invalid`, `NotFound`, `Contradicted` and `Unavailable`.
"""

from typing import TypeVar

import msgspec

from holdfast.core.explain.plan import AnswerGiven, PeerRestored, StageResolved, StandingPlan, StoreRestored
from holdfast.errors import Invalid, Unavailable
from holdfast.runtime.node import Node
from holdfast.runtime.ops.plan import plan, plan_answer
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.resolve import resolve
from holdfast.runtime.ops.restore import peer_restored, restored
from holdfast.web.http import Request, Response, json_answer
from holdfast.web.masking import Masking

T = TypeVar("T")
KINDS = ("retry", "skip", "undo", "resolve", "restored", "peer_restored")


class RepairRequest(msgspec.Struct, forbid_unknown_fields=True):
    """An operator's repair of work that does not go on by itself."""

    kind: str
    by: str
    why: str
    target: str = ""
    """For `retry`, `skip`, `undo`, `resolve`: a message `service@position`, or a saga `Type/id`."""
    stream: str = ""
    """For a message that waits on several streams: the stream."""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """For `retry`: the payload that replaces the old one. For `resolve` as done: the outcome of the effect."""
    decision: str = ""
    """For `resolve`: `done`, `refused`, `undone`; for a staged transaction `commit` or `cancel`."""
    tx: str = ""
    """For `resolve`: the staged transaction."""
    cursors: dict[str, int] = {}
    """For `restored`: how far each peer had come in this log."""
    peer: str = ""
    """For `peer_restored`: the peer whose store was restored."""
    dry_run: bool = False
    """True: return the plan and write nothing."""


class RepairRoutes:
    """The handlers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._masking = Masking(node.service)

    async def repair(self, request: Request) -> Response:
        """Record a repair and carry it out, or return its plan."""
        asked = await _body(request, RepairRequest, "a repair")
        node = self._running()
        if asked.kind not in KINDS:
            raise Invalid(f"kind must be one of {', '.join(KINDS)}", errors=[("$.kind", "not a repair")])
        if asked.kind == "resolve" and asked.tx:
            return await self._staged(asked)
        if asked.kind in ("restored", "peer_restored"):
            return await self._restored(asked)
        data = asked.data if isinstance(asked.data, msgspec.Raw) and bytes(asked.data) != b"null" else None
        ask = Ask(asked.kind, asked.target, asked.by, asked.why, data, asked.decision, asked.stream)
        if asked.dry_run:
            return json_answer(self._masking.plan(await plan(node, ask)))
        return json_answer(await repair(node, ask))

    async def planned(self, request: Request) -> Response:
        """Return the plan of a saga here for an answer that a repair in another service would give."""
        given = await _body(request, AnswerGiven, "an answer")
        return json_answer(self._masking.plan(await plan_answer(self._running(), given)))

    async def _staged(self, asked: RepairRequest) -> Response:
        if asked.decision not in ("commit", "cancel"):
            raise Invalid("decision must be commit or cancel", errors=[("$.decision", "commit or cancel")])
        node, commit = self._running(), asked.decision == "commit"
        if asked.dry_run:
            standing = await node.standing(asked.tx)
            return json_answer(StandingPlan(**msgspec.structs.asdict(standing), dry_run=True))
        done = await resolve(node, asked.tx, commit=commit, by=asked.by, why=asked.why)
        return json_answer(StageResolved(asked.kind, **msgspec.structs.asdict(done)))

    async def _restored(self, asked: RepairRequest) -> Response:
        node = self._running()
        if asked.dry_run:
            raise Invalid("the repair of a restored store has no dry run", errors=[("$.dry_run", "not for this kind")])
        if asked.kind == "peer_restored":
            await peer_restored(node, asked.peer, by=asked.by, why=asked.why)
            return json_answer(PeerRestored(asked.kind, asked.peer))
        if bad := [peer for peer, at in asked.cursors.items() if not 0 <= at < 2**62]:
            raise Invalid(
                f"cursors.{bad[0]} must be a position, 0 or greater", errors=[(f"$.cursors.{bad[0]}", "not a position")]
            )
        first = await restored(node, asked.cursors, by=asked.by, why=asked.why)
        return json_answer(StoreRestored(asked.kind, first))

    def _running(self) -> Node:
        if not self._node.takes_work:
            raise Unavailable(f"{self._node.name} is not running")
        return self._node


async def _body(request: Request, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(await request.json_body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not {what}: {error}", errors=[("$", str(error))]) from None
