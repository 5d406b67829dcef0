"""The surface of every service over HTTP: the one table of its routes, as values.

The app mounts a handler for each row (`web.app`), the description has an operation for each (`web.openapi`), and a page
of the docs must name each. A user's route may not begin with the first part of a path in this table (`RESERVED`). Rows
do not depend on a node; the row of one command or view is made from the general row. Comes before all of those.
"""

import functools
from typing import Annotated, Any

import msgspec

from holdfast.core.declare.message import MessageType
from holdfast.core.explain.overview import (
    AggregateList,
    AggregateStatus,
    LogPage,
    ProgressStatus,
    RecordList,
    SagaDetail,
    SagaEntries,
    SagaList,
    StageList,
    ViewRebuild,
    WaitingList,
)
from holdfast.core.explain.plan import (
    AnswerGiven,
    PeerRestored,
    Plan,
    RepairResult,
    StageResolved,
    StandingPlan,
    StoreRestored,
)
from holdfast.core.explain.status import WhyAnswer
from holdfast.core.log.key import LABEL_CHARACTERS_MAX
from holdfast.core.saga.stage import Standing
from holdfast.core.wire.cloudevent import BATCH_TYPE, CloudEvent
from holdfast.core.wire.frame import Frame
from holdfast.runtime.feeds.views import AT_LEAST_SECONDS_MAX
from holdfast.runtime.node import FEED_WAIT_SECONDS_MAX
from holdfast.runtime.ops.audit import Reading
from holdfast.web import metrics
from holdfast.web.commands import CORRELATION, WAIT_SECONDS_MAX
from holdfast.web.events import EVENTS_DEFAULT, EVENTS_MAX
from holdfast.web.http import FRAME_BODY_BYTES_MAX
from holdfast.web.ops import BRIEF_MAX, PAGE_DEFAULT, PAGE_MAX, STATUSES, TRAIL_MAX
from holdfast.web.repairs import RepairRequest
from holdfast.web.routes import Parameter, Route
from holdfast.web.trust import Guard

PUBLIC, PEER, READER, OPERATOR = Guard.PUBLIC, Guard.PEER, Guard.READER, Guard.OPERATOR

Label = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=LABEL_CHARACTERS_MAX, pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"),
]
Position = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e9)]
Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]


def _limit(usual: int, most: int) -> Parameter:
    return Parameter("limit", Annotated[int, msgspec.Meta(ge=0, le=most)], f"How many at most; {usual} if not given.")


ASKING = (
    Parameter("Idempotency-Key", Label, "The same key gets the recorded answer.", "header"),
    Parameter(CORRELATION, Label, "A label that all that follows carries.", "header"),
    Parameter(
        "Prefer",
        str,
        f"respond-async: a 202 at once; wait=SECONDS (at most {WAIT_SECONDS_MAX:g}): how long to wait.",
        "header",
    ),
)
"""The parameters of a command."""
DECIDED = {200: "The event that accepts it", 202: "Taken; Location says where its outcome will be"}
"""The statuses of the answer to a command."""
LOOKING = (
    Parameter("transaction", str, "Wait until the view has all of this committed transaction."),
    Parameter("at_least", str, "service@position[,..]: wait until the view has seen it."),
    Parameter("wait", Seconds, f"Seconds to wait for it; at most {AT_LEAST_SECONDS_MAX:g} count."),
)
"""The parameters of a view."""
FEED = (
    Parameter("after", Position, "Position after which to begin."),
    _limit(EVENTS_DEFAULT, EVENTS_MAX),
    Parameter("types", str, "Stored types, separated by commas; none: all."),
    Parameter("wait", Annotated[float, msgspec.Meta(ge=0, le=FEED_WAIT_SECONDS_MAX)], "Seconds to wait for the first."),
    Parameter("incarnation", str, "Of the position: Holdfast-Incarnation of its page."),
)
FILTERS = (
    Parameter("cause", str, "A part of what it waits for or failed with."),
    Parameter("type", str, "Stored type of the message."),
    Parameter("fingerprint", str, "Of the failure."),
    Parameter("from", str, "The service that sent the message."),
    Parameter("stream", str, "The stream it is for."),
    Parameter("message", str, "The message, `service@position`."),
    Parameter("tx", str, "The transaction."),
    Parameter("older", Position, "Seconds since it began, at least."),
)
"""The parameters of lists of work that does not go on by itself."""


def _after(what: str) -> tuple[Parameter, ...]:
    return (
        Parameter("after", str, f"{what} after which to begin: `next` of the page before."),
        _limit(PAGE_DEFAULT, PAGE_MAX),
    )


TRAIL = (
    Parameter("tx", str, "A transaction; exactly one of the three is given."),
    Parameter("correlation", str, "A label."),
    Parameter("stream", str, "A stream, `Type/key`."),
    _limit(PAGE_MAX, TRAIL_MAX),
)
LOG = (
    Parameter("after", Position, "Position after which to begin."),
    _limit(PAGE_DEFAULT, BRIEF_MAX),
    Parameter("brief", Flag, "1: as an audit reads them."),
)
SAGAS = (Parameter("status", str, f"One of {', '.join(STATUSES)}."), *_after("Id"))
STAGES = (Parameter("tx", str, "Only of this transaction, with what is known of it."),)
WHY = (Parameter("id", str, "Any id; exactly one of the two is given."), Parameter("tx", str, "A transaction."))
OPEN = (*_after("Id"), *FILTERS)
PARKED = (Parameter("all", Flag, "1: whatever waits."), *FILTERS)
AT = (Parameter("at", Position, "A position of the log; none: now."),)

