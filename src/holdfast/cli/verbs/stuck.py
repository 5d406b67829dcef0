"""`holdfast stuck`: the sagas that can neither go on nor be undone by themselves, in every service, the oldest first.

Asks each service's `/ops/stuck`. Exit code 0 if nothing is listed, 1 if something is, or if a service does not answer.
"""

from holdfast.cli.lists import show
from holdfast.cli.options import ALL, CONFIGURED, Access, AsJson, Selection


def stuck(*, selection: Selection = ALL, access: Access = CONFIGURED, as_json: AsJson = False) -> int:
    """List the sagas that can neither go on nor be undone by themselves.

    For example: `holdfast stuck --cause refund --older 3600`
    """
    return show("stuck", selection.filters(), selection.service, access, as_json=as_json)
