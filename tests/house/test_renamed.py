"""Names that have changed: each old one works for one more release, and says what it is called now."""

import pytest

import holdfast

RENAMED = {"Transaction": "LocalTransaction", "every": "Every", "keyed": "Keyed", "query": "Query"}


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_works_and_warns(old: str) -> None:
    """A team that upgrades has one release to follow."""
    with pytest.warns(DeprecationWarning, match=f"holdfast.{old} is holdfast.{RENAMED[old]} now"):
        found = getattr(holdfast, old)
    assert found is getattr(holdfast, RENAMED[old])
    assert old not in holdfast.__all__


def test_every_old_name_is_in_the_changelog(request: pytest.FixtureRequest) -> None:
    """Who upgrades reads there what to write."""
    text = (request.config.rootpath / "CHANGELOG.md").read_text("utf-8")
    assert [old for old, new in RENAMED.items() if f"| `{old}` | `{new}` |" not in text] == []


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    """A typing error is no old name."""
    with pytest.raises(AttributeError, match="has no attribute 'Quarry'"):
        holdfast.Quarry  # noqa: B018


def test_every_public_name_is_there() -> None:
    """What `__all__` promises loads when it is first used, and is what the module that defines it has."""
    found = {name: getattr(holdfast, name) for name in holdfast.__all__}
    assert all(value is not None for value in found.values())
    assert set(holdfast.__all__) <= set(dir(holdfast))
