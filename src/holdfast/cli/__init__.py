"""The command line: `holdfast VERB`. One module per verb; each says what it did, or in one sentence why it did not.

Exit codes: 0 the command succeeded, 1 something is wrong and the output says what, 2 the command or a setting
cannot be understood. The verbs are loaded when `main` is called, so that importing the package costs nothing.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    from holdfast.cli.app import call

    raise SystemExit(call())
