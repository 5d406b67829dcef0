"""The verbs of the command line, put together, and what an error looks like: one sentence, no traceback.

A verb's module is loaded when the verb is called: `holdfast --help` shows the lines of `VERBS` and loads none of them.
Comes before every verb's module. Exit codes: 0 the command succeeded, 1 something is wrong, 2 the command or a setting
is not understood.
"""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import holdfast
from holdfast.errors import ConfigInvalid, HoldfastError, Misuse

VERBS = {
    "run": "Run a system, or one service of it, until it is told to end (SIGTERM, Ctrl-C; twice: at once).",
    "events": "Show the events of a service, oldest first.",
    "why": "Tell what happened under an id, in every service, and why it does not go on.",
    "audit": "Judge the invariants of a system on its running services.",
    "trail": "Show what happened under an id, in every service, and what has not happened yet.",
    "sagas": "List the sagas that have not ended.",
    "stages": "List what staged transactions hold.",
    "stuck": "List the sagas that can neither go on nor be undone by themselves.",
    "parked": "List the messages that have failed too often and wait for an operator.",
    "unsettled": "List the sagas that have not ended, and what each waits for.",
    "retry": "Try parked messages again, or what stuck sagas were refused.",
    "skip": "Answer messages that wait with a rejection, or pass over what stuck sagas were refused.",
    "undo": "Undo running sagas that are not past their point of no return.",
    "resolve": "End a hanging staged transaction, a stuck saga, or an effect whose outcome is unknown.",
    "check-config": "Check the configuration and, with a target, that the system can be built and its contracts are as"
    " pinned.",
    "contract": "Show the messages of a system's contracts, compare them with their pin files, or write those.",
    "backup": "Copy a service's SQLite store to a new file, whether or not the service runs.",
    "migrate-store": "Make a service's tables on a database server, or bring them up to this release, while the service"
    " goes on.",
    "demo": "Run a marketplace of eight processes under load, kill some of them, and audit what is left.",
    "version": "Say which release this is.",
}
"""Verb -> the first sentence of its help."""


def home_of(verb: str) -> str:
    """`check-config` -> the place of its function, `holdfast.cli.verbs.check_config:check_config`."""
    name = verb.replace("-", "_")
    return f"holdfast.cli.verbs.{name}:{name}"


def make_app(tokens: Sequence[str] = ()) -> App:
    """The application for these words of a command line.

    A verb that is among them has its own docstring as its help, in Markdown. Of every other verb one sentence is shown,
    and its module is not loaded; nor is the Markdown renderer if no verb is named.
    """
    app = App(
        name="holdfast",
        help="Services that own their data behave like one system that can be trusted.\n\n"
        "Begin with holdfast run MODULE:SYSTEM; holdfast VERB --help shows examples.",
        version=holdfast.__version__,
        help_format="markdown" if any(verb in tokens for verb in VERBS) else "plaintext",
    )
    for verb, sentence in VERBS.items():
        app.command(home_of(verb), name=verb, help=None if verb in tokens else sentence)
    return app


def call(tokens: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = sys.argv[1:] if tokens is None else tokens
    try:
        result = make_app(words)(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2
    except (ConfigInvalid, Misuse) as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 2
    except HoldfastError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0
