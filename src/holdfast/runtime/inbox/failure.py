"""Failure: what is kept of an exception that a handler raised, for who has to fix it.

Where it was raised, in the team's own code, and a fingerprint that is the same for the same fault: the exception's type
and the functions on the way, without line numbers, so that it survives an edit elsewhere in the file. Pure.
"""

import hashlib
from collections.abc import Iterator
from types import TracebackType

import msgspec

ERROR_CHARACTERS_MAX = 500
OURS = "holdfast."


class Failure(msgspec.Struct, frozen=True):
    """An exception, as it is kept."""

    error: str
    where: str
    """`module.function:line` of the last frame outside holdfast; empty where all of it was inside."""
    fingerprint: str
    """12 hexadecimal digits."""


def failure_of(error: BaseException) -> Failure:
    """What is kept of an exception."""
    frames = list(_frames(error.__traceback__))
    theirs = [frame for frame in frames if not frame[0].startswith(OURS)]
    path = "|".join(f"{module}.{function}" for module, function, _ in theirs or frames)
    fingerprint = hashlib.sha256(f"{type(error).__module__}.{type(error).__qualname__}|{path}".encode()).hexdigest()
    where = f"{theirs[-1][0]}.{theirs[-1][1]}:{theirs[-1][2]}" if theirs else ""
    return Failure(f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX], where, fingerprint[:12])


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, str, int]]:
    while traceback is not None:
        frame = traceback.tb_frame
        yield frame.f_globals.get("__name__", "?"), frame.f_code.co_qualname, traceback.tb_lineno
        traceback = traceback.tb_next
