"""Given, when, then: an aggregate, a saga or a view alone, without a service, a store or a loop.

    given(StockItem, Restocked("tea", 5)).when(Reserve("tea", "o1", 2)).then(Reserved("tea", "o1", 2))
    given(StockItem, Restocked("tea", 5)).when(Reserve("tea", "o1", 9)).then_rejected("out_of_stock", available=5)
    given(CheckoutSaga, Checkout(...)).answered(CheckoutSaga.reserve, Reserved(...)).then_asks(Charge(...))
    given(OrderPage, Placed("o1")).when(Confirmed("o1")).then_row("o1", status="confirmed")

The class is compiled as a service would (`Misuse`). Everything handed over is encoded and decoded, as in a store. A
handler that should only decide and changes its state fails the test. A failure is an AssertionError that shows what
was expected and what was found.
"""

import copy
from collections.abc import Callable
from typing import Any, NoReturn, cast

from holdfast.core.declare.aggregate import DECIDE, EVOLVE, AggregateType, is_a, parameters
from holdfast.core.declare.escrow import check_commutes, decide
from holdfast.core.declare.message import Command, Context, Contract, Event, Rejection, encode, message_of, message_type
from holdfast.core.declare.saga import Answer, SagaType, Step
from holdfast.core.declare.view import ViewType
from holdfast.core.saga.advance import advance, answered, woken
from holdfast.core.saga.progress import (
    Answered,
    Asked,
    Begun,
    Cancelled,
    Completed,
    Progress,
    SagaCommitted,
    SagaState,
    Stuck,
    Undone,
    apply,
)
from holdfast.errors import Rejected

AT_US = 1_700_000_000_000_000


def given(cls: type[Any], *history: Event | Command[Any]) -> "Given":
    """A test of one class: events or commands that an aggregate has seen, what begins a saga, events of a view."""
    return Given(cls, history)


