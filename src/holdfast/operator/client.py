"""Asking running services over HTTP: the few requests that an operator's tools make.

Comes after configuration (which names the services and the secret), before the modules that show the answers. `get` and
`post` decode an answer as the type that the service encoded (`core.explain`: status, overview, plan). Requests to
`/ops` and feeds are signed if there is a secret. Fails with `Unreachable`, `Unauthorized` or `NotFound`, each naming
the service, and with `HoldfastError` if an answer is not of its type.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from holdfast.config import Settings
from holdfast.errors import ConfigInvalid, HoldfastError, NotFound, Unauthorized, Unreachable

ANSWER_SECONDS_MAX = 40.0
Told = TypeVar("Told")


class PagedList(Protocol):
    """A list that says where its next page begins."""

    @property
    def next(self) -> str | None:
        """The `after` of the next page; None or empty on the last one."""
        ...


Paged = TypeVar("Paged", bound=PagedList)


def services_at(settings: Settings, given: list[str]) -> dict[str, str]:
    """Service name -> URL: from `--url SERVICE=URL` flags, else from the configuration. Raises ConfigInvalid."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, url = text.partition("=")
        if not equals or not url.startswith(("http://", "https://")):
            raise ConfigInvalid(f"--url {text!r}: write SERVICE=URL, such as stock=http://127.0.0.1:8001")
        found[name] = url
    found = found or settings.urls()
    if not found:
        raise ConfigInvalid("no service is named: give --url SERVICE=URL, or set services.NAME.url in holdfast.toml")
    return found


def url_of(settings: Settings, service: str) -> str:
    """A URL as it is, or the URL of a service that the configuration names. Raises ConfigInvalid."""
    if service.startswith(("http://", "https://")):
        return service
    urls = settings.urls()
    if service not in urls:
        raise ConfigInvalid(f"{service!r} is no URL, and services.{service}.url is not set")
    return urls[service]


def get(url: str, path: str, query: Mapping[str, Any], settings: Settings, kind: type[Told]) -> Told:
    """What `GET url/path?query` answers, as a value of that type. Raises HoldfastError."""
    status, _, body = request(url, path, query, settings)
    return _decoded(url, path, status, body, kind)


def post(url: str, path: str, body: Mapping[str, Any] | msgspec.Struct, settings: Settings, kind: type[Told]) -> Told:
    """What `POST url/path` answers, as a value of that type, with the operator's token. Raises HoldfastError."""
    status, _, answer = request(url, path, {}, settings, body=msgspec.json.encode(body))
    return _decoded(url, path, status, answer, kind)


def _decoded(url: str, path: str, status: int, body: bytes, kind: type[Told]) -> Told:
    if status >= 400:
        raise refusal(url, status, body)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HoldfastError(f"{url}{path} answered with something that is no {kind.__name__}: {error}") from None


def request(
    url: str,
    path: str,
    query: Mapping[str, Any],
    settings: Settings,
    *,
    body: bytes = b"",
    seconds: float = ANSWER_SECONDS_MAX,
) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers in small letters, body) of a GET, or of a POST if there is a body. Raises Unreachable."""
    import http.client  # it imports ssl and email, which only a question needs

    parts = urlsplit(url)
    kept = {name: value for name, value in query.items() if value not in ("", None)}
    whole = parts.path.rstrip("/") + quote(path) + ("?" + urlencode(kept) if kept else "")
    method = "POST" if body else "GET"
    headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
    if body and settings.operator_token:
        headers["Authorization"] = f"Bearer {settings.operator_token}"
    elif settings.secret:
        from holdfast.core.wire.signature import sign

        headers["Holdfast-Signature"] = sign(settings.secret, method, whole, body, int(time.time()))
    elif settings.operator_token and path.startswith("/ops"):
        headers["Authorization"] = f"Bearer {settings.operator_token}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        try:
            connection.request(method, whole, body=body or None, headers=headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"{url} does not answer: {error or type(error).__name__}") from None


def parsed(url: str, status: int, body: bytes) -> Any:
    """The JSON of a good answer. Raises HoldfastError, with what the service said, if it is a refusal."""
    if status >= 400:
        raise refusal(url, status, body)
    try:
        return json.loads(body)
    except ValueError:
        raise HoldfastError(f"{url} answered {status} with something that is not JSON") from None


def refusal(url: str, status: int, body: bytes) -> HoldfastError:
    """The error that a refusal stands for, with what the service said."""
    try:
        value: Any = json.loads(body)
    except ValueError:
        return HoldfastError(f"{url} answered {status} with something that is not JSON")
    problem = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    said = f"{url} answered {status}: {problem.get('detail') or problem.get('title') or 'no reason given'}"
    return {401: Unauthorized, 403: Unauthorized, 404: NotFound}.get(status, HoldfastError)(said)


def pages(url: str, path: str, query: Mapping[str, Any], settings: Settings, kind: type[Paged]) -> Iterator[Paged]:
    """Every page of a list. Raises HoldfastError."""
    after: str | None = query.get("after", "")
    while after is not None:
        page = get(url, path, {**query, "after": after}, settings, kind)
        yield page
        after = page.next or None
