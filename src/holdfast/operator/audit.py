"""Auditing over HTTP: pages of `/ops/log` of each service into an audit, at a pace that leaves the services their time.

Comes after configuration, which says where the services are; before `cli.verbs.audit` and `demo.run`. If a service
does not answer, it is named and the rest is judged: transactions that touch it stay open.
"""

import time
from collections.abc import Mapping

import msgspec

from holdfast.config import Settings
from holdfast.core.audit.audit import Audit, Report
from holdfast.core.audit.invariant import Violation
from holdfast.core.system import System
from holdfast.errors import HoldfastError, Misuse
from holdfast.operator.client import parsed, request
from holdfast.runtime.ops.audit import Reading

PAGE = 2_000
ROUND_SECONDS = 0.5
"""Between two rounds when there is nothing new."""
_decoder = msgspec.json.Decoder(Reading)


class HttpAudit:
    """The invariants of a system at work on services that run elsewhere."""

    def __init__(self, system: System, urls: Mapping[str, str], settings: Settings, *, share: float = 1.0) -> None:
        if missing := [name for name in system.services if name not in urls]:
            raise Misuse(f"an audit needs every service, and {missing[0]} has no URL: give --url {missing[0]}=URL")
        self._system, self._urls, self._settings, self._share = system, urls, settings, share
        self.audit = Audit(system)
        """Everything that was read so far."""
        self._by_page = True
        """Judge after each page, so that little of the logs is kept in memory. Not if a log holds something that no
        service declares any more: such an audit would be begun again for ever."""
        self.silent: dict[str, str] = {}
        """Service -> why it did not answer the last question."""
        self.heads = dict.fromkeys(system.services, 0)

    def round(self) -> list[Violation]:
        """Read each log up to its present head, a page of each in turn, and judge. The violations of transactions that
        have just settled, and all those of the folds."""
        if self.audit.stale:
            self.audit, self._by_page = Audit(self._system), False
        self.silent = {}
        upto = dict.fromkeys(self._system.services, -1)
        while upto:
            for name in list(upto):
                try:
                    upto[name] = self._read(name, upto[name])
                except HoldfastError as error:
                    self.silent[name] = str(error)
                if name in self.silent or self.audit.cut.read[name] >= upto[name]:
                    del upto[name]
            if self._by_page and upto:
                self._check()
        return self._check()

    def _check(self) -> list[Violation]:
        begun = time.process_time()
        found = self.audit.check()
        self._rest(begun)
        return found

    def _read(self, name: str, upto: int) -> int:
        """Read a page; the position to read up to: the head of the log at the first page."""
        begun = time.process_time()
        query = {"brief": 1, "after": self.audit.cut.read[name], "limit": PAGE}
        status, _, body = request(self._urls[name], "/ops/log", query, self._settings)
        page = _page(self._urls[name], status, body)
        self.audit.take(name, page.records, page.upto, head=page.head, mark=page.mark)
        self.heads[name] = page.head
        self._rest(begun)
        return page.head if upto < 0 else upto

    def _rest(self, begun: float) -> None:
        """Keep to the share, measured by processor time: waiting for a service under load costs nothing."""
        if self._share < 1:
            time.sleep((time.process_time() - begun) * (1 / self._share - 1))

    @property
    def behind(self) -> int:
        """Records that are there and not judged yet."""
        return sum(max(0, head - self.audit.cut.at[name]) for name, head in self.heads.items())

    @property
    def stale(self) -> bool:
        """True if every log has to be read again."""
        return self.audit.stale

    def report(self) -> Report:
        """Everything that was found."""
        return self.audit.report()


def _page(url: str, status: int, body: bytes) -> Reading:
    if status == 200:
        try:
            return _decoder.decode(body)
        except msgspec.DecodeError as error:
            raise HoldfastError(f"{url} answered /ops/log with something that cannot be read: {error}") from None
    parsed(url, status, body)
    raise HoldfastError(f"{url} answered {status}")


def audit_urls(
    system: System, urls: Mapping[str, str], settings: Settings, *, seconds: float
) -> tuple[Report, dict[str, str]]:
    """(report, why by silent service) of everything that has happened. Waits `seconds` for transactions in flight.

    Raises Misuse if there is nothing to judge, or if a service has no URL.
    """
    found = HttpAudit(system, urls, settings)
    end = time.monotonic() + seconds
    while True:
        found.round()
        report = found.report()
        if (not report.open and not found.behind and not found.stale and not found.silent) or time.monotonic() > end:
            return report, found.silent
        time.sleep(min(ROUND_SECONDS, seconds / 10))


def line_of(one: Violation) -> str:
    """A violation on one line, with the command to ask next."""
    where = f" {one.key}" if one.key else ""
    records = f"  [{', '.join(one.records[:8])}{', ...' if len(one.records) > 8 else ''}]" if one.records else ""
    ask = f"  holdfast why {one.correlation or one.tx}" if one.tx else ""
    return f"{one.invariant}{where}: {one.says}{records}{ask}"
