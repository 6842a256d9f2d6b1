"""Events in JSON lines: checked by the contracts of their topic before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from shared.contracts.base import Contract, unknown_fields
from shared.errors import Refusal, UsageError
from shared.publishing import decode_published, key_of
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
        event = decode_published(Record(topic.name, 0, number, now, None, value), topic)
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
