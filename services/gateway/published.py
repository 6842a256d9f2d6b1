"""From a body to the records of a topic: every event is judged by itself, as the services will judge it.

An event goes to its topic as canonical JSON (sorted keys, no spaces, UTF-8) of the object that was sent, unknown
fields included: whether it came by itself, in an array or as a line, the same event is the same bytes, and exactly
those bytes were judged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from services.gateway.answers import Ingested, RefusedEvent
from services.gateway.ingest_description import MOST_EVENTS
from services.gateway.problems import BrokenRule, Problem
from shared.contracts.base import Contract, canonical_json, unknown_fields
from shared.contracts.observations import Prediction
from shared.errors import Refusal
from shared.publishing import decode_published, key_of, unsupported
from shared.records import Record
from shared.topics import MAX_RECORD_BYTES, Topic

UNKNOWN_FIELDS_SHOWN = 20


@dataclass(slots=True)
class Judged:
    """What of a body goes to the topic, as (key, value), and what does not."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    refused: list[RefusedEvent] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)

    def answer(self) -> Ingested:
        """The answer once the broker has the records."""
        unknown = dict(self.unknown.most_common(UNKNOWN_FIELDS_SHOWN))
        return Ingested(accepted=len(self.records), refused=self.refused, unknown_fields=unknown)


def judge(body: bytes, topic: Topic, *, as_lines: bool, now: datetime) -> Judged:
    """Judge every event of a body; ``now`` is what no event time may lie far ahead of.

    Raises ``Problem`` (422) for a body that is no JSON object, array or lines, or holds too many events.
    """
    judged = Judged()
    for index, value in enumerate(_lines(body) if as_lines else _documents(body)):
        event = value if isinstance(value, Refusal) else _event(value, topic, index, now)
        if isinstance(event, Refusal):
            judged.refused.append(
                RefusedEvent(index=index, field=event.field, reason=event.reason, rule=event.detail)
            )
            continue
        judged.unknown.update(unknown_fields(event))
        judged.records.append((key_of(event).encode(), value))  # type: ignore[arg-type]  # no refusal: bytes
    return judged


def _event(value: bytes, topic: Topic, index: int, now: datetime) -> Contract | Refusal:
    event = decode_published(Record(topic.name, 0, index, now, None, value), topic)
    if isinstance(event, Prediction):
        return unsupported(event) or event
    return event


def _documents(body: bytes) -> Iterator[bytes | Refusal]:
    """The one event of a body, or those of its array."""
    try:
        document = _parsed(body)
    except (ValueError, RecursionError) as error:
        raise _no_events(f"must be JSON in UTF-8: {_said(error)}") from error
    if isinstance(document, dict):
        yield _encoded(document)
    elif isinstance(document, list):
        if len(document) > MOST_EVENTS:
            raise _no_events(f"must hold at most {MOST_EVENTS} events: send them in parts")
        yield from map(_encoded, document)
    else:
        raise _no_events("must be one event (a JSON object) or an array of events")


def _lines(body: bytes) -> Iterator[bytes | Refusal]:
    """The event of every line; blank lines are passed over and not counted."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MOST_EVENTS:
        raise _no_events(f"must hold at most {MOST_EVENTS} events: send them in parts")
    for line in lines:
        try:
            document = _parsed(line)
        except (ValueError, RecursionError) as error:
            yield Refusal("undecodable", None, f"must be JSON in UTF-8: {_said(error)}")
        else:
            yield _encoded(document)


def _parsed(text: bytes) -> Any:
    # Decoded here: json would also take UTF-16. A mark at the beginning, as some editors leave, is no content.
    return json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _encoded(document: object) -> bytes | Refusal:
    """An event's bytes, or why it has none."""
    try:
        value = canonical_json(document)
    except UnicodeEncodeError:
        return Refusal("undecodable", None, "a string holds half of a surrogate pair, which is no character")
    except (ValueError, RecursionError):
        return Refusal(
            "undecodable", None, "a number is too large for JSON's readers, or the event nests too deeply"
        )
    if len(value) > MAX_RECORD_BYTES:
        return Refusal("too_large", None, f"the event has {len(value)} bytes; {MAX_RECORD_BYTES} are allowed")
    return value


def _said(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"{error.msg} at line {error.lineno}, column {error.colno}"
        case UnicodeDecodeError():
            return f"byte {error.start} is no UTF-8"
        case RecursionError():
            return "it nests too deeply"
    return str(error)


def _no_events(rule: str) -> Problem:
    return Problem(
        422,
        "invalid-request",
        f"The body {rule}. Nothing was sent.",
        title="Invalid request",
        errors=[BrokenRule(field="body", rule=rule)],
    )
