"""The marketplace over its HTTP API: every transaction by its rules, and a driven run whose audit finds nothing."""

from typing import Any

from marketplace.audit import audit
from marketplace.data import Size
from marketplace.driver import SERVICES, Api, Driver, ingest, measured, session
from marketplace.evidence import gather, settled
from marketplace.system import system
from marketplace.workload import Mix
from serving import Site, site

SIZE = Size(customers=20, products=30, products_per_seller=5, units_per_product=500, declined=0.2)


def urls(at: Site) -> dict[str, str]:
    return {name: f"{at.web.base}/{name}" for name in SERVICES}


async def test_a_driven_run_adds_up() -> None:
    """The whole mix at once, with cards that are declined and stock that runs out: every check counts and holds."""
    async with site(system) as at, session() as http:
        api = Api(urls(at), http)
        rows = await ingest(api, SIZE, 1)
        driver = Driver(api, rows, SIZE, Mix(), seed=2)
        await driver.run(4, 16)
        assert await settled(urls(at), http) == []
        told = {mark.tid: mark.status for mark in driver.marks if mark.kind == "CUSTOMER_SESSION"}
        checks = audit(await gather(urls(at), http, told))
        figures: dict[str, Any] = measured(driver)
        assert figures["errors"] == 0, figures
        assert {check.name: check.violations[:3] for check in checks if not check.passed} == {}
        for kind, found in figures["kinds"].items():
            assert found["count"] > 0, kind
        assert figures["kinds"]["CUSTOMER_SESSION"]["NOT_ACCEPTED"] > 0
