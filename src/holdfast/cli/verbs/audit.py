"""`holdfast audit`: a system's invariants, judged on its running services, once or for as long as they run.

Reads every service's log under `/ops` (`operator.audit`). Exit code 0 if every invariant holds, 1 if one does not,
or if a service did not answer.
"""

import json
import os
import time
from typing import Any

import msgspec

from holdfast.cli.options import CONFIGURED, Access, AsJson, Flag, say
from holdfast.core.audit.audit import Report
from holdfast.core.audit.invariant import Violation
from holdfast.core.explain.story import ago
from holdfast.core.system import System
from holdfast.errors import ConfigInvalid
from holdfast.host.target import load_target
from holdfast.operator.audit import ROUND_SECONDS, HttpAudit, audit_urls, line_of

SAY_SECONDS = 10.0
"""Between two lines of progress, while it follows. A service that goes away or comes back is reported at once."""

SHARE = 0.04
"""Of one processor, while it follows."""
NICENESS = 10
"""While it follows: it takes a processor that the services leave free, or about a twentieth of a busy one."""


def audit(
    target: str,
    *,
    follow: Flag = False,
    settle: float = 5.0,
    seconds: float = 0.0,
    share: float = SHARE,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """Judge the invariants of a system on its running services.

    For example:
    - `holdfast audit shop.invariants:shop`: everything that has happened, once

    - `holdfast audit shop.invariants:shop --follow`: that, and everything from now on, until Ctrl-C

    Parameters
    ----------
    target
        MODULE:SYSTEM, in the module where its invariants are declared.
    follow
        Go on with what happens from now on; each violation is shown when it is found.
    settle
        How many seconds to wait for transactions that are in flight.
    seconds
        With --follow: end after this number of seconds; 0 means not before Ctrl-C.
    share
        With --follow: the largest part of one processor that it takes, at low priority (nice 10). The services need
        about as much for their pages. It falls behind rather than slow them down.
    """
    settings = access.settings()
    system = load_target(target, pins=False)
    if not system.invariants:
        raise ConfigInvalid(f"{target} has no invariants: declare some with @{target.partition(':')[2]}.invariant")
    urls = access.services(settings)
    if not 0 < share <= 1:
        raise ConfigInvalid(f"--share {share}: give a number above 0, up to 1")
    if follow:
        return _follow(HttpAudit(system, urls, settings, share=share), seconds, as_json=as_json)
    report, silent = audit_urls(system, urls, settings, seconds=settle)
    say(as_value(report, silent), as_json=as_json, text=text_of(system, report, silent))
    return 1 if report.violations or silent else 0


def _follow(found: HttpAudit, seconds: float, *, as_json: bool) -> int:
    os.nice(NICENESS)
    begun, said_at, away = time.monotonic(), float("-inf"), found.silent
    known: dict[tuple[str, str, str], Violation] = {}
    ever = False
    try:
        while not seconds or time.monotonic() < begun + seconds:
            found.round()
            report = found.report()
            now = {(one.invariant, one.key or one.tx, one.says): one for one in report.violations}
            for key, one in now.items():
                if key not in known:
                    ever = True
                    _print(msgspec.to_builtins(one), line_of(one), as_json=as_json)
            for key, one in known.items():
                if key not in now and not found.stale:
                    healed = f"holds again: {one.invariant} {one.key or one.tx}"
                    _print({**msgspec.to_builtins(one), "holds": True}, healed, as_json=as_json)
            known = known if found.stale else now
            if time.monotonic() - said_at >= SAY_SECONDS or away.keys() != found.silent.keys():
                said_at, away = time.monotonic(), found.silent
                _print(as_value(report, found.silent) | {"behind": found.behind}, _far(report, found), as_json=as_json)
            time.sleep(ROUND_SECONDS)
    except KeyboardInterrupt:
        pass
    report = found.report()
    _print(as_value(report, found.silent) | {"behind": found.behind}, _far(report, found), as_json=as_json)
    return 1 if ever or found.silent else 0


def _print(value: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(value, default=str) if as_json else text, flush=True)


def _far(report: Report, found: HttpAudit) -> str:
    text = f"{report.settled} transactions judged, {report.open} in flight, {found.behind} records behind"
    return text + "".join(f"; {name} does not answer" for name in found.silent)


def text_of(system: System, report: Report, silent: dict[str, str]) -> str:
    """A report as lines."""
    wrong = [one.invariant for one in report.violations]
    lines: list[str] = []
    for name, invariant in system.invariants.items():
        counted = report.counted.get(name, 0)
        state = "NOT " if name in wrong else "ok  " if counted else "--  "
        lines.append(f"{state} {invariant.doc}  ({name}: {counted or 'nothing to judge'})")
    lines += [line_of(one) for one in report.violations]
    lines += [f"and {report.more} violations more"] if report.more else []
    lines.append(f"{report.settled} transactions judged")
    if report.open:
        lines[-1] += f"; {report.open} in flight, the oldest since {ago(report.oldest_us, int(time.time() * 1e6))}"
    lines += [f"! {name}: {why}" for name, why in silent.items()]
    return "\n".join(lines)


def as_value(report: Report, silent: dict[str, str]) -> dict[str, Any]:
    """A report as plain values."""
    return {**msgspec.to_builtins(report), "passed": report.passed and not silent, "silent": silent}