class Given:
    """A scenario: what has happened, what happens now, and what must follow. Every `then` may be followed by more."""

    def __init__(self, cls: type[Any], history: tuple[Any, ...]) -> None:
        members = vars(cls).values()
        self._case: _Aggregate | _Saga | _View
        if any(hasattr(member, DECIDE) for member in members):
            self._case = _Aggregate(cls)
        elif any(isinstance(member, Step) for member in members):
            self._case = _Saga(cls, history)
            return
        elif any(hasattr(member, EVOLVE) for member in members):
            self._case = _View(cls)
        else:
            raise AssertionError(f"{cls.__name__} has no @decide, no @step and no @evolve: there is nothing to test")
        for message in history:
            self._case.take(message)

    def when(self, *messages: Event | Command[Any], context: Context | None = None) -> "Given":
        """One command for an aggregate, or events for a view. `context`: for a decider that asks for one."""
        case = self._case
        if isinstance(case, _Aggregate):
            command = messages[0] if len(messages) == 1 else None
            if not isinstance(command, Command):
                _fail(f"when() of an aggregate takes one command, not {_list(messages)}")
            case.run(command, context)
        elif isinstance(case, _View):
            for message in messages:
                case.take(message)
        else:
            _fail("a saga is moved on with answered(step, event or Rejection)")
        return self

    def then(self, *events: Event) -> "Given":
        """The command was accepted, with exactly these events."""
        case = self._aggregate("then")
        if case.rejection is not None:
            _fail(f"expected {_list(events)}\nbut it was rejected: {_rejection(case.rejection)}")
        if case.events != events:
            _fail(f"expected {_list(events)}\ngot      {_list(case.events)}")
        return self

    def then_rejected(self, code: str, *events: Event, **facts: Any) -> "Given":
        """The command was rejected with this code, these facts among others, and exactly these events beside it."""
        case = self._aggregate("then_rejected")
        found = case.rejection
        if found is None:
            _fail(f"expected a rejection {code!r}\nbut it was accepted: {_list(case.events)}")
        differs = {name: value for name, value in facts.items() if found.facts.get(name, ...) != value}
        if found.code != code or differs:
            _fail(f"expected {_rejection(Rejected(code, **facts))}\ngot      {_rejection(found)}")
        if case.events != events:
            _fail(f"expected events beside the rejection: {_list(events)}\ngot {_list(case.events)}")
        return self

    def then_state(self, **fields: Any) -> "Given":
        """The aggregate's fields have these values now."""
        case = self._aggregate("then_state")
        if case.state is None:
            _fail("there is no state: nothing has happened")
        _compare("the state", case.type.shape.values(case.state), fields)
        return self

    def answered(self, step: "Step[Any] | str", *answers: Event | Rejection) -> "Given":
        """Answers to the open commands of a step, in the order they were asked, or to its undos once it is undone."""
        self._saga("answered").answer(_name(step), answers)
        return self

    def retried(self, step: "Step[Any] | str") -> "Given":
        """The delay before the next attempt of a rejected undo, or of a rejected step after the pivot, has passed."""
        self._saga("retried").retry(_name(step))
        return self

    def overdue(self, step: "Step[Any] | str") -> "Given":
        """The step's deadline has passed."""
        self._saga("overdue").wake(f"deadline:{_name(step)}", f"{_name(step)} waits for no answer")
        return self

    def then_asks(self, *commands: Command[Any]) -> "Given":
        """What happened last led to exactly these commands."""
        case = self._saga("then_asks")
        asked = tuple(item.command for item in case.last if isinstance(item, Asked))
        if asked != commands:
            _fail(f"expected to be asked {_list(commands)}\ngot {_list(asked)}\nthe saga is {case.status()}")
        return self

    def then_completed(self, event: Event | None = None) -> "Given":
        """The saga has completed (a staged one: is committed), with this answer if one is given."""
        case = self._saga("then_completed")
        ends = [item for item in case.last if isinstance(item, Completed | SagaCommitted)]
        if not ends:
            _fail(f"expected the saga to have completed just now; it is {case.status()}")
        if event is not None and ends[0].answer != event:
            _fail(f"expected the answer {event!r}\ngot {ends[0].answer!r}")
        return self

    def then_undone(self, code: str) -> "Given":
        """The saga has been undone (a staged one: is cancelled), for the reason with this code."""
        case = self._saga("then_undone")
        ends = [item for item in case.last if isinstance(item, Undone | Cancelled)]
        if not ends or ends[0].cause.code != code:
            _fail(f"expected the saga to be undone just now ({code}); it is {case.status()}")
        return self

    def then_stuck(self, step: "Step[Any] | str") -> "Given":
        """The saga is stuck at this step."""
        case = self._saga("then_stuck")
        if not any(isinstance(item, Stuck) and item.step == _name(step) for item in case.last):
            _fail(f"expected the saga to be stuck at {_name(step)}; it is {case.status()}")
        return self

    def then_row(self, key: object, **fields: Any) -> "Given":
        """The view's row of that key (a tuple for a composite one) has these values."""
        case = self._view("then_row")
        row = case.row(key)
        if row is None:
            _fail(f"there is no row {key!r}; there are {', '.join(sorted(case.rows)) or 'none'}")
        _compare(f"row {key!r}", case.type.shape.values(row), fields)
        return self

    def then_no_row(self, key: object) -> "Given":
        """The view has no row of that key."""
        if (row := self._view("then_no_row").row(key)) is not None:
            _fail(f"expected no row {key!r}, there is {vars(row)}")
        return self

    def _aggregate(self, verb: str) -> "_Aggregate":
        return self._case if isinstance(self._case, _Aggregate) else _fail(f"{verb}() is for aggregates")

    def _saga(self, verb: str) -> "_Saga":
        return self._case if isinstance(self._case, _Saga) else _fail(f"{verb}() is for sagas")

    def _view(self, verb: str) -> "_View":
        return self._case if isinstance(self._case, _View) else _fail(f"{verb}() is for views")


