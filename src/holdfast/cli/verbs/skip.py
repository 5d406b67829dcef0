"""`holdfast skip`: messages that wait are answered with a rejection, or stuck sagas pass over what they were refused.

Each target is found and repaired in the service that has it (`cli.repairs`); who ordered it and why is recorded.
`--dry-run` shows the plan and changes nothing. Exit code 1 if something is refused or a service does not answer.
"""

from holdfast.cli.options import (
    ALL_MESSAGES,
    CARRIED_OUT,
    CONFIGURED,
    NO_LIST,
    Access,
    AsJson,
    Lists,
    MessageSelection,
    Signature,
    Trial,
)
from holdfast.cli.repairs import Repairs
from holdfast.errors import ConfigInvalid
from holdfast.operator.repair import RepairOrder


def skip(
    *targets: str,
    signature: Signature,
    lists: Lists = NO_LIST,
    selection: MessageSelection = ALL_MESSAGES,
    trial: Trial = CARRIED_OUT,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """Answer messages that wait with a rejection, or pass over what stuck sagas were refused.

    For example: `holdfast skip order@17 --by "on call" --why "the order is a test"`

    Parameters
    ----------
    targets
        Messages (service@position) or sagas (Type/id).
    """
    repairs = Repairs(access, trial)
    found = repairs.targets(targets, lists.chosen(), selection, lists.stream)
    if targets and len(found) > len(targets):
        places = ", ".join(f"{one.service} ({one.stream})" for one in found)
        raise ConfigInvalid(f"it waits at more than one place: {places}; choose one with --service or --stream")
    return repairs.carry_out(found, RepairOrder("skip", signature.by, signature.why), as_json=as_json)
