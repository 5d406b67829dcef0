"""`holdfast check-config`: everything that can be checked before anything runs.

The settings, the system as declared, and its contracts against their pins. Exit code 2 and one sentence if
something is wrong.
"""

from holdfast.cli.options import AsJson, ConfigFile, say, settings_of
from holdfast.config import Settings
from holdfast.errors import ConfigInvalid
from holdfast.stores.urls import make_store


def check_config(target: str = "", *, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Check the configuration and, with a target, that the system can be built and its contracts are as pinned.

    For example:
    - `holdfast check-config`

    - `holdfast check-config shop.services:shop --config production.toml --json`

    Parameters
    ----------
    target
        MODULE:NAME of a System or a Service.
    """
    settings = settings_of(config)
    names, pins = _checked(target, settings) if target else (sorted(settings.services), 0)
    for name in names:
        make_store(settings.store_of(name), name)
    settled = {"settings": repr(settings), "services": names, "pins": pins}
    text = f"{settings!r}\nservices: {', '.join(names) or 'none named'}; contracts pinned: {pins}; no error found"
    say(settled, as_json=as_json, text=text)
    return 0


def _checked(target: str, settings: Settings) -> tuple[list[str], int]:
    """The services of a system that is checked whole, and how many of its contracts are as they were pinned."""
    from holdfast.host.target import check_pins, load_target

    system = load_target(target)
    names = list(system.services)
    peers = set[str]().union(*(service.peers() for service in system.services.values()))
    if unknown := set(settings.services) - set(names) - peers:
        raise ConfigInvalid(f"services.{min(unknown)}: {system.name!r} has no such service and talks to none")
    return names, check_pins(system)
