"""`GET /metrics`: the counters and the progress of one node, in the Prometheus text format (version 0.0.4).

The values come from memory, so a scrape costs the store nothing. Every series carries the service's name. Comes after
`runtime.ops.status`. (Exposition format: Prometheus, "Exposition formats".)
"""

from collections.abc import Iterable
from typing import Any

from holdfast.runtime.node import Node
from holdfast.runtime.ops.status import progress

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METRICS = {
    "holdfast_up": ("gauge", "1 while the service takes work and its store answers"),
    "holdfast_log_position": ("gauge", "Highest committed position of the log"),
    "holdfast_groups_total": ("counter", "Groups flushed since the start, one durable write each"),
    "holdfast_batches_total": ("counter", "Batches committed since the start, one decision each"),
    "holdfast_inbox": ("gauge", "Messages that wait for the writer"),
    "holdfast_waiting": ("gauge", "Messages held back: a stream whose handler failed waits with backoff"),
    "holdfast_parked": ("gauge", "Messages that have failed too often and wait for a person"),
    "holdfast_unknown": ("gauge", "Effects of which it is not known what became of them"),
    "holdfast_timers": ("gauge", "Durable timers that are set"),
    "holdfast_sagas_open": ("gauge", "Sagas that have not ended"),
    "holdfast_sagas_stuck": ("gauge", "Sagas that can neither go on nor be undone, and wait for a person"),
    "holdfast_views_rebuilding": ("gauge", "Views of which a new generation is being built"),
    "holdfast_exchange_owed": ("gauge", "Records for the peer that it has not acknowledged"),
    "holdfast_exchange_behind": ("gauge", "Positions of the peer's log that are not taken yet"),
    "holdfast_exchange_failing": ("gauge", "1 while the conversation with the peer fails"),
    "holdfast_feed_lag": ("gauge", "Positions of the producer's log that the consumer has not taken yet"),
    "holdfast_feed_failing": ("gauge", "1 while the consumer cannot be fed"),
    "holdfast_http_requests_total": ("counter", "Requests answered since the start, by status"),
}
Sample = tuple[str, dict[str, Any], float]


def render(node: Node, requests: dict[int, int]) -> bytes:
    """The metrics of a node. `requests`: answers by status."""
    lines: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in samples(node, requests):
        text = ",".join(f'{label}="{_escaped(str(of))}"' for label, of in {"service": node.name, **labels}.items())
        lines[name].append(f"{name}{{{text}}} {value:g}" if value < 1e6 else f"{name}{{{text}}} {int(value)}")
    parts: list[str] = []
    for name, (kind, text) in METRICS.items():
        if lines[name]:
            parts += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines[name]]
    return ("\n".join(parts) + "\n").encode()


def samples(node: Node, requests: dict[int, int]) -> Iterable[Sample]:
    """(metric, labels, value) of everything that is counted."""
    found = progress(node)
    yield "holdfast_up", {}, float(node.takes_work and not found.store)
    yield "holdfast_log_position", {}, found.head
    yield "holdfast_groups_total", {}, node.writer.groups
    yield "holdfast_batches_total", {}, node.writer.batches
    yield "holdfast_inbox", {}, found.inbox
    yield "holdfast_waiting", {}, len(found.waiting)
    yield "holdfast_parked", {}, sum(bool(one.parked) for one in found.waiting)
    yield "holdfast_unknown", {}, sum(one.unknown for one in found.waiting)
    yield "holdfast_timers", {}, found.timers
    yield "holdfast_sagas_open", {}, found.sagas_open
    yield "holdfast_sagas_stuck", {}, found.sagas_stuck
    yield "holdfast_views_rebuilding", {}, len(found.rebuilding)
    for peer, one in found.exchange.items():
        labels = {"peer": peer}
        yield "holdfast_exchange_owed", labels, one.owed
        yield "holdfast_exchange_behind", labels, one.behind
        yield "holdfast_exchange_failing", labels, float(bool(one.failure or one.halted))
    for one in found.feeds:
        labels = {"consumer": one.consumer, "producer": one.producer}
        yield "holdfast_feed_lag", labels, one.lag
        yield "holdfast_feed_failing", labels, float(bool(one.failure))
    for status, count in sorted(requests.items()):
        yield "holdfast_http_requests_total", {"status": status}, count


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
