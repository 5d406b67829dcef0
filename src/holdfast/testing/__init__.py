"""The testing kit: what a service's own tests need, shipped with the library.

`given` tests an aggregate, a saga or a view alone; `VirtualSystem` runs a whole system in virtual time, where any
service can be crashed at any commit; `virtual_time` makes a test of a coroutine function; `explore` hunts for the
schedule of faults that breaks a system, and `replay` plays it again. `holdfast.testing.plugin` brings them to pytest,
which nothing else here needs; `holdfast.testing.conformance` decides what an adapter is.
"""

from holdfast.testing.cases import Given, given
from holdfast.testing.explorer.search import Exploration, Found, explore, explored, replay
from holdfast.testing.simulation.faults import Fault, Schedule
from holdfast.testing.simulation.loop import VirtualClock, VirtualLoop, run_virtual, virtual_time
from holdfast.testing.simulation.system import VirtualSystem

__all__ = [
    "Exploration",
    "Fault",
    "Found",
    "Given",
    "Schedule",
    "VirtualClock",
    "VirtualLoop",
    "VirtualSystem",
    "explore",
    "explored",
    "given",
    "replay",
    "run_virtual",
    "virtual_time",
]
