"""Words as a test: log lines and errors are read out of context, so each is a sentence that says what it is about.

Each rule is a function from parsed modules to complaints, so that the last test can show it a sinner. What is not yet
mended is counted in `DEBT`, whose numbers only go down. `test_tidy.py` has the rules for code and for names.
"""

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from house.test_tidy import check, sources

REJECTED_PHRASES = {
    "a no": "a rejection, or that the vote is no",
    "a person": "an operator",
    "anew": "again",
    "fails never": "never raises",
    "feeds it not": "does not feed it",
    "has let go": "releases",
    "its turn comes": "it is still in the queue",
    "nobody can be asked": "there is no probe to ask",
    "nobody foresaw": "unexpected error",
    "what becomes of": "how it ends",
    "what hangs": "a hanging transaction, saga or effect",
    "where it can": "if it can",
    "who holds": "the transaction that holds",
    "who waits": "the caller that waits",
}
"""What log lines and errors may not say -> what they say instead. Of a phrase only whole words count."""

REJECTED_IN_DOCSTRINGS = ("a person's word", "anew", "fails never", "nobody foresaw")
"""The phrases that module headers and docstrings may not hold either."""

WORD = r"[a-z']+"
WORDS_MIN = 3
"""How many words a log line has at least, its placeholders not counted."""

LOG_METHODS = ("critical", "debug", "error", "exception", "info", "log", "warning")
SUBJECT_RINGS = ("host", "runtime", "stores", "transports", "web")
"""The rings in which several services may log side by side, so that a line has to say which one it is about."""
SUBJECTS = ("message", "peer", "service", "stream", "timer", "tx", "view")
"""The keys of `extra` that say what a line is about."""
ERRORS = ("cause", "error", "told")
"""Variables that hold the exception: what went wrong, not what it is about."""

PROCESS_WIDE: dict[str, str] = {}
"""Log lines that are about the whole process: `path: message` -> why they name no subject."""

DEBT = {"log lines": 0, "subjects": 0, "errors": 0, "docstrings": 0}
"""Rule -> how many places still break it. The numbers only go down: whoever mends a place lowers its number."""


def phrases(text: str, rejected: tuple[str, ...] = tuple(REJECTED_PHRASES)) -> list[str]:
    """The rejected phrases in a text, whatever its lines and its capitals are."""
    plain = f" {' '.join(re.findall(WORD, text.lower()))} "
    return [phrase for phrase in rejected if f" {phrase} " in plain]


