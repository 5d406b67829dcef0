"""Names of logs and slots of keys: what is stored rests on them, so they never change (G3)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.log.key import join_key
from holdfast.core.log.name import SLOTS, LogName, SlotMap, exchange_cursor, peer_of, slot_of

VECTORS = {
    join_key(["tea"]): 1970,
    join_key([4711]): 1143,
    join_key(["seller 7", "product/9"]): 1306,
    join_key(["Tee für zwei"]): 3844,
    join_key(["茶"]): 2548,
}
"""Keys as they stand in a stream's name -> slot: plain, numeric, composite, Latin and Chinese letters."""


@pytest.mark.parametrize("key", VECTORS)
def test_a_key_has_its_slot_for_ever(key: str) -> None:
    """G3: a slot never changes: a key that moved to another log would be decided on a state that is not its own."""
    assert slot_of(key) == VECTORS[key]


@given(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.integers(0, 10**6))
def test_the_name_of_a_log_is_read_as_it_is_written(service: str, partition: int) -> None:
    """G3: parsing is the inverse of printing, and partition 0 is the service itself."""
    name = LogName(service, partition)
    assert LogName.parse(str(name)) == name
    assert str(LogName(service)) == service


@pytest.mark.parametrize("text", ["", ".1", "stock.", "stock.0", "stock.01", "stock.-1", "stock.x", "stock.1.2", "s.²"])
def test_what_names_no_log_is_refused(text: str) -> None:
    """G10: two spellings of one log would be two logs."""
    with pytest.raises(ValueError, match="is not the name of a log"):
        LogName.parse(text)


@pytest.mark.parametrize("partitions", [1, 2, 4, 16])
def test_each_key_belongs_to_one_log(partitions: int) -> None:
    """G3: each slot has one owner, keys spread evenly, and one log needs no hash."""
    found = SlotMap("stock", range(partitions))
    counts = Counter(str(found.log_of(f"k{number}")) for number in range(4_000))
    assert set(counts) == {str(log) for log in found.logs} and len(counts) == partitions
    assert max(counts.values()) < 1.4 * 4_000 / partitions


@pytest.mark.parametrize("owners", [(), (0, 1, 2), (-1,), range(SLOTS + 1)])
def test_a_slot_map_that_leaves_a_slot_out_is_refused(owners: tuple[int, ...]) -> None:
    """G10: a slot without an owner, or with two, is no map."""
    with pytest.raises(ValueError, match="slot map"):
        SlotMap("stock", owners)


def test_a_cursor_names_its_peer() -> None:
    """The cursor of a conversation is told from that of a feed."""
    assert peer_of(exchange_cursor("stock")) == "stock" and peer_of("view:Orders@1:stock") == ""
