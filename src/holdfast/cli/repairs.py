"""What `holdfast retry`, `skip`, `undo` and `resolve` share: what is to be repaired, and how results are shown.

Repairs are carried out one by one, and each result is shown at once; a refusal does not stop the rest. Comes after
`operator.repair`, which asks the services, and `operator.judge`; before the four verbs. A run that was interrupted can
be repeated: what is repaired answers `already`, or is not listed any more. The exit code is 0 if every repair is
applied or was applied before, 1 if one is refused or a service does not answer. Fails with `ConfigInvalid`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.cli.options import Access, Selection, Trial, say
from holdfast.core.explain.plan import Plan
from holdfast.errors import ConfigInvalid
from holdfast.operator.repair import (
    Judgement,
    RepairOrder,
    RepairOutcome,
    RepairTarget,
    gather_targets,
    locate,
    repair,
)

if TYPE_CHECKING:
    from holdfast.operator.judge import RepairJudge


class Repairs:
    """The repairs of one command: what is to be repaired, where the services are, and which invariants judge it."""

    def __init__(self, access: Access, trial: Trial) -> None:
        self.settings = access.settings()
        self.urls = access.services(self.settings)
        self.silent: dict[str, str] = {}
        """The services that did not say what there is to repair -> why."""
        self._dry_run, self._invariants = trial.dry_run, trial.invariants or self.settings.invariants

    def targets(
        self, names: Sequence[str], lists: Mapping[str, bool], selection: Selection, stream: str = ""
    ) -> list[RepairTarget]:
        """Everything to repair: the targets that are named, or those in the chosen lists. Raises HoldfastError."""
        chosen = [name for name, wanted in lists.items() if wanted]
        if bool(names) == bool(chosen):
            raise ConfigInvalid(f"name targets, or give {' or '.join(f'--{name}' for name in lists)}: one of the two")
        service = selection.service
        if service and service not in self.urls:
            raise ConfigInvalid(f"--service {service!r} is not known; there are {', '.join(self.urls)}")
        found: list[RepairTarget] = []
        for name in names:
            found += locate(self.urls, self.settings, name, service=service, stream=stream)
        filters = {"stream": stream, **selection.filters()}
        listed, self.silent = gather_targets(self.urls, self.settings, chosen, filters, service)
        for who, reason in self.silent.items():
            print(f"! {who}: {reason}", file=sys.stderr)
        return found + listed

    def locate(self, name: str) -> list[RepairTarget]:
        """Where the message or saga of that name is. Raises HoldfastError."""
        return locate(self.urls, self.settings, name)

    def carry_out(self, targets: Sequence[RepairTarget], order: RepairOrder, *, as_json: bool) -> int:
        """Repair one target after the other, and show each result; the exit code."""
        judge = self._judge()
        order = msgspec.structs.replace(order, dry_run=self._dry_run)
        results: list[RepairOutcome] = []
        for number, target in enumerate(targets, 1):
            result = repair(self.urls, self.settings, target, order)
            if judge is not None and self._dry_run:
                result = judge.judged_before(result, order)
            results.append(result)
            if not as_json:
                print(_shown(result, f"{number}/{len(targets)}"), flush=True)
        if judge is not None and not self._dry_run:
            results = [judge.judged_after(result) for result in results]
            for result in results if not as_json else ():
                for text in lines_of(result.judgement, done=True):
                    print(f"{result.said.target}  {text}", flush=True)
        refused = sum(result.refused for result in results)
        text = f"{len(results) - refused} of {len(results)}" + (" planned" if self._dry_run else " repaired")
        value = {"results": [result.as_value() for result in results], "refused": refused, "silent": self.silent}
        say(value, as_json=as_json, text=text)
        return 1 if refused or self.silent else 0

    def _judge(self) -> "RepairJudge | None":
        """The judge, if an option or the configuration names invariants. Raises ConfigInvalid."""
        if not self._invariants:
            return None
        from holdfast.host.target import load_target
        from holdfast.operator.judge import RepairJudge

        return RepairJudge(load_target(self._invariants, pins=False), self.urls, self.settings)


def data_of(text: str) -> msgspec.Raw:
    """The value of a `--data` option, as JSON. Raises ConfigInvalid."""
    try:
        value: Any = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"--data: {error}") from None
    return msgspec.Raw(msgspec.json.encode(value))


def lines_of(judgement: Judgement | None, *, done: bool) -> list[str]:
    """What the invariants say before a repair, or after it."""
    if judgement is None:
        return []
    if judgement.unknown:
        why = "; ".join(judgement.unknown)
        return [f"invariants: {why}" if done else f"invariants: not simulated: {why}"]
    if judgement.breaks:
        word = "does not hold" if done else "would not hold"
        return [f"{word}: {text}" for text in judgement.breaks]
    if judgement.hold is None:
        return []
    return [f"invariants: {len(judgement.hold)} {'hold' if done else 'would hold'}"]


def _shown(result: RepairOutcome, number: str) -> str:
    said, then = result.said, result.then
    note = f": {said.note}" if not isinstance(said, Plan) and said.note else ""
    lines = [f"{number}  {said.service}  {said.target}  {said.how}{note}"]
    if isinstance(said, Plan):
        lines += [f"    {text}" for text in said.does]
    if then is not None:
        lines += [f"    then {then.service}: {text}" for text in then.does]
    lines += [f"    {text}" for text in lines_of(result.judgement, done=False)]
    return "\n".join(lines)
