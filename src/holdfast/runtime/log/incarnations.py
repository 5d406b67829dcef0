"""The incarnations of a log, and which cursors it has ever given out.

Each opening for writing begins an incarnation. A cursor of one that is unknown, or past the end of one, comes from a
store that was restored: `Forked`. Comes after the store said them; exchange, feeds and repairs ask.
"""

from collections.abc import Sequence

from holdfast.core.log.batch import Cursor
from holdfast.errors import Forked
from holdfast.ports.store import Incarnation


class Incarnations:
    """All incarnations of this log, oldest first: which cursors it has ever given out."""

    def __init__(self, incarnations: Sequence[Incarnation]) -> None:
        self.all = tuple(incarnations)

    @property
    def current(self) -> Incarnation:
        """The incarnation that writes now."""
        return self.all[-1]

    def at(self, position: int) -> tuple[Incarnation, int]:
        """The incarnation that wrote a position, and its last position (0: it writes still)."""
        if self.all[-1].first <= position:
            return self.all[-1], 0
        end = 0
        for found in reversed(self.all):
            if found.first <= position:
                return found, end
            end = found.first - 1
        return self.all[0], end

    def check(self, cursor: Cursor, head: int, who: str) -> None:
        """Raise Forked unless this log has given out the cursor."""
        current = self.all[-1] if self.all else None
        if cursor.position == 0 or (current and cursor.incarnation == current.id and cursor.position <= head):
            return
        for number, found in enumerate(self.all):
            if found.id == cursor.incarnation:
                later = self.all[number + 1 :]
                end = later[0].first - 1 if later else head
                bridged = max((one.bridged for one in later), default=0)
                if cursor.position <= max(end, bridged):
                    return
                raise Forked(
                    f"{who} has received up to {cursor.position}, but {found.id} ended at {end}: a store was restored"
                )
        if cursor.position <= max((found.bridged for found in self.all), default=0):
            return  # of an opening that the backup did not know; a repair has bridged what it wrote
        raise Forked(f"{who} has received from incarnation {cursor.incarnation!r}, which this log does not know")
