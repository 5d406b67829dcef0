"""Logs of our own processes: one line per event, JSON or readable, with correlation ids and without secrets.

The library logs to `holdfast.*` loggers of the standard library and never configures them; the command line's
processes call `configure` once, before anything else. `correlation` is set where a request comes in; what is logged
under it carries it. Never raises: a line that cannot be rendered is written as text.
"""

import contextvars
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO, cast

correlation: contextvars.ContextVar[str] = contextvars.ContextVar("holdfast_correlation", default="")
"""The correlation id of the request that is being handled; empty outside of a request."""

HIDDEN = "***"
_SECRET_KEY = re.compile(r"secret|token|authorization|password|signature|cookie|card|cvv|iban", re.IGNORECASE)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+")
_PAIR = re.compile(
    r"(?i)\b([\w-]*(?:secret|token|authorization|password|signature|card_number|cvv)[\w-]*)"
    r"(['\"]?\s*[=:]\s*)(['\"]?)(?!(?:bearer|basic)\b)[^\s'\",;&)}]+"
)
DEPTH_MAX = 6


def filtered(value: Any, depth: int = 0) -> Any:
    """A copy that hides everything that looks like a secret: by key in mappings, by pattern in text."""
    if isinstance(value, str):
        return _PAIR.sub(rf"\1\2\3{HIDDEN}", _BEARER.sub(rf"\1 {HIDDEN}", value))
    if depth >= DEPTH_MAX:
        return "..." if isinstance(value, Mapping | list | tuple) else value
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _SECRET_KEY.search(str(key)) else filtered(item, depth + 1)
            for key, item in cast(Mapping[Any, Any], value).items()
        }
    if isinstance(value, list | tuple):
        return [filtered(item, depth + 1) for item in cast(list[Any], value)]
    return value


def configure(
    *,
    level: str = "info",
    form: Literal["auto", "json", "text"] = "auto",
    service: str = "",
    secrets: tuple[str, ...] = (),
    stream: TextIO | None = None,
) -> logging.Handler:
    """Write the log lines of this process to `stream` (standard error); `secrets` are hidden wherever they occur.

    Replaces the handlers of the root logger: for processes that are ours, never for a library. Returns the handler.
    """
    import structlog

    out = stream or sys.stderr
    as_json = form == "json" or (form == "auto" and not out.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _ProcessFields(service),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, _Filter(secrets), structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [
            structlog.processors.format_exc_info,
            _Filter(secrets),
            structlog.dev.ConsoleRenderer(colors=out.isatty()),
        ]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


class _ProcessFields:
    """Adds the fields that every line of this process carries."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.pop("color_message", None)  # uvicorn's own copy of the line, for terminals
        if self._service:
            event.setdefault("service", self._service)
        if found := correlation.get():
            event.setdefault("correlation_id", found)
        return event


class _Filter:
    """Hides secrets, as the last step before a line is rendered."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: self._hide(value) for key, value in filtered(dict(event)).items()}

    def _hide(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
            return value
        if isinstance(value, dict):
            return {key: self._hide(item) for key, item in cast(dict[str, Any], value).items()}
        if isinstance(value, list):
            return [self._hide(item) for item in cast(list[Any], value)]
        if isinstance(value, BaseException):
            return self._hide(filtered(str(value)))
        return value
