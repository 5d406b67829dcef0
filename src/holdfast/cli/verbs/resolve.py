"""`holdfast resolve`: end a hanging transaction, saga or effect by an operator's recorded decision.

A message or a saga is resolved in the service that has it, as by any repair (`cli.repairs`). For a staged transaction
every service is asked what it knows: if one knows a decision, another decision is refused; if the coordinator answers,
it decides; if it does not, the services that hold something decide, each after it has asked all the others. Exit code 1
if it is refused, or if a service that holds something could not be told.
"""

import msgspec

from holdfast.cli.options import (
    CARRIED_OUT,
    CONFIGURED,
    Access,
    AsJson,
    Data,
    Flag,
    Signature,
    Trial,
    say,
)
from holdfast.cli.repairs import Repairs, data_of
from holdfast.core.explain.plan import StageResolved
from holdfast.errors import ConfigInvalid, HoldfastError, NotFound
from holdfast.operator.client import post
from holdfast.operator.repair import RepairOrder
from holdfast.operator.stages import standings, whom


def resolve(
    tx: str,
    *,
    signature: Signature,
    commit: Flag = False,
    cancel: Flag = False,
    done: Flag = False,
    refused: Flag = False,
    undone: Flag = False,
    data: Data = "",
    trial: Trial = CARRIED_OUT,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """End a hanging staged transaction, a stuck saga, or an effect whose outcome is unknown.

    For example:
    - `holdfast resolve 01KAX3 --cancel --by "on call" --why "desk is down for the day"`

    - `holdfast resolve 01KAX3 --commit --by "on call" --why "the log of desk says so" --json`

    - `holdfast resolve order@17 --done --data '{"order_id": "o1"}' --by me --why "the bank says so"`

    - `holdfast resolve CheckoutSaga/01jd... --undone --by me --why "refunded by hand"`

    Parameters
    ----------
    tx
        The transaction's id, as `holdfast stages` shows it; or a message (service@position); or a saga (Type/id).
    commit
        Let everything that is held take effect.
    cancel
        Drop everything that is held.
    done
        The effect has happened, with --data as its event; or the saga is done.
    refused
        The effect has not happened, and will not.
    undone
        The saga is undone, as far as it needs to be.
    data
        The event of an effect that is done, as JSON or @FILE.
    """
    said = {"commit": commit, "cancel": cancel, "done": done, "refused": refused, "undone": undone}
    chosen = [name for name, given in said.items() if given]
    if len(chosen) != 1:
        raise ConfigInvalid(f"give one of {', '.join(f'--{name}' for name in said)}")
    repairs = Repairs(access, trial)
    order = RepairOrder("resolve", signature.by, signature.why, decision=chosen[0])
    if commit or cancel:
        return _staged(repairs, msgspec.structs.replace(order, tx=tx), dry_run=trial.dry_run, as_json=as_json)
    if data:
        order = msgspec.structs.replace(order, data=data_of(data))
    return repairs.carry_out(repairs.locate(tx), order, as_json=as_json)


def _staged(repairs: Repairs, order: RepairOrder, *, dry_run: bool, as_json: bool) -> int:
    """Commit or cancel a staged transaction at the services that must be told, or say which those are."""
    urls, settings = repairs.urls, repairs.settings
    known, silent = standings(urls, order.tx, settings)
    told = whom(known)
    if dry_run:
        text = "\n".join(f"{name} would be told to {order.decision} it" for name in told) or "no service knows it"
        value = {"whom": told, "standing": msgspec.to_builtins(known), "silent": silent}
        say(value, as_json=as_json, text=text)
        return 0 if told else 1
    done: list[StageResolved] = []
    refused: dict[str, str] = {}
    for name in told:
        try:
            done.append(post(urls[name], "/ops/repairs", order, settings, StageResolved))
        except HoldfastError as error:
            refused[name] = str(error)
            break  # a service that refuses may know a decision: the others must not be told another one
    if not done and not refused:
        missing = f"; no answer from {', '.join(silent)}" if silent else ""
        raise NotFound(f"no service that answers knows a staged transaction {order.tx}{missing}")
    lines = [f"{one.service}  {'committed' if one.commit else 'cancelled'}  ({one.how})" for one in done]
    lines += [f"! {name}: {text}" for name, text in {**refused, **silent}.items()]
    value = {"resolved": msgspec.to_builtins(done), "refused": refused, "silent": silent}
    say(value, as_json=as_json, text="\n".join(lines))
    return 1 if refused else 0
