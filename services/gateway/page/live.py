"""The stream of what happens: from the topics to every open page, without asking the database.

One consumer a process, without a group, from the topics' ends. A page that reads too slowly is told to read again
(``resync``) and never holds anybody up; of snapshots it is owed only the newest of each model.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from services.gateway.settings import GatewaySettings
from shared.retries import until_done
from shared.topics import ALERTS, RETRAIN_DECISIONS, RETRAIN_JOBS, SNAPSHOTS, Topic

HEARTBEAT_SECONDS = 10.0
RECONNECT_MS = 2_000
MOST_WAITING = 1_000
REMEMBERED = 2_000
CHECK_SECONDS = 10
CLIENTS = Gauge("trueward_event_stream_clients", "Open event streams.")
RESYNCS_TOTAL = Counter("trueward_event_stream_resyncs_total", "Clients told to read again.", ["why"])
log = structlog.get_logger()

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One event of the stream. ``key`` is what a newer event makes this one needless by; None for never."""

    number: int
    kind: str
    model: str
    data: str
    key: tuple[str, str] | None


TABLES = ("reliability", "class_recall")
"""Parts of a snapshot's metrics that a page reads when it shows them."""


def snapshot_in_short(document: Document) -> Document:
    """What a page shows of a snapshot as it comes."""
    figures = document["metrics"]
    return {
        "model": document["model"],
        "snapshot_sequence": document["sequence"],
        "as_of": document["as_of"],
        "version": (document.get("champion") or {}).get("version"),
        "metrics": {name: value for name, value in figures.items() if name not in TABLES},
    }


def alert_in_full(document: Document) -> Document:
    """A transition is short: the whole of it."""
    return document


def decision_in_short(document: Document) -> Document:
    """What a page shows of a decision before it reads the evidence."""
    names = ("model", "decision_id", "decision_sequence", "asked_by", "dry_run", "action", "fired", "job_id")
    return {**{name: document.get(name) for name in names}, "as_of": document["evidence"]["as_of"]}


def job_in_short(document: Document) -> Document:
    """What a page shows of a job in one line."""
    names = ("model", "job_id", "job_sequence", "status", "triggers", "as_of", "created_at", "finished_at")
    return {name: document.get(name) for name in names}


Source = tuple[str, Callable[[Document], Document]]
SOURCES: dict[Topic, Source] = {
    SNAPSHOTS: ("snapshot", snapshot_in_short),
    ALERTS: ("alert", alert_in_full),
    RETRAIN_DECISIONS: ("decision", decision_in_short),
    RETRAIN_JOBS: ("job", job_in_short),
}


@dataclass(eq=False)
class Client:
    """What one open page is still owed. Bounded: what does not fit becomes one ``resync``."""

    model: str | None
    waiting: dict[object, LiveEvent] = field(default_factory=dict)
    resync: str | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: LiveEvent) -> None:
        """Owe the client an event, unless it asked for another model's."""
        if self.model not in (None, event.model):
            return
        key: object = event.key or event.number
        self.waiting.pop(key, None)
        self.waiting[key] = event
        if len(self.waiting) > MOST_WAITING:
            self.start_again("slow")
        self.woken.set()

    def start_again(self, why: str) -> None:
        """Owe the client nothing but the word to read everything again."""
        self.waiting.clear()
        self.resync = why
        RESYNCS_TOTAL.labels(why=why).inc()
        self.woken.set()

    def drain(self) -> list[str]:
        """What is owed, as text for the wire, in the order in which it happened."""
        self.woken.clear()
        events = sorted(self.waiting.values(), key=lambda event: event.number)
        said = [] if self.resync is None else [message("resync", {"why": self.resync})]
        self.waiting.clear()
        self.resync = None
        return [*said, *(event.data for event in events)]


