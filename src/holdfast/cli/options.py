"""What the verbs have in common: the flags each takes, the settings they lead to, and how answers are printed.

Comes before every verb. Fails with `ConfigInvalid`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from holdfast.config import Settings, load

ConfigFile = Annotated[
    Path | None, Parameter(name="--config", help="The settings file; holdfast.toml in this folder if there is one.")
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
Urls = Annotated[
    list[str] | None,
    Parameter(name="--url", negative="", help="SERVICE=URL; repeat it. Without: the services of the configuration."),
]


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings from the file, the environment and these flags (None: not given). Raises ConfigInvalid."""
    return load(config, os.environ, flags)


def say(value: Any, *, as_json: bool, text: str) -> None:
    """Print the value as one JSON object, or the text."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str) if as_json else text, flush=True)
