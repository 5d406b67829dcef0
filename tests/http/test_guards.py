"""Guards: a request is judged by the route that answers it, however its path is written. The matrix is made from the
routes that are mounted, so that a new one is in it by itself."""

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast import Contract, Query, Service, System
from holdfast.errors import Misuse
from holdfast.web.http import Request
from holdfast.web.routes import Route
from holdfast.web.trust import Guard
from shop.services import shop
from support.http_routes import SECRET, TOKEN, ask, mounted, plain_path
from support.http_services import Shelves, lab_service, site

GIVEN = ("absent", "wrong", "right")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def encoded(path: str, keep: int = 0) -> Iterator[str]:
    """The path with one letter encoded, for each letter after the first `keep`, in capital and small hex digits."""
    for at, letter in enumerate(path):
        if at >= keep and letter != "/":
            for hexed in {f"%{ord(letter):02X}", f"%{ord(letter):02x}"}:
                yield path[:at] + hexed + path[at + 1 :]


def let_in(guard: Guard, secret: str, token: str) -> bool:
    """Whether a guard lets in who has this, where a secret and a token are configured."""
    knows, operates = secret == "right", token == "right"
    return {
        Guard.PUBLIC: True,
        Guard.PEER: knows,
        Guard.READER: knows or operates,
        Guard.OPERATOR: operates,
    }[guard]


def expected(route: Route) -> Guard:
    """What a route of holdfast has to be guarded by, said once more and by itself."""
    first = route.path.split("/")[1]
    if first == "ops":
        return Guard.OPERATOR if route.method == "POST" else Guard.READER
    return Guard.PEER if first in ("events", "exchange") else Guard.PUBLIC


@pytest.mark.parametrize(
    ("system", "service", "prefixes"), [(lab_service, "lab", ("", "/lab")), (shop, "order", ("/order",))]
)
async def test_an_encoded_path_is_judged_as_the_plain_one(system: Any, service: str, prefixes: tuple[str, ...]) -> None:
    """Each route, each letter of its path and of the service's name encoded, whatever secret and token the caller has:
    the plain path is answered as its guard says, and the encoded one as the plain one (Trust)."""
    async with site(system, secret=SECRET, operator_token=TOKEN) as at:
        routes = mounted(at.app, service)
        assert {route.guard for route in routes} == set(Guard)
        for route in routes:
            assert route.guard is expected(route), route
            for prefix in prefixes:
                path = prefix + plain_path(route)
                for secret in GIVEN:
                    for token in GIVEN:
                        judged = await ask(at.app, route.method, path, secret, token)
                        assert (judged[0] != 401) is let_in(route.guard, secret, token), (route, secret, token, judged)
                        for other in encoded(path):
                            found = await ask(at.app, route.method, other, secret, token)
                            assert found == judged, (route.method, other, secret, token)


async def test_other_methods_are_judged_alike_too() -> None:
    """HEAD is judged as GET, and a method that is not taken is refused, however the path is written."""
    async with site(lab_service, secret=SECRET, operator_token=TOKEN) as at:
        routes = mounted(at.app, "lab")
        for path in {plain_path(route) for route in routes}:
            judged = {method: (await ask(at.app, method, path))[0] for method in METHODS}
            assert judged["HEAD"] == judged["GET"], (path, judged)
            for method in METHODS:
                for other in encoded(path):
                    assert (await ask(at.app, method, other))[0] == judged[method], (method, other)


def disguised(path: str) -> Iterator[str]:
    """Paths that somebody might take for this one, and that are not."""
    first, _, rest = path[1:].partition("/")
    yield f"/{path}"
    yield f"/.{path}"
    yield f"/%2E{path}"
    yield f"/x/..{path}"
    yield f"/x/%2e%2e{path}"
    yield f"/%2F{path[1:]}"
    yield f"{path}/"
    yield f"{path};x=1"
    yield f"{path}%00"
    yield f"{path}%20"
    yield f"/%25{ord(first[0]):02X}{path[2:]}"
    yield f"/{first.upper()}/{rest}" if rest else f"/{first.upper()}"
    yield f"/{first}//{rest}"
    yield f"/{first}%2F{rest}"
    yield f"/{first}%5C{rest}"


async def test_a_disguised_path_opens_nothing() -> None:
    """Doubled, dotted, twice encoded, with escaped slashes: without secret and token nobody reaches a guarded route."""
    async with site(lab_service, secret=SECRET, operator_token=TOKEN) as at:
        for route in mounted(at.app, "lab"):
            if route.guard is not Guard.PUBLIC:
                for prefix in ("", "/lab"):
                    for path in disguised(plain_path(route)):
                        assert (await ask(at.app, route.method, prefix + path))[0] in (401, 404), (route, path)
        for method, path in (("POST", "/commands%2Fpoke"), ("GET", "/ops%2Flog"), ("GET", "/lab%2Fhealthz")):
            assert (await ask(at.app, method, path, "right", "right"))[0] == 404, path


async def test_a_mount_is_whole_parts_however_they_are_written() -> None:
    """Mounted in another app, a path begins with the mount's parts, encoded or not; a longer name is not the mount."""
    for path, mount, inner in (
        ("/api/v1/ops/log", "/api/v1", "/ops/log"), ("/%61pi/v1/ops/log", "/%61pi/v1", "/ops/log"),
        ("/api/v1", "/api/v1", "/"), ("/api/v12/ops/log", "", "/api/v12/ops/log"),
    ):  # fmt: skip
        scope = {"type": "http", "method": "GET", "path": "", "raw_path": path.encode(), "headers": []}
        for root in ("/api/v1", "/api/v1/"):
            request = Request(scope | {"root_path": root}, None)  # pyright: ignore[reportArgumentType]
            assert (request.mount, request.path) == (mount, inner)


def test_there_is_no_route_without_a_guard() -> None:
    """Whoever writes a route says who may ask it."""
    said: Any = {"method": "GET", "path": "/x", "name": "x", "summary": "x", "tag": "x"}
    for guard in ({}, {"guard": None}, {"guard": "public"}):
        with pytest.raises(TypeError, match="guard"):
            Route(**said, **guard)
    assert Route(**said, guard=Guard.PUBLIC)


async def test_users_routes_stay_out_of_reserved_parts() -> None:
    """A user's route cannot have a name of holdfast's, encoded neither; nor does its parameter stand for one."""
    for path in ("/ops/mine", "/%6Fps/mine", "/events/{of}", "/%65vents"):
        service = Service(Contract("bad"))
        service.get(path)(lambda of="": Query(Shelves, of))
        with pytest.raises(Misuse, match="holdfast itself"):
            async with site(System([service])):
                pass
    service = Service(Contract("wide"))

    @service.put("/{any}/{thing}")
    def put(any: str, thing: str) -> None:
        raise AssertionError("reached")

    async with site(System([service])) as at:
        assert (await ask(at.app, "PUT", "/other/log"))[0] == 500
        for path in ("/ops/nothing", "/%6Fps/nothing", "/exchange/x", "/views/x"):
            assert (await ask(at.app, "PUT", path))[0] in (404, 405)
