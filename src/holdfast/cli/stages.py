"""`holdfast stages`: what staged transactions hold, since when, and who waits for it.

Asks each service's `/ops/stages`. Exit code 1 when a service does not answer.
"""

import time
from typing import Any

from holdfast.cli.asking import get, services_at
from holdfast.cli.shared import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.errors import HoldfastError


def stages(*, tx: str | None = None, url: Urls = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """List what staged transactions hold.

    For example:
    - `holdfast stages --url stock=http://127.0.0.1:8000/stock`

    - `holdfast stages --tx 01KAX3 --json`

    Parameters
    ----------
    tx
        Only what this transaction holds.
    """
    settings = settings_of(config)
    held: list[dict[str, Any]] = []
    silent: dict[str, str] = {}
    for name, where in services_at(settings, url or []).items():
        try:
            found = get(where, "/ops/stages", {"tx": tx or ""}, settings)
            held += [{"service": name, **row} for row in found["held"]]
        except HoldfastError as error:
            silent[name] = str(error)
    now = time.time()
    lines = [
        f"{row['service']}  {row['stream']}  held for {now - row['since'] / 1e6:.1f} s by {row['tx']}"
        f" of {row['coordinator']}, {len(row['waiting'])} waiting"
        for row in held
    ]
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    say({"held": held, "silent": silent}, as_json=as_json, text="\n".join(lines) or "nothing is held")
    return 1 if silent else 0
