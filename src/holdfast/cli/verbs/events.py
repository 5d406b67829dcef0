"""`holdfast events`: the public events of a service, as they stand in its log.

It reads the feed (`GET /events`) page by page, as any other service does. The service must run: it fails with
`Unreachable` if the service does not answer.
"""

import json
from typing import Annotated, Any

from cyclopts import Parameter

from holdfast.cli.options import AsJson, ConfigFile, settings_of
from holdfast.core.log.record import parse_record_id
from holdfast.operator.client import parsed, request, url_of

PAGE = 500
WAIT_SECONDS = 20


def events(
    service: str,
    *,
    after: int = 0,
    limit: int = 0,
    follow: Annotated[bool, Parameter(negative="")] = False,
    types: str = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Show the events of a service, oldest first.

    For example:
    - `holdfast events http://127.0.0.1:8000/stock`: all of them

    - `holdfast events stock --after 120 --follow`: from position 121 on, and every later one

    - `holdfast events stock --types stock.reserved.v1 --json`: one JSON object a line

    Parameters
    ----------
    service
        A URL, or the name of a service that the configuration gives a URL.
    after
        Begin after this position.
    limit
        Stop after this number of events; 0 means no limit.
    follow
        Go on with later events, until Ctrl-C.
    types
        Only these stored types, separated by commas.
    """
    settings = settings_of(config)
    url = url_of(settings, service)
    shown = 0
    while True:
        size = min(PAGE, limit - shown) if limit else PAGE
        query = {"after": after, "limit": size, "types": types, "wait": WAIT_SECONDS if follow else ""}
        status, headers, body = request(url, "/events", query, settings)
        page: list[dict[str, Any]] = parsed(url, status, body)
        for event in page:
            print(json.dumps(event) if as_json else line(event), flush=True)
        shown += len(page)
        last = position_of(page[-1]) if page else after
        upto = next((int(value) for name, value in headers.items() if name.endswith("upto") and value.isdigit()), last)
        finished = not follow and (upto <= after or (not page and upto == last) or len(page) < size)
        after = max(after, upto if len(page) < size else last)
        if finished or (limit and shown >= limit):
            return 0


def position_of(event: dict[str, Any]) -> int:
    """The position of a CloudEvent in its log."""
    found = parse_record_id(str(event.get("id", "")))
    return found[1] if found else int(event.get("position", 0))


def line(event: dict[str, Any]) -> str:
    """One event on one line."""
    subject = f"{event['subject']}  " if event.get("subject") else ""
    data = json.dumps(event.get("data"), ensure_ascii=False)
    return f"{event.get('id', '?')}  {event.get('time', '')}  {event.get('type', '?')}  {subject}{data}"
