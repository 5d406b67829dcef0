"""`holdfast parked`: the messages that have failed too often, in every service, the oldest first.

Asks each service's `/ops/parked`. Exit code 0 if nothing is listed, 1 if something is, or if a service does not answer.
"""

from holdfast.cli.lists import show
from holdfast.cli.options import ALL_MESSAGES, CONFIGURED, Access, AsJson, Flag, MessageSelection


def parked(
    *,
    selection: MessageSelection = ALL_MESSAGES,
    all: Flag = False,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """List the messages that have failed too often and wait for an operator.

    For example:
    - `holdfast parked --service stock`

    - `holdfast parked --fingerprint 5f0c9b1e22aa --json`

    Parameters
    ----------
    all
        Also messages that are still tried again, or wait behind another.
    """
    query = {**selection.filters(), "all": int(all)}
    return show("parked", query, selection.service, access, as_json=as_json)