class Live:
    """Reads the topics and fans out to the open pages."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._boot = uuid.uuid4().hex[:12]
        self._number = 0
        self._remembered: deque[LiveEvent] = deque(maxlen=REMEMBERED)
        self._clients: set[Client] = set()
        self._following = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Follow the topics until cancelled; a broker that is away is waited for, and the pages are told."""
        while True:
            await until_done("Kafka, for the event stream", self._follow)

    async def until_stopped(self) -> None:
        """Wait to be cancelled, then end every stream: a server that stops waits for its open answers."""
        try:
            await asyncio.Event().wait()
        finally:
            self._ended.set()
            for client in self._clients:
                client.woken.set()

    async def stream(self, model: str | None, last_event_id: str | None) -> AsyncIterator[str]:
        """The events for one client, until it goes away or the gateway stops."""
        with self._joined(model, last_event_id) as client:
            yield f"retry: {RECONNECT_MS}\n\n" + message("upstream", {"following": self._following})
            while not self._ended.is_set():
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await client.woken.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                for text in client.drain():
                    yield text

    def publish(self, kind: str, model: str, data: Document) -> None:
        """Tell every client whom it concerns."""
        self._number += 1
        event = LiveEvent(
            number=self._number,
            kind=kind,
            model=model,
            data=message(kind, data, f"{self._boot}-{self._number}"),
            key=(kind, model) if kind == "snapshot" else None,
        )
        self._remembered.append(event)
        for client in self._clients:
            client.take(event)

    @contextmanager
    def _joined(self, model: str | None, last_event_id: str | None) -> Iterator[Client]:
        client = Client(model)
        if last_event_id is not None:
            self._catch_up(client, last_event_id)
        self._clients.add(client)
        CLIENTS.inc()
        try:
            yield client
        finally:
            self._clients.discard(client)
            CLIENTS.dec()

    def _catch_up(self, client: Client, last_event_id: str) -> None:
        boot, _, digits = last_event_id.partition("-")
        oldest = self._remembered[0].number if self._remembered else self._number + 1
        if boot != self._boot or not digits.isdecimal() or int(digits) + 1 < oldest:
            client.start_again("gone")
            return
        for event in self._remembered:
            if event.number > int(digits):
                client.take(event)

    async def _follow(self) -> None:
        """Read from the topics' ends until something fails."""
        topics = {self._settings.topic_prefix + topic.name: source for topic, source in SOURCES.items()}
        # Without a group the consumer takes every partition, and new ones as they come.
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            client_id="trueward-gateway-events",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
        )
        try:
            await consumer.start()
            await self._read(consumer, topics)
        finally:
            self._tell_following(following=False)
            await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer, topics: dict[str, Source]) -> None:
        await _check(consumer, topics)
        await consumer.seek_to_end()
        # What happened before this moment is read from the database: pages that were open must ask it.
        for client in self._clients:
            client.start_again("rejoined")
        self._tell_following(following=True)
        loop = asyncio.get_running_loop()
        look_again = loop.time() + CHECK_SECONDS
        while True:
            batches = await consumer.getmany(timeout_ms=1_000)
            for place, records in batches.items():
                kind, shorten = topics[place.topic]
                for record in records:
                    self._take(kind, shorten, record.value)
            if loop.time() >= look_again:
                # A consumer whose broker is away only falls silent: whether silence is news must be asked.
                await _check(consumer, topics)
                look_again = loop.time() + CHECK_SECONDS

    def _take(self, kind: str, shorten: Callable[[Document], Document], value: bytes | None) -> None:
        try:
            document = json.loads(value or b"")
            model, data = str(document["model"]), shorten(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("not an event for the stream", kind=kind, fault=type(error).__name__)
            return
        self.publish(kind, model, data)

    def _tell_following(self, *, following: bool) -> None:
        if following == self._following:
            return
        self._following = following
        self._number += 1
        event = LiveEvent(
            number=self._number,
            kind="upstream",
            model="",
            data=message("upstream", {"following": following}),
            key=("upstream", ""),
        )
        for client in self._clients:
            client.waiting[event.key] = event
            client.woken.set()


async def _check(consumer: AIOKafkaConsumer, topics: dict[str, Source]) -> None:
    """Raises ``KafkaError`` or ``TimeoutError`` while the broker is away or a topic is missing."""
    async with asyncio.timeout(CHECK_SECONDS):
        missing = topics.keys() - await consumer.topics()
    if missing:
        raise KafkaError(f"there is no topic {', '.join(sorted(missing))} yet")


def message(kind: str, data: Document, identity: str | None = None) -> str:
    """One event as it stands on the wire. JSON holds no line break, so one line of data is enough."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
