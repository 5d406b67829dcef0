"""The options that verbs have in common, in groups, and how answers are printed.

A group is a dataclass whose fields are options of the verb that takes it: where the services are, what is selected of
a list, who orders a repair and why, and whether it is carried out. Comes before every verb. Fails with `ConfigInvalid`.
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
Flag = Annotated[bool, Parameter(negative="")]
Data = Annotated[str, Parameter(name="--data", help="JSON, or @FILE.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Access:
    """Where the services are, and what is needed to ask them."""

    url: Annotated[
        list[str] | None,
        Parameter(
            name="--url", negative="", help="SERVICE=URL; repeat it. Without: the services of the configuration."
        ),
    ] = None
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

    service: Annotated[str, Parameter(name="--service", help="Only of this service.")] = ""
    cause: Annotated[str, Parameter(name="--cause", help="Only where the cause holds this text.")] = ""
    older: Annotated[int, Parameter(name="--older", help="Only what is older than so many seconds.")] = 0

    def filters(self) -> dict[str, Any]:
        """What a list under `/ops` is asked for."""
        return {"cause": self.cause, "older": self.older}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class MessageSelection(Selection):
    """Which items of a list are meant, if they may be messages."""

    type: Annotated[str, Parameter(name="--type", help="Only messages of this stored type.")] = ""
    fingerprint: Annotated[str, Parameter(name="--fingerprint", help="Only failures with this fingerprint.")] = ""

    def filters(self) -> dict[str, Any]:
        """What a list under `/ops` is asked for."""
        return {"cause": self.cause, "older": self.older, "type": self.type, "fingerprint": self.fingerprint}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Lists:
    """The lists whose items are repaired, in the place of targets that are named."""

    parked: Annotated[
        bool, Parameter(name="--parked", negative="", help="All parked messages that the filters leave.")
    ] = False
    stuck: Annotated[bool, Parameter(name="--stuck", negative="", help="All stuck sagas that the filters leave.")] = (
        False
    )
    stream: Annotated[str, Parameter(name="--stream", help="Only what waits on this stream.")] = ""

    def chosen(self) -> dict[str, bool]:
        """List -> whether it is meant."""
        return {"parked": self.parked, "stuck": self.stuck}


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Signature:
    """Who orders a repair, and why."""

    by: Annotated[str, Parameter(name="--by", help="Who says so.")]
    why: Annotated[str, Parameter(name="--why", help="For what reason. Both are recorded.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Trial:
    """Whether a repair is carried out, and who judges it."""

    dry_run: Annotated[bool, Parameter(name="--dry-run", negative="", help="Say what it would do, and do nothing.")] = (
        False
    )
    invariants: Annotated[
        str,
        Parameter(
            name="--invariants",
            help="MODULE:SYSTEM whose invariants are judged, before in a dry run, and after.",
        ),
    ] = ""


# What a verb takes when none of a group's options is given.
CONFIGURED, ALL, ALL_MESSAGES, NO_LIST, CARRIED_OUT = Access(), Selection(), MessageSelection(), Lists(), Trial()


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings from the file, the environment and these flags (None: not given). Raises ConfigInvalid."""
    return load(config, os.environ, flags)


def say(value: Any, *, as_json: bool, text: str) -> None:
    """Print the value as one JSON object, or the text."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str) if as_json else text, flush=True)
