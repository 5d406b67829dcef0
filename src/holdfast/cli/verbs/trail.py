"""`holdfast trail`: everything that one id led to, in every service, as a tree.

Asks each service's `/ops/trail` and merges the answers (`core.explain.trail`). A service that does not answer is named,
and the rest is shown: then the exit code is 1, as it is when something is unfinished.
"""

from holdfast.cli.options import CONFIGURED, Access, AsJson, say
from holdfast.core.explain.trail import build
from holdfast.core.explain.tree import render
from holdfast.errors import NotFound
from holdfast.host.target import load_target
from holdfast.operator.records import as_value, gather_records


def trail(id: str, *, target: str = "", access: Access = CONFIGURED, as_json: AsJson = False) -> int:
    """Show what happened under an id, in every service, and what has not happened yet.

    For example:
    `holdfast trail 01jd... --url order=http://127.0.0.1:8000/order --url stock=http://127.0.0.1:8000/stock`

    `holdfast trail my-correlation-id`                          services from holdfast.toml

    `holdfast trail CheckoutSaga/o1 --target shop.services:shop`   a stream; with what its saga does next

    Parameters
    ----------
    id
        A transaction, a correlation id, or a stream (Type/key).
    target
        MODULE:SYSTEM; with it the trail says which steps an open saga has left.
    """
    settings = access.settings()
    system = load_target(target) if target else None
    found, silent = gather_records(access.services(settings), id, settings)
    result = build(found, {name: service.sagas for name, service in system.services.items()} if system else {})
    if not result.counted and not silent:
        raise NotFound(f"no service knows {id!r}; it takes a transaction, a correlation id, or a stream (Type/key)")
    text = "\n".join([render(result), *(f"! {name}: {why}" for name, why in silent.items())])
    say({**as_value(result), "silent": silent}, as_json=as_json, text=text)
    return 1 if silent or result.unfinished else 0