class _Aggregate:
    def __init__(self, cls: type[Any]) -> None:
        methods = [method for method in vars(cls).values() if hasattr(method, DECIDE)]
        hints, _ = parameters(methods[0], cls.__name__)
        commands = [hint for hint in hints.values() if is_a(hint, Command)]
        self.type = AggregateType(cls, message_type(commands[0]).contract if commands else "?")
        self.state: Any = None
        self.events: tuple[Event, ...] = ()
        self.rejection: Rejected | None = None

    def take(self, message: Event | Command[Any]) -> None:
        if isinstance(message, Event):
            self._evolve((message,))
            return
        self.run(message, None)
        if self.rejection is not None:
            _fail(f"given {message!r}\nbut it was rejected: {_rejection(self.rejection)}")

    def run(self, command: Command[Any], context: Context | None) -> None:
        command, kind = _stored(command), message_of(command)
        decider = self.type.deciders.get(kind.cls)
        if decider is None:
            _fail(f"{self.type.name} has no @decide for {type(command).__name__}")
        context = context or Context(AT_US, "test@1", kind.key_of(command), "test", "test")
        self.events, self.rejection = (), None
        if self.state is None and not decider.creates:
            self.rejection = Rejected("not_found", f"there is no {self.type.name}/{kind.key_of(command)}")
            return
        state = self.type.shape.new() if self.state is None else self.state
        with _Unchanged(state, f"{self.type.name}.{decider.method.__name__}"):
            try:
                events = decide(self.type, state, command, context)
            except Rejected as error:
                self.rejection, events = error, cast(tuple[Event, ...], error.events)
        self.events = events
        if wrong := check_commutes(self.type, state, events):
            _fail(f"{self.type.name}.{wrong}")
        self._evolve(events)

    def _evolve(self, events: tuple[Event, ...]) -> None:
        for event in events:
            if self.state is None:
                self.state = self.type.shape.new()
            self.type.evolve(self.state, _stored(event))
        if events:
            self.state = self.type.shape.decode(self.type.shape.encode(self.state))  # as a snapshot would have it


class _Saga:
    def __init__(self, cls: type[Any], history: tuple[Any, ...]) -> None:
        if len(history) != 1:
            _fail(f"given() of a saga takes the one message that begins it, not {_list(history)}")
        begin = _stored(history[0])
        self.type = SagaType(cls, _home_of(cls, begin), "start")
        if message_of(begin) is not self.type.begin:
            _fail(f"{cls.__name__} is begun by {self.type.begin.cls.__name__}, not {begin!r}")
        self.state = SagaState()
        self.last: list[Progress] = []
        begun = Begun(begin, self.type.fingerprint)
        apply(self.type, self.state, begun)
        self._move(lambda: advance(self.type, self.state))

    def answer(self, step: str, answers: tuple[Event | Rejection, ...]) -> None:
        self._known(step)
        state = self.state
        open_ = [v for v, asked in state.asked.items() if asked.step == step and v not in state.answers]
        if not answers or len(answers) > len(open_):
            asked = _list(tuple(state.asked[v].command for v in open_))
            _fail(f"{step}: {len(answers)} answers for what is open: {asked}\nthe saga is {self.status()}")
        moved: list[Progress] = []
        for version, given_ in zip(open_, answers, strict=False):
            self._check_answer(state.asked[version].command, given_)
            answer = given_ if isinstance(given_, Rejection) else _stored(given_)
            self._move(lambda to=version, found=answer: answered(self.type, state, to, found))
            moved += self.last
        self.last = moved

    def retry(self, step: str) -> None:
        self._known(step)
        rejected = [item.to for item in self._answers(step) if isinstance(item.answer, Rejection)]
        if not rejected:
            _fail(f"{step}: nothing of it was rejected; the saga is {self.status()}")
        self.wake(f"retry:{rejected[-1]}", f"{step} is not tried again; the saga is {self.status()}")

    def wake(self, timer: str, otherwise: str) -> None:
        self._known(timer.partition(":")[2] if timer.startswith("deadline:") else "")
        self._move(lambda: woken(self.type, self.state, timer))
        if not self.last:
            _fail(otherwise)

    def status(self) -> str:
        state = self.state
        waits = [repr(asked.command) for v, asked in state.asked.items() if v not in state.answers]
        text = state.status if state.cause is None else f"{state.status} ({state.cause.code})"
        text += f": {state.stuck.cause}" if state.stuck else ""
        return text + (f", waiting for {'; '.join(waits)}" if waits and not state.ended else "")

    def _answers(self, step: str) -> list[Answered]:
        asked, answers = self.state.asked, self.state.answers
        return [Answered(v, answers[v]) for v, item in asked.items() if item.step == step and v in answers]

    def _move(self, move: Callable[[], list[Progress]]) -> None:
        with _Unchanged(self.state.instance, self.type.name):
            self.last = move()
        for item in self.last:
            if isinstance(item, Asked):
                _stored(item.command)

    def _known(self, step: str) -> None:
        if step and step not in self.type.by_name:
            _fail(f"{self.type.name} has no step {step!r}; it has {', '.join(self.type.by_name)}")

    @staticmethod
    def _check_answer(command: Any, answer: object) -> None:
        kinds = message_of(command).answers
        if not isinstance(answer, (Rejection, *kinds)):
            _fail(f"{command!r} is answered by {_names(kinds)} or a Rejection, not {answer!r}")


