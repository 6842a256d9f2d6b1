"""One batch's effects: a transaction takes records in, changes state and appends events, or does nothing."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import structlog
from opentelemetry import propagate
from prometheus_client import Counter

from shared.contracts.base import Event
from shared.database import Connection, Queries
from shared.dead_letters import kept_key, letter_of
from shared.errors import Refusal
from shared.instruments import DEAD_LETTERS_TOTAL
from shared.records import Place, Record, Records
from shared.topics import DEAD_LETTERS, Service, Topic

QUERIES = Queries.load("shared", "kernel.sql")
SHORT_WAIT_SECONDS = 0.005
"""What PostgreSQL takes to answer a question that nothing stands in the way of, and more."""
log = structlog.get_logger()

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Held:
    """Where a partition waits, and what for: anything reached above ``until``."""

    offset: int
    until: int


class Effects:
    """What a handler may do while its batch's transaction is open.

    ``connection`` is inside the transaction (READ COMMITTED); ``now`` is wall time at its beginning. ``leisure``
    is set while it is at leisure.
    """

    def __init__(
        self, service: Service, connection: Connection, now: datetime, leisure: asyncio.Event | None = None
    ) -> None:
        self.service = service
        self.connection = connection
        self.now = now
        self._leisure = asyncio.Event() if leisure is None else leisure
        self.held: dict[Place, Held] = {}
        self.refused: list[tuple[Record, Refusal]] = []
        self._messages: list[tuple[str, bytes | None, bytes, str]] = []
        # Found out once: a transaction is of one trace.
        self._trace: dict[str, str] | None = None
        self._counts: dict[tuple[Counter, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        self._afterwards: list[Callable[[], object]] = []

    def emit(
        self,
        topic: Topic,
        event: Event,
        *,
        key: str | bytes | None,
        told: Mapping[str, bytes] = MappingProxyType({}),
    ) -> bytes:
        """Publish an event once the transaction is durable, in the order of emission within a key.

        ``told``: the canonical JSON of fields, where it is known. Returns the bytes that are published.
        """
        encoded = key.encode() if isinstance(key, str) else key
        if self._trace is None:
            self._trace = current_trace()
        headers = json.dumps(cloud_event_headers(self.service, event, self._trace))
        value = event.to_json(told)
        self._messages.append((topic.name, encoded, value, headers))
        return value

    def refuse(self, record: Record, refusal: Refusal) -> None:
        """Send a record to the dead letters, byte for byte, with the reason."""
        self.emit(DEAD_LETTERS, letter_of(self.service, record, refusal), key=kept_key(record))
        self.refused.append((record, refusal))
        self.count(DEAD_LETTERS_TOTAL, reason=refusal.reason)

    def hold(self, record: Record, *, until: int) -> None:
        """Take neither this record nor those behind it in its partition.

        They are read again once the service releases what was held until less than it has reached by then.
        """
        self.held.setdefault((record.topic, record.partition), Held(record.offset, until))

    def count(self, counter: Counter, amount: float = 1, **labels: str) -> None:
        """Add to a counter once the transaction is durable; what is rolled back and tried again counts once."""
        self._counts[counter, tuple(labels.items())] += amount

    def after_commit(self, call: Callable[[], object]) -> None:
        """Call this once the transaction is durable, or never: for what is told, such as a line in the log.

        A crash in between loses the call: whatever must happen belongs in the transaction.
        """
        self._afterwards.append(call)

    @contextmanager
    def at_leisure(self) -> Iterator[None]:
        """While PostgreSQL has so much to do that this process had better do something else meanwhile.

        What waits for it is the preparation of the next batch. Not to be nested.
        """
        self._leisure.set()
        try:
            yield
        finally:
            self._leisure.clear()

    @contextmanager
    def at_leisure_if_long(self) -> Iterator[None]:
        """The same, from when it shows that the wait is a long one: for somebody's lock, or for a disk.

        Else what could be done while rows are stored would be done before, each time with an answer waiting.
        """
        soon = asyncio.get_running_loop().call_later(SHORT_WAIT_SECONDS, self._leisure.set)
        try:
            yield
        finally:
            soon.cancel()
            self._leisure.clear()

    def committed(self) -> None:
        """The transaction is durable: count and tell. Raises nothing, since nothing can be undone any more."""
        for (counter, labels), amount in self._counts.items():
            (counter.labels(**dict(labels)) if labels else counter).inc(amount)
        for call in self._afterwards:
            try:
                call()
            except Exception:
                log.exception("a call after the commit failed")

    async def flush(self) -> int:
        """Append the events emitted since the last time to the outbox, and wake the relay. Returns how many."""
        # Taken before the first wait: what is emitted meanwhile goes with the next.
        messages, self._messages = self._messages, []
        if messages:
            columns = [list(column) for column in zip(*messages, strict=True)]
            await self.connection.execute(QUERIES.append_to_outbox, outbox_channel(self.service), *columns)
        return len(messages)


Handler = Callable[[Sequence[Record], Effects], Awaitable[None]]
"""Takes records (new ones only, in offset order per partition) and does everything through the effects.

It is called again, in a new transaction, with the same records after any failure.
"""


Prepare = Callable[[Records], object]
"""Does what a handler can do before the transaction, such as decoding, and leaves it with the records."""


def outbox_channel(service: str) -> str:
    """The NOTIFY channel that wakes a service's relay."""
    return f"trueward_{service}_outbox"


def cloud_event_headers(service: str, event: Event, trace: Mapping[str, str] | None = None) -> Headers:
    """CloudEvents 1.0 attributes for Kafka's binary mode, and W3C traceparent while a trace is open.

    ``trace`` is what :func:`current_trace` says, found out now where it is not given.
    """
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event.event_id(),
        "ce_source": f"/trueward/{service}",
        "ce_type": event.event_type,
        "ce_subject": event.subject(),
        "ce_time": event.event_time().isoformat().replace("+00:00", "Z"),
        "content-type": "application/json",
        **(current_trace() if trace is None else trace),
    }
    return list(headers.items())


def current_trace() -> dict[str, str]:
    """The headers that name the open trace; none where none is open."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
