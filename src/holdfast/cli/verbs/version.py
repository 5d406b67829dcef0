"""`holdfast version`: which release this is, and on which Python it runs.

It is for reports and scripts. It asks no service and never fails.
"""

import sys

import holdfast
from holdfast.cli.options import AsJson, say


def version(*, as_json: AsJson = False) -> int:
    """Say which release this is.

    For example: `holdfast version --json`
    """
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"holdfast {holdfast.__version__} (Python {python})"
    say({"holdfast": holdfast.__version__, "python": python}, as_json=as_json, text=text)
    return 0