COMMAND = Route(
    "POST",
    "/commands/{type}",
    PUBLIC,
    "command",
    "A command, also by an older version of its stored name",
    "commands",
    ASKING,
    body=Any,
    statuses=DECIDED,
)
VIEW = Route("GET", "/views/{view}/{key}", PUBLIC, "view", "One row of a view", "views", LOOKING, answer=Any)
EXCHANGE = Route(
    "POST",
    "/exchange",
    PEER,
    "exchange",
    "Take a peer's frame and answer with one",
    "exchange",
    body=Frame,
    answer=Frame,
    body_bytes_max=FRAME_BODY_BYTES_MAX,
)
EVENTS = Route(
    "GET", "/events", PEER, "events", "The feed", "feed", FEED, answer=list[CloudEvent], media_type=BATCH_TYPE
)
METRICS = Route(
    "GET", "/metrics", PUBLIC, "metrics", "For Prometheus", "health", answer=str, media_type=metrics.MEDIA_TYPE
)
REBUILD = Route(
    "POST",
    "/ops/views/{view}/rebuild",
    OPERATOR,
    "rebuild",
    "Rebuild a view; the old one serves meanwhile",
    "ops",
    answer=ViewRebuild,
    statuses={202: "It is being built"},
)

ROUTES: tuple[Route, ...] = (
    COMMAND,
    Route("GET", "/transactions/{tx}", PUBLIC, "transaction", "A command's outcome", "commands"),
    VIEW,
    EVENTS,
    EXCHANGE,
    Route("GET", "/exchange/{tx}", PEER, "standing", "A staged transaction's standing", "exchange", answer=Standing),
    Route("GET", "/healthz", PUBLIC, "healthz", "The process lives", "health"),
    Route("GET", "/readyz", PUBLIC, "readyz", "The service takes work", "health"),
    METRICS,
    Route("GET", "/openapi.json", PUBLIC, "openapi", "This description", "health"),
    Route(
        "GET",
        "/ops/trail",
        READER,
        "trail",
        "Every record here that belongs to one id",
        "ops",
        TRAIL,
        answer=RecordList,
    ),
    Route(
        "GET", "/ops/log", READER, "log", "Records of every kind after a position", "ops", LOG, answer=LogPage | Reading
    ),
    Route("GET", "/ops/progress", READER, "progress", "How far everything is", "ops", answer=ProgressStatus),
    Route("GET", "/ops/sagas", READER, "sagas", "Sagas that have not ended", "ops", SAGAS, answer=SagaEntries),
    Route(
        "GET",
        "/ops/sagas/{id}",
        READER,
        "saga",
        "One saga: what was asked, answered and undone",
        "ops",
        answer=SagaDetail,
    ),
    Route(
        "GET",
        "/ops/stages",
        READER,
        "stages",
        "Streams that staged transactions hold, and the messages that wait",
        "ops",
        STAGES,
        answer=StageList,
    ),
    Route(
        "GET",
        "/ops/why",
        READER,
        "why",
        "All that is known here of an id, or of one transaction",
        "ops",
        WHY,
        answer=WhyAnswer,
    ),
    Route("GET", "/ops/stuck", READER, "stuck", "Sagas that need an operator", "ops", OPEN, answer=SagaList),
    Route("GET", "/ops/parked", READER, "parked", "Messages that are parked", "ops", PARKED, answer=WaitingList),
    Route(
        "GET", "/ops/unsettled", READER, "unsettled", "Sagas that have not ended, and why", "ops", OPEN, answer=SagaList
    ),
    Route(
        "GET",
        "/ops/aggregates/{type}",
        READER,
        "aggregates",
        "Aggregates of one type",
        "ops",
        _after("Key"),
        answer=AggregateList,
    ),
    Route(
        "GET",
        "/ops/aggregates/{type}/{key}",
        READER,
        "aggregate",
        "One aggregate, now or earlier",
        "ops",
        AT,
        answer=AggregateStatus,
    ),
    REBUILD,
    Route(
        "POST",
        "/ops/repairs",
        OPERATOR,
        "repair",
        "A repair, or what it would do",
        "ops",
        body=RepairRequest,
        answer=RepairResult | Plan | StageResolved | StandingPlan | StoreRestored | PeerRestored,
    ),
    Route(
        "POST",
        "/ops/plans",
        OPERATOR,
        "plan",
        "What a saga here would do with an answer",
        "ops",
        body=AnswerGiven,
        answer=Plan,
    ),
)
"""The routes of every service, beside its own."""
RESERVED = frozenset(route.path.split("/")[1] for route in ROUTES)
"""First parts of a path that a service's own routes may not use."""


def command_route(message: MessageType) -> Route:
    """The row of one command: at its stored name, with its own body and answers."""
    answers: tuple[Any, ...] = tuple(message.answers)
    return msgspec.structs.replace(
        COMMAND,
        path=f"/commands/{message.stored}",
        name=f"command.{message.stored}",
        summary=summary_of(message.cls),
        body=message.cls,
        answer=functools.reduce(lambda one, other: one | other, answers),
    )


def view_route(view: str, row: Any) -> Route:
    """The row of one view, with the type of its rows. It is only described: the general route answers it."""
    return msgspec.structs.replace(
        VIEW, path=f"/views/{view}/{{key}}", name=f"view.{view}", summary=f"One row of {view}", answer=row
    )


def summary_of(documented: Any) -> str:
    """The first line of a docstring; the name of the class or function if it has none."""
    return (documented.__doc__ or documented.__name__).strip().splitlines()[0]
