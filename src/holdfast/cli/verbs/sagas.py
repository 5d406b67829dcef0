"""`holdfast sagas`: the sagas that have not ended, in every service.

Asks each service's `/ops/sagas`. Exit code 1 if one is stuck, or if a service does not answer.
"""

from typing import Literal

import msgspec

from holdfast.cli.options import CONFIGURED, Access, AsJson, say
from holdfast.core.explain.overview import SagaEntries, SagaEntry
from holdfast.errors import HoldfastError
from holdfast.operator.client import pages


def sagas(
    *,
    status: Literal["running", "undoing", "committed", "cancelling", "stuck"] | None = None,
    access: Access = CONFIGURED,
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
    settings = access.settings()
    found: list[tuple[str, SagaEntry]] = []
    silent: dict[str, str] = {}
    for name, where in access.services(settings).items():
        try:
            for page in pages(where, "/ops/sagas", {"status": status or ""}, settings, SagaEntries):
                found += [(name, saga) for saga in page.items]
        except HoldfastError as error:
            silent[name] = str(error)
    lines = [f"{name}  {saga.id}  {saga.status}  {saga.step} {saga.cause}".rstrip() for name, saga in found]
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    value = {"sagas": [{**msgspec.to_builtins(saga), "service": name} for name, saga in found], "silent": silent}
    say(value, as_json=as_json, text="\n".join(lines) or "no saga is open")
    return 1 if silent or any(saga.status == "stuck" for _, saga in found) else 0
