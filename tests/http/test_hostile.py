"""Hostile HTTP: requests made up from the OpenAPI description and from raw bytes; and that description and the metrics
are what they say they are."""

import asyncio
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import msgspec
import pytest
import schemathesis
from hypothesis import Phase, given, settings
from hypothesis.errors import FailedHealthCheck, Unsatisfiable
from hypothesis.strategies import just
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from holdfast.core.wire.problem import MEDIA_TYPE
from holdfast.web.metrics import METRICS
from shop.contracts import order, stock
from shop.services import shop
from support.http_services import lab_service, site


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The shop, served in a loop of its own."""
    ready: list[str] = []
    up, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with site(shop) as at:
            ready.append(at.web.base)
            up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert up.wait(10)
    yield ready[0]
    stop.set()
    thread.join(10)


LENIENT = [positive_data_acceptance, negative_data_rejection]
"""What the service does not promise: it refuses what a schema cannot say (422), and takes a bound for a bound."""


def judge(case: Any, seen: Counter[int]) -> None:
    """No 5xx whatever is sent, but a 504 for a saga that goes on; every refusal is a problem; what is described is what
    comes. Nobody waits long."""
    if case.method == "GET":
        (case.query or {}).pop("wait", None)
    else:
        case.headers["Prefer"] = "wait=0.2"
    response = case.call()
    case.validate_response(response, excluded_checks=[*LENIENT, not_a_server_error])
    seen[response.status_code] += 1
    if response.status_code >= 400:
        assert response.headers["content-type"] == [MEDIA_TYPE]
        found = msgspec.json.decode(response.content)
        assert found["status"] == response.status_code and found["title"]
        assert response.status_code < 500 or found["type"].endswith("/Pending"), found


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # schemathesis draws with random
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
@pytest.mark.parametrize("service", ["order", "stock"])
def test_requests_made_up_from_the_description(base: str, service: str, mode: GenerationMode) -> None:
    """Everything the description allows, and what it forbids, against every operation of one service, and all but /ops
    of another."""
    schema = schemathesis.openapi.from_url(f"{base}/{service}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    operations = [one for one in operations if service == "order" or not one.path.startswith("/ops/")]
    assert len(operations) > 5
    tried, seen = 0, Counter[int]()
    for operation in operations:
        try:
            cases = operation.as_strategy(generation_mode=mode)
            run = settings(max_examples=25, phases=[Phase.generate])(given(cases, just(seen))(judge))
            run()
            tried += 1
        except (Unsatisfiable, FailedHealthCheck, SkipTest):
            assert mode is GenerationMode.NEGATIVE, f"{operation.label}: nothing can be made up"
    assert tried >= 3
    assert seen[200] and seen[422] and seen[404] < seen.total() / 2, f"most requests reached nothing: {seen}"


RAW = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /order/commands/checkout HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /order/commands/checkout HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
    b"POST /order/commands/checkout HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /order/views/%ff%fe/%00/%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /order/%e2%82 HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \xff\r\n\r\n",
    b"GET /order/events?after=%ff&types=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("data", RAW, ids=range(len(RAW)))
def test_raw_rubbish_is_survived(base: str, data: bytes) -> None:
    """Bytes that are no good request get a refusal or a closed connection, and the next request an answer."""
    port = int(base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        said = b""
        while part := one.recv(65536):
            said += part
    if found := re.match(rb"HTTP/1\.1 (\d+)", said):
        assert 400 <= int(found[1]) < 500, said[:300]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.sendall(b"GET /order/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert one.recv(65536).startswith(b"HTTP/1.1 200")


def references(value: Any) -> Iterator[str]:
    """Every $ref."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "$ref":
                yield one
            else:
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


async def test_the_description_is_whole() -> None:
    """OpenAPI 3.1: every reference resolves, every command and own route is there with its answers and refusals."""
    async with site(shop) as at:
        for contract in (order, stock):
            found = (await at.web.get(f"/{contract.name}/openapi.json")).json()
            assert found["openapi"].startswith("3.1") and found["info"]["title"]
            for ref in references(found):
                at_: Any = found
                for part in ref.removeprefix("#/").split("/"):
                    at_ = at_[part.replace("~1", "/").replace("~0", "~")]
            for message in contract.by_name.values():
                if message.kind == "command":
                    responses = found["paths"][f"/commands/{message.stored}"]["post"]["responses"]
                    assert {"200", "409", "422"} <= set(responses)
        assert {"/orders/{order_id}", "/orders/{order_id}/checkout"} <= set(
            (await at.web.get("/order/openapi.json")).json()["paths"]
        )


LINE = re.compile(
    r'(?P<name>[a-z_]+)\{(?P<labels>[a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*)\} (?P<value>-?[0-9.e+]+)'
)


async def test_metrics_are_prometheus_text() -> None:
    """Every line parses, every series has a help and a type and the service's name; counts are what happened."""
    async with site(lab_service) as at:
        for times in (1, 2, -1):
            await at.web.post("/commands/poke", {"room": "r", "shelf": "s", "times": times})
        reply = await at.web.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        values: dict[str, float] = {}
        typed: set[str] = set()
        for line in reply.body.decode().splitlines():
            if line.startswith("# TYPE "):
                typed.add(line.split()[2])
            if not line.startswith("#"):
                match = LINE.fullmatch(line)
                assert match and match["name"] in typed and 'service="lab"' in match["labels"], line
                values[match["name"] + "{" + match["labels"] + "}"] = float(match["value"])
        assert typed <= set(METRICS) and "holdfast_feed_lag" in typed
        assert values['holdfast_log_position{service="lab"}'] == 3
        assert values['holdfast_up{service="lab"}'] == 1
        assert values['holdfast_http_requests_total{service="lab",status="200"}'] == 2
        assert values['holdfast_http_requests_total{service="lab",status="409"}'] == 1