class _View:
    def __init__(self, cls: type[Any]) -> None:
        self.type = ViewType(cls, "test")
        self.rows: dict[str, Any] = {}

    def take(self, event: Any) -> None:
        if type(event) not in self.type.evolvers:
            _fail(f"{self.type.name} has no @evolve for {event!r}")
        event = _stored(event)
        shape = self.type.shape
        for key in self.type.keys(event):
            row = self.rows[key] if key in self.rows else shape.new()
            self.type.evolve(row, event, key)
            self.rows[key] = shape.decode(shape.encode(row))

    def row(self, key: object) -> Any:
        parts = cast(tuple[object, ...], key) if isinstance(key, tuple) else (key,)
        return self.rows.get("/".join(str(part).replace("%", "%25").replace("/", "%2F") for part in parts))


class _Unchanged:
    """Around something that only decides: afterwards the instance is what it was."""

    def __init__(self, instance: Any, where: str) -> None:
        self._instance, self._where = instance, where
        self._before = copy.deepcopy(cast(dict[str, Any], vars(instance)))

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        after = cast(dict[str, Any], vars(self._instance))
        for name in sorted({*self._before, *after}):
            first = getattr(cast(type[Any], type(self._instance)), name, None)
            if (old := self._before.get(name, first)) != (new := after.get(name, first)):
                _fail(f"{self._where} decides, so it may not change anything; it changed {name}: {old!r} -> {new!r}")


def _home_of(cls: type[Any], begin: Any) -> Contract:
    """The contract of the service a saga would belong to."""
    for member in vars(cls).values():
        if isinstance(member, Answer):
            found = cast(Answer[Any], member)
            _, returned = parameters(found.function, cls.__name__)
            if is_a(returned, Event):
                return message_type(returned).home
    return message_of(begin).home


def _stored(message: Any) -> Any:
    """The message as it comes back from a store."""
    kind = message_of(message)
    found = kind.decode(encode(message))
    if found != message:
        _fail(f"{message!r}\ncomes back from a store as\n{found!r}")
    return found


def _compare(what: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if name not in found:
            _fail(f"{what} has no field {name!r}; it has {', '.join(found)}")
        if found[name] != value:
            _fail(f"{what}: expected {name}={value!r}\ngot {name}={found[name]!r}")


def _name(step: "Step[Any] | str") -> str:
    return step if isinstance(step, str) else step.name


def _names(classes: tuple[type[Any], ...]) -> str:
    return " or ".join(cls.__name__ for cls in classes)


def _list(messages: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, messages)) or "nothing"


def _rejection(error: Rejected) -> str:
    facts = "".join(f", {name}={value!r}" for name, value in error.facts.items())
    return f"{error.code}{facts}" + (f" ({error.message})" if error.message != error.code else "")


def _fail(text: str) -> NoReturn:
    raise AssertionError(text)
