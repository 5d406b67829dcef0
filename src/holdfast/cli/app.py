"""The verbs of the command line, put together, and what an error looks like: one sentence, no traceback.

Comes after every verb's module. Exit codes: 0 well, 1 something is wrong, 2 the command or a setting is.
"""

import importlib.util
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import holdfast
from holdfast.cli.options import AsJson, say
from holdfast.cli.verbs.audit import audit
from holdfast.cli.verbs.backup import backup
from holdfast.cli.verbs.check_config import check_config
from holdfast.cli.verbs.contract import contract
from holdfast.cli.verbs.events import events
from holdfast.cli.verbs.lists import parked, stuck, unsettled
from holdfast.cli.verbs.migrate_store import migrate_store
from holdfast.cli.verbs.repairs import retry, skip, undo
from holdfast.cli.verbs.resolve import resolve
from holdfast.cli.verbs.run import run
from holdfast.cli.verbs.sagas import sagas
from holdfast.cli.verbs.stages import stages
from holdfast.cli.verbs.trail import trail
from holdfast.cli.verbs.why import why
from holdfast.errors import ConfigInvalid, HoldfastError, Misuse

app = App(
    name="holdfast",
    help="Services that own their data behave like one system that can be trusted.\n\n"
    "Begin with `holdfast run MODULE:SYSTEM`; `holdfast VERB --help` shows examples.",
    version=holdfast.__version__,
)
for verb in (
    run,
    events,
    why,
    audit,
    trail,
    sagas,
    stages,
    stuck,
    parked,
    unsettled,
    retry,
    skip,
    undo,
    resolve,
    check_config,
    contract,
    backup,
    migrate_store,
):
    app.command(verb)
if importlib.util.find_spec("holdfast.cli.verbs.demo") is not None:
    app.command("holdfast.cli.verbs.demo:demo", name="demo")


@app.command
def version(*, as_json: AsJson = False) -> int:
    """Say which release this is.

    For example: `holdfast version --json`
    """
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"holdfast {holdfast.__version__} (Python {python})"
    say({"holdfast": holdfast.__version__, "python": python}, as_json=as_json, text=text)
    return 0


def call(tokens: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        result = app(tokens, exit_on_error=False, result_action="return_value")
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
