"""Reading what an audit needs: the feeds of all services, their aggregates, and the dashboards, over HTTP.

Waits first until the system has settled: no saga open, nothing waiting, every feed and exchange caught up.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from marketplace.facts import AGGREGATES, Evidence

PAGE = 1000


async def settled(urls: Mapping[str, str], session: aiohttp.ClientSession, *, seconds: float = 30.0) -> list[str]:
    """Wait until nothing is left to do; what is left where it does not come to an end in time."""
    end, calm = time.monotonic() + seconds, 0
    left: list[str] = ["not asked yet"]
    while time.monotonic() < end and calm < 3:
        left = [text for name, url in urls.items() for text in await _left(name, url, session)]
        calm = 0 if left else calm + 1
        await asyncio.sleep(0.1)
    return left


async def _left(name: str, url: str, session: aiohttp.ClientSession) -> list[str]:
    try:
        found = await _json(session, f"{url}/ops/progress")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return [f"{name} does not answer: {error}"]
    left = [f"{name}: {found[what]} {what}" for what in ("sagas_open", "inbox") if found[what]]
    left += [f"{name}: {one['message']} waits: {one['error']}" for one in found["waiting"]]
    left += [
        f"{name}: {one['consumer']} is {one['lag']} behind {one['producer']}" for one in found["feeds"] if one["lag"]
    ]
    for peer, one in found["exchange"].items():
        left += [f"{name}: exchange with {peer}: {what}" for what in ("behind", "owed", "failure") if one[what]]
    return left


async def heads(urls: Mapping[str, str], session: aiohttp.ClientSession) -> dict[str, int]:
    """The last position of each service: what comes after belongs to a run that begins now."""
    found: dict[str, int] = {}
    for name, url in urls.items():
        async with session.get(f"{url}/events?limit=1") as answer:
            answer.raise_for_status()
            found[name] = int(answer.headers["Holdfast-Head"])
    return found


async def gather(
    urls: Mapping[str, str],
    session: aiohttp.ClientSession,
    told: Mapping[str, Mapping[str, str]],
    since: Mapping[str, int] | None = None,
) -> Evidence:
    """All that an audit looks at; `since` are the heads when the run of `told` began. What was removed is not there."""
    feeds = {name: await _feed(url, session) for name, url in urls.items()}
    state: dict[str, dict[str, dict[str, Any]]] = {}
    for service, kinds in AGGREGATES.items():
        for kind in kinds:
            state[kind] = await _aggregates(urls[service], kind, session)
    boards = {
        int(key): await _json(session, f"{urls['seller']}/seller/dashboard/{key}") for key in state.get("Seller", {})
    }
    return Evidence(feeds, state, boards, dict(since or {}), {kind: dict(said) for kind, said in told.items()})


async def _feed(url: str, session: aiohttp.ClientSession) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after, head = 0, 1
    while after < head:
        async with session.get(f"{url}/events?after={after}&limit={PAGE}") as answer:
            answer.raise_for_status()
            found += await answer.json(content_type=None)
            after, head = int(answer.headers["Holdfast-Upto"]), int(answer.headers["Holdfast-Head"])
    return found


async def _aggregates(url: str, kind: str, session: aiohttp.ClientSession) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    after: str | None = ""
    while after is not None:
        page = await _json(session, f"{url}/ops/aggregates/{kind}?limit={PAGE}&after={quote(after, safe='')}")
        found |= {item["key"]: item["state"] for item in page["items"] if _is_there(item["state"])}
        after = page["next"]
    return found


def _is_there(state: Mapping[str, Any]) -> bool:
    """False for what was removed: all is blank but its status, which has a default, and what is masked anyway."""
    return any(value and value != "***" for name, value in state.items() if name != "status")


async def _json(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as answer:
        answer.raise_for_status()
        return await answer.json(content_type=None)
