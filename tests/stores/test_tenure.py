"""The fence of a log on a server, without a server: what its holder concludes from the row `head`, and never does.

The decisions alone, then every schedule of a few steps: commits cut off before and after they are there, groups of
handlers that arrive late, looks that are cut off themselves, and another process that takes the log.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from holdfast.errors import StoreFailed, StoreLocked
from holdfast.stores.planner import PlannedGroup
from holdfast.stores.server.tenure import FENCED, Change, Doubt, Head, Opening, Tenure, taken

OURS = Head(7, 3, "ours")


def held() -> Tenure:
    """A log that is held, at position 7 after three groups."""
    return Tenure("stock", OURS)


def group(head: int = 7, records: int = 1) -> PlannedGroup:
    """A group of so many records after that head."""
    made = PlannedGroup(head)
    made.head += records
    return made


def test_taking_a_log_names_the_new_incarnation_and_gives_no_position_twice() -> None:
    """G2: whoever held it before, the row names the taker, and its first position is the one after the last."""
    assert taken("next", 5)(OURS) == Change(Head(7, 3, "next"), Opening(8, 0, 5))


def test_a_committed_group_is_what_the_next_fence_compares_with() -> None:
    """The expected row moves on by the group's records and by one group; a group without a record counts too."""
    tenure = held()
    tenure.committed(group(records=2))
    assert tenure.head == Head(9, 4, "ours")
    tenure.committed(group(9, records=0))
    assert tenure.head == Head(9, 5, "ours")
    tenure.compare(Head(9, 5, "ours"))


@pytest.mark.parametrize("found", [Head(7, 3, "theirs"), Head(8, 4, "ours"), Head(7, 4, "ours"), Head(7, 5, "theirs")])
def test_a_row_that_is_not_as_it_was_left_means_the_log_is_lost_for_ever(found: Head) -> None:
    """G2: any difference is another writer: the holder is told, and told again, whatever it tries then."""
    tenure = held()
    with pytest.raises(StoreLocked, match="another process has begun to write to the log of stock"):
        tenure.compare(found)
    with pytest.raises(StoreLocked):
        tenure.check()


def test_a_leap_begins_an_incarnation_only_on_the_row_as_it_was_left() -> None:
    """G2: a holder that lost its log cannot take it back by a leap: that would cut off who has it now."""
    leap = held().leap("leapt", 5, 100)
    assert leap(OURS) == Change(Head(99, 3, "leapt"), Opening(100, 99, 5))
    tenure = held()
    with pytest.raises(StoreLocked):
        tenure.leap("leapt", 5, 100)(Head(7, 3, "theirs"))
    with pytest.raises(StoreLocked):
        tenure.check()


def test_the_count_of_groups_says_whether_a_group_in_doubt_is_there() -> None:
    """G8: one more is the group; none more is that it is not there, and then the row stays as it is."""
    for found, there in ((Head(8, 4, "ours"), True), (OURS, False)):
        tenure, sent = held(), group()
        tenure.doubt = Doubt(sent, lent=False)
        assert tenure.resolve(found) == Change(found)
        assert tenure.doubt is not None, "a decision is not yet durable"
        assert tenure.resolved(found) == (sent if there else None)
        assert tenure.doubt is None and tenure.head == found and tenure.there is (sent if there else None)


def test_a_handlers_group_that_is_not_there_can_never_arrive() -> None:
    """G8: its connection has no lock, so the count is raised past what it expects; a second look sees that it was."""
    tenure = held()
    tenure.doubt = Doubt(group(), lent=True)
    fenced = Head(7, 3 + FENCED, "ours")
    assert tenure.resolve(OURS) == Change(fenced) and tenure.resolve(fenced) == Change(fenced)
    assert tenure.resolved(fenced) is None and tenure.head == fenced


@pytest.mark.parametrize(
    ("doubt", "more"),
    [(None, 1), (None, FENCED), (Doubt(group(), lent=False), FENCED), (Doubt(group(), lent=True), FENCED + 1)],
)
def test_a_count_that_our_own_groups_do_not_explain_ends_the_tenure(doubt: Doubt | None, more: int) -> None:
    """G2: under our own name another process has written: nothing is guessed, the store stops."""
    tenure = held()
    tenure.doubt = doubt
    with pytest.raises(StoreFailed, match="another process has written"):
        tenure.resolve(Head(7, 3 + more, "ours"))
    with pytest.raises(StoreFailed):
        tenure.check()


