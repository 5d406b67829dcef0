"""`holdfast trail`: everything that one id led to, in every service, as a tree.

Asks each service's `/ops/trail` and merges the answers (`core.explain.trail`). If a service does not answer,
it is named and the rest is shown. The exit code is 1 then, and if something is unfinished.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from holdfast.cli.options import CONFIGURED, Access, AsJson, say
from holdfast.core.explain.trail import build
from holdfast.core.explain.tree import render
from holdfast.errors import NotFound
from holdfast.operator.records import as_value, gather_records

if TYPE_CHECKING:
    from holdfast.core.declare.saga import SagaType


def trail(id: str, *, target: str = "", access: Access = CONFIGURED, as_json: AsJson = False) -> int:
    """Show what happened under an id, in every service, and what has not happened yet.

    For example:
    `holdfast trail 01jd... --url order=http://127.0.0.1:8000/order --url stock=http://127.0.0.1:8000/stock`

    `holdfast trail my-correlation-id`                          the services of holdfast.toml

    `holdfast trail CheckoutSaga/o1 --target shop.services:shop`   a stream, with the steps its saga has left

    Parameters
    ----------
    id
        A transaction, a correlation id, or a stream (Type/key).
    target
        MODULE:SYSTEM; with it the trail says which steps an open saga has left.
    """
    settings = access.settings()
    sagas = _sagas(target) if target else None
    found, silent = gather_records(access.services(settings), id, settings)
    result = build(found, sagas)
    if not result.counted and not silent:
        raise NotFound(f"no service knows {id!r}; it takes a transaction, a correlation id, or a stream (Type/key)")
    text = "\n".join([render(result), *(f"! {name}: {why}" for name, why in silent.items())])
    say({**as_value(result), "silent": silent}, as_json=as_json, text=text)
    return 1 if silent or result.unfinished else 0


def _sagas(target: str) -> "Mapping[str, Mapping[str, SagaType]]":
    """Service -> its sagas as they are declared."""
    from holdfast.host.target import load_target

    return {name: service.sagas for name, service in load_target(target).services.items()}
