"""Lists: what does not go on by itself, asked of every service and put together, the oldest first.

`stuck` and `unsettled` list sagas, `parked` lists messages. Comes after configuration, which says where the services
are; before the modules that show the items or repair them (`operator.repair`). A service that does not answer is named
with the reason. Fails with `ConfigInvalid` if the one service that is asked for is not among them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.config import Settings
from holdfast.core.explain.overview import ListedSaga, ListedWaiting, SagaList, WaitingList
from holdfast.errors import ConfigInvalid, HoldfastError
from holdfast.operator.client import pages

Listed = ListedSaga | ListedWaiting
KINDS: Mapping[str, type[SagaList] | type[WaitingList]] = {
    "stuck": SagaList,
    "unsettled": SagaList,
    "parked": WaitingList,
}
"""List under `/ops` -> what it answers."""


class Items(msgspec.Struct, frozen=True):
    """A list of all services together."""

    items: list[Listed]
    """The oldest first."""
    totals: dict[str, int]
    """Cause -> how many items have it, the most frequent first."""
    silent: dict[str, str]
    """The services that did not answer -> why."""


def gather_items(
    urls: Mapping[str, str], settings: Settings, what: str, query: Mapping[str, Any], service: str
) -> Items:
    """The items of a list, of one service or of all. Raises ConfigInvalid."""
    asked = {name: value for name, value in query.items() if value}
    items: list[Listed] = []
    totals = Counter[str]()
    silent: dict[str, str] = {}
    for name, where in chosen(urls, service).items():
        try:
            for page in pages(where, f"/ops/{what}", asked, settings, KINDS[what]):
                items += page.items
                totals.update(page.totals)
        except HoldfastError as error:
            silent[name] = str(error)
    return Items(sorted(items, key=lambda one: one.counted_from), dict(totals.most_common()), silent)


def chosen(urls: Mapping[str, str], service: str) -> Mapping[str, str]:
    """The one service that is named, or all of them if none is. Raises ConfigInvalid."""
    if service and service not in urls:
        raise ConfigInvalid(f"--service {service!r} is not known; there are {', '.join(urls)}")
    return {service: urls[service]} if service else urls
