"""Configuration: holdfast.toml, then HOLDFAST_* variables, then flags; each later one wins.

`load` reads and checks everything before anything starts, and fails with `ConfigInvalid` in one sentence that names
the setting: an unknown key with the nearest valid one, a wrong type with its path, a host off loopback without a
secret. Comes before the command line's verbs. Secrets are never shown: not in a repr, an error or a log.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import unquote, urlsplit

import msgspec

from holdfast.errors import ConfigInvalid

FILE = "holdfast.toml"
PREFIX = "HOLDFAST_"
SECRET_CHARACTERS_MIN = 16
HIDDEN = "***"


def hidden(url: str) -> str:
    """A URL without its password."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return HIDDEN
    return url.replace(f":{password}@", f":{HIDDEN}@") if password else url


LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "text"]
_CHOICES = {"log_level": get_args(LogLevel), "log_format": get_args(LogFormat)}


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is different for one service: `[services.NAME]`."""

    url: str = ""
    """Where the service is reached by the others: `http://127.0.0.1:8001`. Needed for every peer in another process."""
    store: str = ""
    """Its store URL; empty: the common `store`."""
    host: str = ""
    """The address it listens on in a process of its own; empty: the common `host`."""
    port: int = 0
    """The port it listens on in a process of its own; 0: the one in `url`, else a free one."""
    owner: str = ""
    """The team that owns the service; shown if the service does not answer and cannot say it itself."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every setting. The name in holdfast.toml is the field's; HOLDFAST_STORE and so on are the same in capitals."""

    store: str = "sqlite:./data/"
    """Store URL of every service: `memory:`, `sqlite:FOLDER/` for one file per service, `postgresql://...` for a schema
    per service, `mysql://.../` for a database per service."""
    host: str = "127.0.0.1"
    """Address to listen on. Off loopback a `secret` is needed."""
    port: int = 8000
    """Port to listen on; 0 takes a free one. With `--processes` services get free ports unless they name one."""
    secret: str = ""
    """Shared by all services: signs exchange, feeds and `/ops`. 16 characters or more."""
    secret_file: str = ""
    """A file that contains the secret, as an alternative to `secret`."""
    operator_token: str = ""
    """The bearer token that writes under `/ops` need."""
    invariants: str = ""
    """MODULE:SYSTEM whose invariants repairs are judged by, in their dry run and after them."""
    log_level: LogLevel = "info"
    """The least severe log lines that are written."""
    log_format: LogFormat = "auto"
    """`json`, `text`, or `auto`: text on a terminal, JSON elsewhere."""
    snapshot_every: int = 200
    """Versions between two snapshots of an aggregate."""
    streams_in_memory_max: int = 100_000
    """Aggregates and sagas a service keeps in memory."""
    services: dict[str, ServiceSettings] = {}
    """Overrides by service name. As a variable: HOLDFAST_SERVICES, a JSON object."""

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("secret", "operator_token"):
            shown[name] = HIDDEN if shown[name] else ""
        shown["store"] = hidden(self.store)
        shown["services"] = {
            name: msgspec.structs.replace(found, store=hidden(found.store)) for name, found in self.services.items()
        }
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def passwords(self) -> tuple[str, ...]:
        """The secrets that no log may contain."""
        urls = (self.store, *(found.store for found in self.services.values()))
        found = [urlsplit(url).password or "" for url in urls]
        return (self.secret, self.operator_token, *found, *map(unquote, found))

    def store_of(self, service: str) -> str:
        """The store URL of a service."""
        return self.services.get(service, ServiceSettings()).store or self.store

    def owners(self) -> dict[str, str]:
        """Service name -> owner, for services that have one."""
        return {name: found.owner for name, found in self.services.items() if found.owner}

    def urls(self) -> dict[str, str]:
        """Service name -> URL, for services that have one."""
        return {name: found.url for name, found in self.services.items() if found.url}


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings from a file, the environment and flags, checked.

    `path` None means `holdfast.toml` in the working folder, if there is one; a path that is given must exist. A flag
    that is None was not given. Raises ConfigInvalid.
    """
    values = _from_file(path)
    values.update(_from_environ(environ))
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    return check(_convert(values, path.name if path else FILE))


def replace(settings: Settings, **changes: Any) -> Settings:
    """The settings with some changed, checked again. Raises ConfigInvalid."""
    return check(msgspec.structs.replace(settings, **changes))


def check(settings: Settings) -> Settings:
    """Check the settings beyond their types. Raises ConfigInvalid."""
    if settings.secret_file and not settings.secret:
        try:
            secret = Path(settings.secret_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(f"secret_file: cannot read {settings.secret_file!r}: {_reason(error)}") from None
        settings = msgspec.structs.replace(settings, secret=secret)
        if not secret:
            raise ConfigInvalid(f"secret_file: {settings.secret_file!r} is empty")
    if settings.secret and len(settings.secret) < SECRET_CHARACTERS_MIN:
        raise ConfigInvalid(f"secret: takes {SECRET_CHARACTERS_MIN} characters or more")
    for name, port in {
        "port": settings.port,
        **{f"services.{n}.port": s.port for n, s in settings.services.items()},
    }.items():
        if not 0 <= port <= 65535:
            raise ConfigInvalid(f"{name}: {port} is no port; take one from 1 to 65535, or 0 for a free one")
    for name in ("snapshot_every", "streams_in_memory_max"):
        if getattr(settings, name) < 1:
            raise ConfigInvalid(f"{name}: must be 1 or more")
    for name, service in settings.services.items():
        if service.url and not service.url.startswith(("http://", "https://")):
            raise ConfigInvalid(f"services.{name}.url: {service.url!r} must begin with http:// or https://")
    hosts = {"host": settings.host, **{f"services.{n}.host": s.host for n, s in settings.services.items() if s.host}}
    for name, host in hosts.items():
        if not settings.secret and not is_loopback(host):
            raise ConfigInvalid(
                f"{name}: {host!r} is not loopback, and there is no secret: set secret (or secret_file), or listen on"
                " 127.0.0.1"
            )
    return settings


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_file(path: Path | None) -> dict[str, Any]:
    found = path or Path(FILE)
    if path is None and not found.exists():
        return {}
    import tomllib

    try:
        return tomllib.loads(found.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"cannot read {str(found)!r}: {_reason(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{found.name} is not TOML: {error}") from None


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in Settings.__struct_fields__:
            raise ConfigInvalid(f"{variable} is no setting{_nearest(name, Settings, PREFIX, upper=True)}")
        values[name] = _parsed(variable, name, text)
    return values


def _parsed(variable: str, name: str, text: str) -> Any:
    if name == "services":
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ConfigInvalid(f"{variable} must be a JSON object by service name: {error}") from None
    if isinstance(getattr(Settings(), name), int):
        try:
            return int(text)
        except ValueError:
            raise ConfigInvalid(f"{variable}: {text!r} is not a whole number") from None
    return text


def _convert(values: dict[str, Any], source: str) -> Settings:
    if unknown := [name for name in values if name not in Settings.__struct_fields__]:
        raise ConfigInvalid(f"{source}: {unknown[0]} is no setting{_nearest(unknown[0], Settings)}")
    services = values.get("services", {})
    for service, found in cast(dict[str, Any], services).items() if isinstance(services, dict) else ():
        for name in cast(dict[str, Any], found) if isinstance(found, dict) else ():
            if name not in ServiceSettings.__struct_fields__:
                where = f"services.{service}."
                raise ConfigInvalid(f"{source}: {where}{name} is no setting{_nearest(name, ServiceSettings, where)}")
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"{source}: {_where(values, error)}") from None


def _where(values: dict[str, Any], error: msgspec.ValidationError) -> str:
    """Path and reason; msgspec names no keys of a mapping, so a service at fault is looked for by name."""
    text, _, at = str(error).partition(" - at `")
    path = at.rstrip("`").removeprefix("$.").removeprefix("$") or "the file"
    if path.startswith("services[...]"):
        for name, found in cast(dict[str, Any], values["services"]).items():
            try:
                msgspec.convert(found, ServiceSettings)
            except msgspec.ValidationError:
                path = path.replace("[...]", f".{name}")
                break
    if choices := _CHOICES.get(path):
        text = f"takes {', '.join(choices)}"
    return f"{path}: {text[:1].lower()}{text[1:]}"


def _nearest(name: str, settings: type[msgspec.Struct], prefix: str = "", *, upper: bool = False) -> str:
    import difflib

    close = difflib.get_close_matches(name, settings.__struct_fields__, n=1, cutoff=0.5)
    if not close:
        return f"; there are: {', '.join(settings.__struct_fields__)}"
    return f"; did you mean {prefix}{close[0].upper() if upper else close[0]}?"


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
