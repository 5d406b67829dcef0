"""`holdfast check-config`: everything that can be checked before anything runs.

The settings, the system as declared, and its contracts against their pins. Exit code 2 and one sentence when
something does not hold.
"""

from collections.abc import Iterable

from holdfast.cli.options import AsJson, ConfigFile, say, settings_of
from holdfast.compose import make_store
from holdfast.core.declare.service import Service
from holdfast.errors import ConfigInvalid
from holdfast.host.target import check_pins, load_target


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
    system = load_target(target) if target else None
    names = list(system.services) if system else sorted(settings.services)
    for name in names:
        make_store(settings.store_of(name), name)
    if system and (unknown := set(settings.services) - set(names) - _peers(system.services.values())):
        raise ConfigInvalid(f"services.{min(unknown)}: {system.name!r} has no such service and talks to none")
    pins = check_pins(system) if system else 0
    settled = {"settings": repr(settings), "services": names, "pins": pins}
    text = f"{settings!r}\nservices: {', '.join(names) or 'none named'}; contracts pinned: {pins}; all is well"
    say(settled, as_json=as_json, text=text)
    return 0


def _peers(services: Iterable[Service]) -> set[str]:
    return set[str]().union(*(service.peers() for service in services))
