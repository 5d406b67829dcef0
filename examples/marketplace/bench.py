"""The bench switch: `PATCH /reset` and `/cleanup` on every service, where MARKETPLACE_BENCH=1 is set, and else nowhere.

`reset` takes a marketplace back to its beginning, products and customers kept; `cleanup` empties it. Both are sweeps of
recorded commands: nothing leaves a log. They are meant for a marketplace that has come to rest.
"""

import os
from collections.abc import Sequence

from holdfast import Every, Service

SWITCH = "MARKETPLACE_BENCH"


def bench_routes(service: Service, *, reset: Sequence[Every], cleanup: Sequence[Every]) -> None:
    """Give a service the two routes, where the switch is on."""
    if os.environ.get(SWITCH) != "1":
        return
    sweeps = list(reset), list(cleanup)

    @service.patch("/reset")
    def begin_anew() -> list[Every]:
        return sweeps[0]

    @service.patch("/cleanup")
    def empty() -> list[Every]:
        return sweeps[1]


def blank(state: object) -> None:
    """Give an aggregate the state it had before its first event."""
    cls = type(state)
    for name in cls.__annotations__:
        value = getattr(cls, name)
        setattr(state, name, value.copy() if isinstance(value, list | dict) else value)
