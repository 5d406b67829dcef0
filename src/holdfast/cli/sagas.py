"""`holdfast sagas`: the sagas that have not ended, in every service.

Asks each service's `/ops/sagas`. Exit code 1 when one is stuck, or a service does not answer.
"""

from typing import Any, Literal

from holdfast.cli.asking import pages, services_at
from holdfast.cli.shared import AsJson, ConfigFile, Urls, say, settings_of
from holdfast.errors import HoldfastError


def sagas(
    *,
    status: Literal["running", "undoing", "committed", "cancelling", "stuck"] | None = None,
    url: Urls = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """List the sagas that have not ended.

    For example:
    - `holdfast sagas --url order=http://127.0.0.1:8000/order`

    - `holdfast sagas --status stuck --json`

    Parameters
    ----------
    status
        Only those running, undoing or stuck; of staged ones also committed or cancelling.
    """
    settings = settings_of(config)
    found: list[dict[str, Any]] = []
    silent: dict[str, str] = {}
    for name, where in services_at(settings, url or []).items():
        try:
            rows = pages(where, "/ops/sagas", {"status": status or ""}, settings)
            found += [{**row, "service": name} for row in rows]
        except HoldfastError as error:
            silent[name] = str(error)
    lines = [
        f"{row['service']}  {row.get('id') or row.get('stream')}  {row.get('status')}"
        f"  {row.get('step') or ''} {row.get('cause') or ''}".rstrip()
        for row in found
    ]
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    say({"sagas": found, "silent": silent}, as_json=as_json, text="\n".join(lines) or "no saga is open")
    return 1 if silent or any(row.get("status") == "stuck" for row in found) else 0
