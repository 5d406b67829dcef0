"""One table of routes: what is mounted is what stands there, is described, and is reserved."""

import re
from typing import Any

import pytest
import schemathesis

from holdfast import System
from holdfast.web.app import App
from holdfast.web.http import Request
from holdfast.web.routes import Route
from holdfast.web.surface import RESERVED, ROUTES, command_route, summary_of
from holdfast.web.trust import Guard, Trust
from shop.services import shop
from support.http_routes import SECRET, TOKEN, ask, mounted, plain_path
from support.http_services import lab_service, site

SYSTEMS = [(lab_service, "lab", ""), (shop, "order", "/order"), (shop, "stock", "/stock")]


def users(app: App, service: str) -> set[tuple[str, str]]:
    """Method and path of what a user declared."""
    return {(route.method, route.path) for route in app.sites[service].node.service.routes}


async def test_what_is_mounted_stands_in_the_table() -> None:
    """Beside a service's own routes and its commands, all that is mounted is the table, and all of it is mounted."""
    async with site(shop) as at:
        for service, one in at.app.sites.items():
            own = [r for r in mounted(at.app, service) if (r.method, r.path) not in users(at.app, service)]
            commands = [command_route(m) for m in one.node.service.contract.by_name.values() if m.kind == "command"]
            assert own == [*ROUTES, *commands]
            assert set(one.handlers) == {route.name for route in ROUTES}, "a handler that no route names"
    assert len({route.name for route in ROUTES}) == len({str(route) for route in ROUTES}) == len(ROUTES)


async def test_what_is_mounted_is_reserved() -> None:
    """No route of a user begins with a name that is mounted by holdfast, and nothing else is kept from users."""
    async with site(shop) as at:
        for service in at.app.sites:
            own = [r for r in mounted(at.app, service) if (r.method, r.path) not in users(at.app, service)]
            assert {route.path.split("/")[1] for route in own} == RESERVED


@pytest.mark.parametrize(("system", "service", "mount"), SYSTEMS)
async def test_what_is_mounted_is_described(system: System, service: str, mount: str) -> None:
    """OpenAPI has an operation for each route, with its summary, parameters and answers, each named once, at the place
    where the service is mounted; and the document is valid."""
    async with site(system) as at:
        found = (await at.web.get(f"{mount}/openapi.json")).json()
        assert found["servers"] == [{"url": mount or "/"}]
        schemathesis.openapi.from_dict(found).validate()
        operations = [one for path in found["paths"].values() for one in path.values()]
        names = [one["operationId"] for one in operations if "operationId" in one]
        assert len(names) == len(set(names))
        routes = mounted(at.app, service)
        for route in routes:
            one = found["paths"][route.path][route.method.lower()]
            assert one["summary"] == route.summary and one["tags"] == [route.tag]
            said = {(parameter["in"], parameter["name"]) for parameter in one["parameters"]}
            assert {("path", name) for name in re.findall(r"\{(\w+)\}", route.path)} <= said
            assert {(parameter.place, parameter.name) for parameter in route.parameters} <= said
            assert {str(status) for status in route.statuses} < set(one["responses"])
            assert ("requestBody" in one) is (route.body is not None)
        views = {f"/views/{name}/{{key}}" for name in at.nodes[service].service.views}
        assert set(found["paths"]) == {route.path for route in routes} | views


class Noted(dict[str, str]):
    """A query that notes what is looked up in it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Nothing is there."""
        self.names.add(name)
        return default

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return False


async def test_what_a_handler_reads_of_the_query_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handler of holdfast looks for a parameter that its row does not name."""
    seen = 0
    async with site(lab_service, operator_token=TOKEN) as at:
        for route in ROUTES:
            query = Noted()
            monkeypatch.setattr(Request, "query", query)
            path = plain_path(route).replace("/aggregates/x", "/aggregates/Shelf").replace("/views/x", "/views/Shelves")
            await ask(at.app, route.method, path, "absent", "right")
            assert query.names <= {one.name for one in route.parameters if one.place == "query"}, route
            seen += len(query.names)
    assert seen > len(ROUTES)


@pytest.mark.parametrize(("secret", "token"), [("", ""), (SECRET, ""), ("", TOKEN), (SECRET, TOKEN)])
async def test_what_a_caller_has_to_show_is_described(secret: str, token: str) -> None:
    """Where an operation names what opens it, nobody gets in without, and with any of it; elsewhere anybody does."""
    async with site(lab_service, secret=secret, operator_token=token) as at:
        paths = (await at.web.get("/openapi.json")).json()["paths"]
        for route in mounted(at.app, "lab"):
            asked = paths[route.path][route.method.lower()]
            proofs = {name for one in asked.get("security", []) for name in one}
            assert ("401" in asked["responses"]) is bool(proofs)
            assert (await ask(at.app, route.method, plain_path(route)))[0] != 401 or proofs, route
            for proof in proofs - {"" if token else "operator"}:
                given = {"secret": "right" if proof == "signature" else "absent"}
                given["token"] = "right" if proof == "operator" else "absent"
                assert (await ask(at.app, route.method, plain_path(route), **given))[0] != 401, (route, proof)
            if proofs:
                assert (await ask(at.app, route.method, plain_path(route)))[0] == 401, route


def test_a_route_is_described_from_its_row_alone() -> None:
    """A surface without a node: its rows are all that the description needs."""
    from holdfast.web.openapi import document

    async def function() -> None:
        """What it does.

        And more.
        """

    row: Any = Route("GET", "/callers/{name}", Guard.OPERATOR, "caller", summary_of(function), "gate", answer=int | str)
    found = document("gate", "team-gate", [row], Trust("", ""))
    schemathesis.openapi.from_dict(found).validate()
    one = found["paths"]["/callers/{name}"]["get"]
    assert one["summary"] == "What it does." and one["security"] == [{"operator": []}]
    schema = one["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
