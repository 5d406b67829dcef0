"""The testing kit: what a service's own tests need, shipped with the library.

`given` tests an aggregate, a saga or a view alone; `VirtualSystem` runs a whole system in virtual time, where any
service can be crashed at any commit; `virtual_time` makes a test of a coroutine function. `holdfast.testing.plugin`
brings them to pytest, which nothing else here needs; `holdfast.testing.conformance` decides what an adapter is.
"""

from holdfast.testing.given import Given, given
from holdfast.testing.virtual import VirtualClock, VirtualLoop, VirtualSystem, run_virtual, virtual_time

__all__ = ["Given", "VirtualClock", "VirtualLoop", "VirtualSystem", "given", "run_virtual", "virtual_time"]
