"""One batch's effects: a transaction takes records in, changes state and appends events, or does nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from opentelemetry import propagate

from shared.contracts.base import Event
from shared.contracts.dead_letters import DeadLetter
from shared.database import Connection, Queries
from shared.errors import Refusal
from shared.inbox import Place
from shared.instruments import DEAD_LETTERS_TOTAL
from shared.records import Record
from shared.topics import DEAD_LETTERS, Service, Topic

QUERIES = Queries.load("shared", "kernel.sql")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Held:
    """Where a partition waits, and what for: anything reached above ``until``."""

    offset: int
    until: int


class Effects:
    """What a handler may do while its batch's transaction is open.

    ``connection`` is inside the transaction (READ COMMITTED); ``now`` is wall time at its beginning.
    """

    def __init__(self, service: Service, connection: Connection, now: datetime) -> None:
        self.service = service
        self.connection = connection
        self.now = now
        self.held: dict[Place, Held] = {}
        self._messages: list[tuple[str, bytes | None, bytes, str]] = []
        self._refused: list[str] = []

    def emit(self, topic: Topic, event: Event, *, key: str | bytes | None) -> None:
        """Publish an event once the transaction is durable, in the order of emission within a key."""
        encoded = key.encode() if isinstance(key, str) else key
        headers = json.dumps(cloud_event_headers(self.service, event))
        self._messages.append((topic.name, encoded, event.to_json(), headers))

    def refuse(self, record: Record, refusal: Refusal) -> None:
        """Send a record to the dead letters, byte for byte, with the reason."""
        letter = DeadLetter(
            service=self.service,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            received_at=record.received_at,
            key_base64=_base64(record.key),
            value_base64=_base64(record.value),
            headers=tuple(
                (name.replace("\x00", "\N{REPLACEMENT CHARACTER}"), _base64(value))
                for name, value in record.headers
            ),
            reason=refusal.reason,
            field=_printable(refusal.field),
            detail=_printable(refusal.detail) or "",
        )
        self.emit(DEAD_LETTERS, letter, key=record.key)
        self._refused.append(refusal.reason)

    def hold(self, record: Record, *, until: int) -> None:
        """Take neither this record nor those behind it in its partition.

        They are read again once the service releases what was held until less than it has reached by then.
        """
        self.held.setdefault((record.topic, record.partition), Held(record.offset, until))

    async def flush(self) -> int:
        """Append the events to the outbox and wake the relay. Returns how many events there were."""
        if self._messages:
            columns = [list(column) for column in zip(*self._messages, strict=True)]
            await self.connection.execute(QUERIES.append_to_outbox, *columns)
            await self.connection.execute(QUERIES.notify, outbox_channel(self.service))
        for reason in self._refused:
            DEAD_LETTERS_TOTAL.labels(reason=reason).inc()
        return len(self._messages)


Handler = Callable[[Sequence[Record], Effects], Awaitable[None]]
"""Takes records (new ones only, in offset order per partition) and does everything through the effects.

It is called again, in a new transaction, with the same records after any failure.
"""


def outbox_channel(service: str) -> str:
    """The NOTIFY channel that wakes a service's relay."""
    return f"trueward_{service}_outbox"


def cloud_event_headers(service: str, event: Event) -> Headers:
    """CloudEvents 1.0 attributes for Kafka's binary mode, and W3C traceparent while a trace is open."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event.event_id(),
        "ce_source": f"/trueward/{service}",
        "ce_type": event.event_type,
        "ce_subject": event.subject(),
        "ce_time": event.event_time().isoformat().replace("+00:00", "Z"),
        "content-type": "application/json",
    }
    propagate.inject(headers)
    return list(headers.items())


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _printable(text: str | None) -> str | None:
    return None if text is None else text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:4096]
