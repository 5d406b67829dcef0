"""`holdfast stages`: what staged transactions hold, since when, and which messages wait for it.

Asks each service's `/ops/stages`. Exit code 1 if a service does not answer.
"""

import time

import msgspec

from holdfast.cli.options import CONFIGURED, Access, AsJson, say
from holdfast.core.explain.overview import StageList, StageStatus
from holdfast.errors import HoldfastError
from holdfast.operator.client import get


def stages(*, tx: str | None = None, access: Access = CONFIGURED, as_json: AsJson = False) -> int:
    """List what staged transactions hold.

    For example:
    - `holdfast stages --url stock=http://127.0.0.1:8000/stock`

    - `holdfast stages --tx 01KAX3 --json`

    Parameters
    ----------
    tx
        Only what this transaction holds.
    """
    settings = access.settings()
    found: list[tuple[str, StageStatus]] = []
    silent: dict[str, str] = {}
    for name, where in access.services(settings).items():
        try:
            told = get(where, "/ops/stages", {"tx": tx or ""}, settings, StageList)
            found += [(name, hold) for hold in told.held]
        except HoldfastError as error:
            silent[name] = str(error)
    now = time.time()
    lines = [
        f"{name}  {hold.stream}  held for {now - hold.since / 1e6:.1f} s by {hold.tx}"
        f" of {hold.coordinator}, {len(hold.waiting)} waiting"
        for name, hold in found
    ]
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    value = {"held": [{"service": name, **msgspec.to_builtins(hold)} for name, hold in found], "silent": silent}
    say(value, as_json=as_json, text="\n".join(lines) or "nothing is held")
    return 1 if silent else 0