class Server:
    """The row `head`, what was written by whom, and what is still on its way."""

    def __init__(self) -> None:
        self.row = Head(0, 0, "")
        self.written: list[tuple[str, PlannedGroup]] = []
        self.late: list[tuple[Head, PlannedGroup]] = []

    def write(self, before: Head, sent: PlannedGroup) -> bool:
        """As the engines do: the comparison and all that is written are one transaction."""
        if (self.row.incarnation, self.row.groups) != (before.incarnation, before.groups):
            return False
        self.row = Head(sent.head, before.groups + 1, before.incarnation)
        self.written.append((before.incarnation, sent))
        return True

    def has(self, sent: PlannedGroup) -> bool:
        """Whether that very group is there."""
        return any(one is sent for _, one in self.written)


class Choice(NamedTuple):
    """One of some ways to go on."""

    taken: int
    of: int


STEPS = 3


def schedules() -> Iterator[Callable[[int], int]]:
    """Every sequence of choices, each as a function that makes the next one."""
    path: list[int] = []
    while True:
        made: list[Choice] = []

        def choose(count: int, made: list[Choice] = made, path: list[int] = path) -> int:
            made.append(Choice(path[len(made)] if len(made) < len(path) else 0, count))
            return made[-1].taken

        yield choose
        while made and made[-1].taken == made[-1].of - 1:
            made.pop()
        if not made:
            return
        path = [*(one.taken for one in made[:-1]), made[-1].taken + 1]


def look(server: Server, tenure: Tenure, choose: Callable[[int], int]) -> None:
    """The holder comes back and finds out; the look itself may be cut off before or after its change is there."""
    for _ in range(2):
        head = tenure.resolve(server.row).head
        cut = choose(3)
        if cut != 1:
            server.row = head
        if cut == 0:
            tenure.resolved(head)
            return
    server.row = head = tenure.resolve(server.row).head
    tenure.resolved(head)


def play(choose: Callable[[int], int]) -> bool:
    """One schedule; whether the log was taken over in it."""
    server = Server()
    server.row = taken("ours", 1)(server.row).head
    tenure, said = Tenure("stock", server.row), dict[PlannedGroup, bool]()
    for step in range(STEPS):
        what = choose(6)
        sent = group(tenure.head.position, records=step % 2)
        if what == 0:  # it goes through
            if server.write(tenure.head, sent):
                tenure.committed(sent)
                said[sent] = True
        elif what in (1, 2):  # it is cut off, on the writer's connection: nothing of it comes later
            tenure.doubt = Doubt(sent, lent=False)
            if what == 1:
                server.write(tenure.head, sent)
        elif what == 3:  # it is cut off on a handler's connection, and arrives whenever it likes
            tenure.doubt = Doubt(sent, lent=True)
            server.late.append((tenure.head, sent))
        elif what == 4 and server.late:
            server.write(*server.late.pop(choose(len(server.late))))
        elif what == 5:
            server.row = taken("theirs", 2)(server.row).head
            server.write(server.row, group(server.row.position))
            break
        if tenure.doubt is not None:
            if server.late and choose(2):
                server.write(*server.late.pop())
            doubted = tenure.doubt.group
            look(server, tenure, choose)
            said[doubted] = tenure.there is doubted
    lost = server.row.incarnation != "ours"
    for before, sent in server.late:
        server.write(before, sent)
    for sent, there in said.items():
        assert server.has(sent) == there, "what was said of a group is what is so, for ever"
    counts = [incarnation for incarnation, _ in server.written]
    assert counts == sorted(counts), "after another has written, the old holder writes nothing"
    if lost:
        with pytest.raises(StoreLocked):
            tenure.resolve(server.row)
        assert not server.write(tenure.head, group(tenure.head.position)), "the fence refuses it"
    else:
        assert tenure.head == server.row, "the holder knows the row, whatever was cut off"
    return lost


def test_no_schedule_makes_a_holder_say_what_is_not_so() -> None:
    """G2, G8: over every schedule of three steps, what a holder says of a group is so for ever, and it never writes
    after another."""
    played = lost = 0
    for choose in schedules():
        lost += play(choose)
        played += 1
    assert played > 3_000 and lost > 300, "hardly anything was tried"
