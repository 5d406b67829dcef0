"""The command line: `holdfast VERB`. One module per verb; each says what it did, or one sentence that says why not.

Exit codes: 0 done and well, 1 something is wrong (what is said tells), 2 the command or a setting cannot be
understood. The verbs are loaded when `main` is called, so that importing the package costs nothing.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    from holdfast.cli.app import call

    raise SystemExit(call())
