"""A saga's progress and its records say the same, in both directions (G4, G12)."""

from collections import Counter

import pytest

from holdfast.core.log.record import Record
from holdfast.core.saga.progress import SagaState, apply
from holdfast.runtime.decide.decision import Envelope
from holdfast.runtime.decide.saga_records import from_record, to_record
from holdfast.testing import VirtualSystem, run_virtual
from support import scenarios


def envelope_of(record: Record) -> Envelope:
    """What the record inherited from the message that led to it."""
    headers = record.headers
    return Envelope(
        record.cause, record.tx, record.at, record.correlation, headers.hop, headers.debug, headers.traceparent
    )


def check(system: VirtualSystem) -> Counter[str]:
    """Read every record of every saga and write it again; how many there were of each class of progress."""
    seen: Counter[str] = Counter()
    for name, service in system.services.items():
        states: dict[str, SagaState] = {}
        for record in system.log(name):
            saga = service.sagas.get(record.stream.partition("/")[0])
            if saga is None or not record.version:
                continue
            state = states.setdefault(record.stream, SagaState())
            item = from_record(saga, record)
            apply(saga, state, item)
            made = to_record(saga, record.stream, record.version, item, state, envelope_of(record))
            said = (made.kind, made.type, made.data, made.destination, made.headers)
            assert said == (record.kind, record.type, record.data, record.destination, record.headers), item
            seen[type(item).__name__] += 1
    return seen


@pytest.mark.parametrize("scene", ["shop", "ring", "selling", "trading"])
def test_what_is_read_of_a_saga_is_written_the_same(scene: str) -> None:
    """G4, G12: each record of a saga is read as progress, and that progress is written as the same record."""
    made, scenario = scenarios.HUNTS[scene]

    async def main() -> Counter[str]:
        found = made()
        async with found if isinstance(found, VirtualSystem) else VirtualSystem(found) as system:
            await scenario(system)
            await system.settle()
            return check(system)

    seen = run_virtual(main)
    print(scene, dict(seen))
    assert {"Begun", "Asked", "Answered"} <= set(seen)
