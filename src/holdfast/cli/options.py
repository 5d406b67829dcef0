"""The options that verbs have in common, in groups, and how answers are printed.

A group is a dataclass whose fields are options of the verb that takes it: where the services are, which items of a list
are selected, who orders a repair and why, and whether it is carried out. Comes before every verb. Fails with
`ConfigInvalid`.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from holdfast.config import Settings, load
from holdfast.operator.client import services_at

ConfigFile = Annotated[
    Path | None, Parameter(name="--config", help="The settings file; holdfast.toml in this folder if there is one.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
URLS = "SERVICE=URL; repeat it for each service. Without it: the services of the configuration."
INVARIANTS = "MODULE:SYSTEM whose invariants judge the repair: beforehand in a dry run, afterwards otherwise."
Flag = Annotated[bool, Parameter(negative="")]
Data = Annotated[str, Parameter(name="--data", help="JSON, or @FILE.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Access:
    """Where the services are, and what is needed to ask them."""

    url: Annotated[list[str] | None, Parameter(negative="", help=URLS)] = None
    config: ConfigFile = None

    def settings(self) -> Settings:
        """The settings, secrets included. Raises ConfigInvalid."""
        return settings_of(self.config)

    def services(self, settings: Settings) -> dict[str, str]:
        """Service name -> URL. Raises ConfigInvalid."""
        return services_at(settings, self.url or [])


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Selection:
    """Which items of a list are meant."""

    service: Annotated[str, Parameter(help="Only of this service.")] = ""
    cause: Annotated[str, Parameter(help="Only if the cause holds this text.")] = ""
    older: Annotated[int, Parameter(help="Only what is older than this number of seconds.")] = 0

    def filters(self) -> dict[str, Any]:
        """What a list under `/ops` is asked for."""
        return {"cause": self.cause, "older": self.older}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class MessageSelection(Selection):
    """Which items of a list are meant, if they may be messages."""

    type: Annotated[str, Parameter(help="Only messages of this stored type.")] = ""
    fingerprint: Annotated[str, Parameter(help="Only failures with this fingerprint.")] = ""

    def filters(self) -> dict[str, Any]:
        """What a list under `/ops` is asked for."""
        return {"cause": self.cause, "older": self.older, "type": self.type, "fingerprint": self.fingerprint}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Lists:
    """The lists whose items are repaired if no target is named, and the stream on which messages wait."""

    parked: Annotated[bool, Parameter(negative="", help="All parked messages that pass the filters.")] = False
    stuck: Annotated[bool, Parameter(negative="", help="All stuck sagas that pass the filters.")] = False
    stream: Annotated[str, Parameter(help="Only what waits on this stream.")] = ""

    def chosen(self) -> dict[str, bool]:
        """List -> whether it is meant."""
        return {"parked": self.parked, "stuck": self.stuck}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Signature:
    """Who orders a repair, and why."""

    by: Annotated[str, Parameter(help="The operator who orders it.")]
    why: Annotated[str, Parameter(help="The reason. Both are recorded.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Trial:
    """Whether a repair is carried out, and by whose invariants it is judged."""

    dry_run: Annotated[bool, Parameter(negative="", help="Say what it would do, and do nothing.")] = False
    invariants: Annotated[str, Parameter(help=INVARIANTS)] = ""


# What a verb gets if no option of a group is given.
CONFIGURED = Access()
ALL = Selection()
ALL_MESSAGES = MessageSelection()
NO_LIST = Lists()
CARRIED_OUT = Trial()


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings from the file, the environment and these flags (None: not given). Raises ConfigInvalid."""
    return load(config, os.environ, flags)


def say(value: Any, *, as_json: bool, text: str) -> None:
    """Print the value as one JSON object, or the text."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str) if as_json else text, flush=True)
