"""The command line: `holdfast VERB`. One module per verb; each says what it did, or one sentence that says why not.

Exit codes: 0 done and well, 1 something is wrong (what is said tells), 2 the command or a setting cannot be
understood. `app` is loaded when asked for, so that a service's own process does not pay for the command line.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.cli.verbs import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from holdfast.cli import verbs

        return verbs.app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line and exit with its code."""
    from holdfast.cli import verbs

    raise SystemExit(verbs.call())
