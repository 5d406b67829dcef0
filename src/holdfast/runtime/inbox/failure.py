"""Failure: the part of a handler's exception that is stored for the team that has to fix it.

It has the place in the team's own code that raised the exception, and a fingerprint that is equal for equal faults. The
fingerprint is made of the exception's type and the functions on the way, without line numbers, so it does not change
when another part of the file is edited. Retry and consumers use it. It is pure and never raises.
"""

import hashlib
from collections.abc import Iterator
from types import TracebackType

import msgspec

ERROR_CHARACTERS_MAX = 500
OURS = "holdfast."


class Failure(msgspec.Struct, frozen=True):
    """An exception, as it is stored."""

    error: str
    where: str
    """`module.function:line` of the last frame outside holdfast; empty if all frames are inside holdfast."""
    fingerprint: str
    """12 hexadecimal digits."""


def failure_of(error: BaseException) -> Failure:
    """The part of an exception that is stored."""
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