def log_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, list[ast.expr]]]:
    """(call, its message and the arguments of it) of every log line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(method := node.func, ast.Attribute):
            owner = method.value
            if isinstance(owner, ast.Name) and owner.id == "logger" and method.attr in LOG_METHODS:
                yield node, node.args[1:] if method.attr == "log" else node.args


def constant(arguments: list[ast.expr]) -> str | None:
    """The message of a log line, if it is a constant."""
    message = arguments[0] if arguments else None
    return message.value if isinstance(message, ast.Constant) and isinstance(message.value, str) else None


def poor_log_lines(name: str, tree: ast.Module) -> list[str]:
    """Log lines whose message is no constant, is shorter than a part of a sentence, or holds a rejected phrase."""
    found: list[str] = []
    for call, arguments in log_calls(tree):
        message = constant(arguments)
        if message is None:
            found.append(f"{name}:{call.lineno} logs a message that is no constant")
            continue
        if len(re.findall(WORD, re.sub(r"%[\d.]*[a-z]", " ", message.lower()))) < WORDS_MIN:
            found.append(f"{name}:{call.lineno} logs {message!r}, which is no part of a sentence")
        found += [f"{name}:{call.lineno} logs {phrase!r}: {REJECTED_PHRASES[phrase]}" for phrase in phrases(message)]
    return found


def identifies(call: ast.Call, arguments: list[ast.expr]) -> bool:
    """True when a log line has an argument beside the exception, or an `extra` that says what it is about."""
    if any(not (isinstance(value, ast.Name) and value.id in ERRORS) for value in arguments[1:]):
        return True
    extras = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
    keys = [key for extra in extras if isinstance(extra, ast.Dict) for key in extra.keys]
    return any(isinstance(key, ast.Constant) and key.value in SUBJECTS for key in keys)


def without_subject(name: str, tree: ast.Module) -> dict[str, str]:
    """`path: message` of a log line that does not say which service, stream, message or peer it is about -> where."""
    if name.partition("/")[0] not in SUBJECT_RINGS:
        return {}
    return {
        f"{name}: {constant(arguments)}": f"{name}:{call.lineno} logs {constant(arguments)!r}, and not of what"
        for call, arguments in log_calls(tree)
        if not identifies(call, arguments)
    }


def poor_errors(name: str, tree: ast.Module) -> list[str]:
    """Exceptions raised with a text, constant or formatted, that holds a rejected phrase."""
    return [
        f"{name}:{text.lineno} raises {phrase!r}: {REJECTED_PHRASES[phrase]}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None
        for text in ast.walk(node.exc)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
        for phrase in phrases(text.value)
    ]


def poor_docstrings(name: str, tree: ast.Module) -> list[str]:
    """Headers and docstrings, those of attributes too, that hold a rejected phrase."""
    return [
        f"{name}:{node.lineno} says {phrase!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for phrase in phrases(node.value.value, REJECTED_IN_DOCSTRINGS)
    ]


def owe(rule: str, complaints: list[str]) -> None:
    """Fail unless a rule is broken exactly as often as `DEBT` says."""
    if len(complaints) != DEBT[rule]:
        check([f"{rule}: {len(complaints)}, and DEBT says {DEBT[rule]}", *complaints])


def over(rule: Callable[[str, ast.Module], list[str]]) -> list[str]:
    """What a rule finds in the whole package."""
    return [text for name, tree, _ in sources() for text in rule(name, tree)]


def test_log_lines_are_sentences() -> None:
    """The message of every log line is a constant part of a sentence, and none holds a rejected phrase."""
    owe("log lines", over(poor_log_lines))


def test_log_lines_name_their_subject() -> None:
    """A log line says which service, stream, message or peer it is about; exceptions have a reason, and are needed."""
    found = {key: text for name, tree, _ in sources() for key, text in without_subject(name, tree).items()}
    check([f"{key!r} needs no exception any more" for key in PROCESS_WIDE if key not in found])
    owe("subjects", [text for key, text in found.items() if key not in PROCESS_WIDE])


def test_errors_are_sentences() -> None:
    """No exception is raised with a text that holds a rejected phrase."""
    owe("errors", over(poor_errors))


def test_docstrings_hold_no_rejected_phrase() -> None:
    """No module header and no docstring holds one of the phrases that are rejected there."""
    owe("docstrings", over(poor_docstrings))


SINNER = '''"""A store, made
anew. Fails never; by a person's word."""
LIMIT = 1
"""In a way nobody foresaw."""
def sin(logger, told, error, name):
    logger.error("%s: it failed", name)
    logger.warning(f"the feed of {name} fails: {error}")
    logger.exception("the feed failed in a way nobody foresaw: %s", error)
    logger.log(30, "the feed is begun Anew", extra={"stream": name})
    logger.info("the store cannot be read: %s", error, extra={"batches": 1})
    raise Misuse("its turn comes") from None
    raise Busy(f"{name} waits for a person") if told else Busy("a person's word, a note, who waited")
'''


def test_the_rules_can_fail() -> None:
    """Each rule finds what was planted, and nothing else there."""
    tree = ast.parse(SINNER)
    assert poor_log_lines("web/x.py", tree) == [
        "web/x.py:6 logs '%s: it failed', which is no part of a sentence",
        "web/x.py:7 logs a message that is no constant",
        "web/x.py:8 logs 'nobody foresaw': unexpected error",
        "web/x.py:9 logs 'anew': again",
    ]
    assert list(without_subject("web/x.py", tree)) == [
        "web/x.py: None",
        "web/x.py: the feed failed in a way nobody foresaw: %s",
        "web/x.py: the store cannot be read: %s",
    ]
    assert without_subject("demo/x.py", tree) == {}
    assert poor_errors("x", tree) == [
        "x:11 raises 'its turn comes': it is still in the queue",
        "x:12 raises 'a person': an operator",
    ]
    assert poor_docstrings("x", tree) == [
        'x:1 says "a person\'s word"',
        "x:1 says 'anew'",
        "x:1 says 'fails never'",
        "x:4 says 'nobody foresaw'",
    ]
    with pytest.raises(pytest.fail.Exception, match="and DEBT says"):
        owe("log lines", [*[""] * DEBT["log lines"], "one more"])
