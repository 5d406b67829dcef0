"""`holdfast undo`: running sagas that are not past their point of no return are undone, one by one or in bulk.

Each saga is found and undone in the service that has it (`cli.repairs`); who ordered it and why is recorded.
`--dry-run` shows the plan and changes nothing. Exit code 1 if something is refused or a service does not answer.
"""

from holdfast.cli.options import (
    ALL,
    CARRIED_OUT,
    CONFIGURED,
    Access,
    AsJson,
    Flag,
    Selection,
    Signature,
    Trial,
)
from holdfast.cli.repairs import Repairs
from holdfast.operator.repair import RepairOrder


def undo(
    *targets: str,
    signature: Signature,
    unsettled: Flag = False,
    selection: Selection = ALL,
    trial: Trial = CARRIED_OUT,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """Undo running sagas that are not past their point of no return.

    For example: `holdfast undo CheckoutSaga/01jd... --by "on call" --why "the customer called" --dry-run`

    Parameters
    ----------
    targets
        Sagas (Type/id).
    unsettled
        All sagas that have not ended and pass the filters.
    """
    repairs = Repairs(access, trial)
    found = repairs.targets(targets, {"unsettled": unsettled}, selection)
    return repairs.carry_out(found, RepairOrder("undo", signature.by, signature.why), as_json=as_json)
