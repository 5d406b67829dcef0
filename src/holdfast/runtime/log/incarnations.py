"""The incarnations of a log, and which cursors it has ever given out.

Each time a process opens the log for writing, a new incarnation begins. A cursor that names an unknown incarnation, or
a position past the end of its incarnation, shows that a store was restored: `check` raises `Forked`. The store supplies
the list; exchange, feeds and repairs ask it.
"""

from collections.abc import Sequence

from holdfast.core.log.batch import Cursor
from holdfast.errors import Forked
from holdfast.ports.store import Incarnation


class Incarnations:
    """All incarnations of this log, the oldest first; they say which cursors this log has ever given out."""

    def __init__(self, incarnations: Sequence[Incarnation]) -> None:
        self.all = tuple(incarnations)

    @property
    def current(self) -> Incarnation:
        """The incarnation that writes now."""
        return self.all[-1]

    def at(self, position: int) -> tuple[Incarnation, int]:
        """The incarnation that wrote a position, and its last position (0: this incarnation still writes)."""
        if self.all[-1].first <= position:
            return self.all[-1], 0
        end = 0
        for incarnation in reversed(self.all):
            if incarnation.first <= position:
                return incarnation, end
            end = incarnation.first - 1
        return self.all[0], end

    def check(self, cursor: Cursor, head: int, who: str) -> None:
        """Raise Forked unless this log has given out the cursor."""
        current = self.all[-1] if self.all else None
        if cursor.position == 0 or (current and cursor.incarnation == current.id and cursor.position <= head):
            return
        for number, incarnation in enumerate(self.all):
            if incarnation.id == cursor.incarnation:
                later = self.all[number + 1 :]
                end = later[0].first - 1 if later else head
                bridged = max((follower.bridged for follower in later), default=0)
                if cursor.position <= max(end, bridged):
                    return
                raise Forked(
                    f"{who} has received up to {cursor.position}, but incarnation {incarnation.id} ended at {end}:"
                    " a store was restored; see docs/restore.md"
                )
        if cursor.position <= max((incarnation.bridged for incarnation in self.all), default=0):
            return  # the backup did not know this incarnation; a repair has bridged the positions that it wrote
        raise Forked(
            f"{who} has received from incarnation {cursor.incarnation!r}, which this log does not know:"
            " a store was restored; see docs/restore.md"
        )
