"""`holdfast retry`: parked messages are tried again, and what stuck sagas were refused, one by one or in bulk.

Each target is found and repaired in the service that has it (`cli.repairs`); who ordered it and why is recorded.
`--dry-run` shows the plan and changes nothing. Exit code 1 if something is refused or a service does not answer.
"""

import msgspec

from holdfast.cli.options import (
    ALL_MESSAGES,
    CARRIED_OUT,
    CONFIGURED,
    NO_LIST,
    Access,
    AsJson,
    Data,
    Lists,
    MessageSelection,
    Signature,
    Trial,
)
from holdfast.cli.repairs import Repairs, data_of
from holdfast.errors import ConfigInvalid
from holdfast.operator.repair import RepairOrder


def retry(
    *targets: str,
    signature: Signature,
    lists: Lists = NO_LIST,
    data: Data = "",
    selection: MessageSelection = ALL_MESSAGES,
    trial: Trial = CARRIED_OUT,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """Try parked messages again, or what stuck sagas were refused.

    For example:
    - `holdfast retry order@17 --by "on call" --why "release 12 fixes it"`

    - `holdfast retry --parked --cause KeyError --by "on call" --why "release 12 fixes it" --dry-run`

    - `holdfast retry order@17 --data '{"sku": "tea", "order_id": "o1", "quantity": 2}' --by me --why "a typo"`

    Parameters
    ----------
    targets
        Messages (service@position) or sagas (Type/id).
    data
        The payload to try instead of the old one, for one message.
    """
    repairs = Repairs(access, trial)
    found = repairs.targets(targets, lists.chosen(), selection, lists.stream)
    order = RepairOrder("retry", signature.by, signature.why)
    if data:
        if len(targets) != 1 or lists.parked or lists.stuck:
            raise ConfigInvalid("--data changes one message: name that one alone")
        order = msgspec.structs.replace(order, data=data_of(data))
    return repairs.carry_out(found, order, as_json=as_json)
