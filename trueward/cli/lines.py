"""Events in JSON lines: checked by the contracts of their topic before anything is sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from shared.contracts.base import Contract, unknown_fields
from shared.contracts.models import ModelVersion
from shared.contracts.observations import Label, OpenLineageRunEvent, PipelineRun, Prediction, Tick
from shared.decoding import decode
from shared.errors import Refusal, UsageError
from shared.records import Record
from shared.topics import Topic


@dataclass(frozen=True, slots=True)
class Keyed:
    """A record to send."""

    key: bytes
    value: bytes


@dataclass
class Checked:
    """What checking found: fields that no contract knows are ignored by the services, and worth a word."""

    lines: int = 0
    unknown: Counter[str] = field(default_factory=Counter)


class BadLineError(UsageError):
    """A line that the services would refuse."""

    def __init__(self, source: str, number: int, refusal: Refusal, further: int) -> None:
        said = f"{refusal.field}: {refusal.detail}" if refusal.field else refusal.detail
        others = {0: "", 1: "; 1 more line is bad"}.get(further, f"; {further} more lines are bad")
        super().__init__(f"{source}, line {number}: {said} ({refusal.reason}{others}); nothing was sent")
        self.number = number
        self.refusal = refusal


def check(lines: Iterable[bytes], topic: Topic, *, source: str, now: datetime, found: Checked) -> Iterator[Keyed]:
    """Yield every line as a record, until one is bad; then read on, to count, and raise ``BadLineError``.

    Blank lines are passed over. ``now`` is what an event time may not lie ahead of.
    """
    first: tuple[int, Refusal] | None = None
    further = 0
    for number, line in enumerate(lines, 1):
        value = line.strip()
        if not value:
            continue
        event = _decode(value, topic, number, now)
        match event:
            case Refusal() if first is None:
                first = (number, event)
            case Refusal():
                further += 1
            case Contract() if first is None:
                found.lines += 1
                found.unknown.update(unknown_fields(event))
                yield Keyed(key_of(event).encode(), value)
    if first is not None:
        raise BadLineError(source, *first, further)


def key_of(event: Contract) -> str:
    """The key that the registry names for an event of an input topic."""
    match event:
        case Prediction():
            return event.entity
        case Label():
            return event.entity_id
        case PipelineRun():
            return event.pipeline
        case OpenLineageRunEvent():
            run = event.as_pipeline_run()
            return run.pipeline if run else f"{event.job.namespace}/{event.job.name}"
        case ModelVersion():
            return event.model
    raise TypeError(f"{type(event).__name__} is not published from lines")


def _decode(value: bytes, topic: Topic, number: int, now: datetime) -> Contract | Refusal:
    """As the services read a record of the topic."""
    record = Record(topic.name, 0, number, now, None, value)
    event = decode(record, topic.contract)
    if not isinstance(event, Refusal) or event.reason != "invalid":
        return event
    document = json.loads(value)
    if isinstance(document, dict) and "tick" in document and Tick in topic.contracts:
        return Refusal("unsupported", "tick", "`trueward publish tick TIME` sends a tick, to every partition")
    if isinstance(document, dict) and "eventTime" in document and OpenLineageRunEvent in topic.contracts:
        return decode(record, OpenLineageRunEvent)
    return event
