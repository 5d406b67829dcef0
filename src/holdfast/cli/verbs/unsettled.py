"""`holdfast unsettled`: the sagas that have not ended, in every service, and what each waits for, the oldest first.

Asks each service's `/ops/unsettled`. Exit code 0 if nothing is listed, 1 if something is, or if a service does not
answer.
"""

from holdfast.cli.lists import show
from holdfast.cli.options import ALL, CONFIGURED, Access, AsJson, Selection


def unsettled(*, selection: Selection = ALL, access: Access = CONFIGURED, as_json: AsJson = False) -> int:
    """List the sagas that have not ended, and what each waits for.

    For example: `holdfast unsettled --older 60`
    """
    return show("unsettled", selection.filters(), selection.service, access, as_json=as_json)
