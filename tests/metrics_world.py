"""The metrics service without Kafka: its handler and its clocks on a real database, fed by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from services.metrics import clocks
from services.metrics.handlers import make_handler
from services.metrics.settings import MetricsSettings
from shared.contracts.snapshots import Snapshot
from shared.listener import Listener
from shared.records import Place, Record
from shared.service import Context
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, POLICIES, PREDICTIONS, Topic
from tests.support import RECEIVED_AT, Emitted, Feed, drain_outbox, make_consumer

START = datetime(2025, 12, 1, tzinfo=UTC)
"""Second 0 of the tests' events: a midnight."""
START_SECONDS = int(START.timestamp())
MINUTE, HOUR, DAY = 60, 3_600, 86_400

Fact = tuple[Topic, dict[str, Any]]
"""An event and the topic that it goes to."""

STATE = (
    *("clock", "partition_time", "version", "segment", "series", "model", "prediction", "label", "bucket"),
    *("class_set", "class", "answer", "bucket_detail"),
    *("label_bucket", "pipeline_run", "model_version_event", "policy_event", "snapshot", "latest_figures"),
    *("superseded_label", "retention", "inbox", "outbox"),
)


def at(seconds: float) -> str:
    """A moment of the tests' time as RFC 3339."""
    return (START + timedelta(seconds=seconds)).isoformat()


def prediction(
    name: str, seconds: float = 0, probability: float = 0.7, *, model: str = "m", version: str = "1", **more: Any
) -> Fact:
    """A prediction; ``more`` are the contract's other fields."""
    return PREDICTIONS, {
        "prediction_id": name,
        "model": model,
        "model_version": version,
        "predicted_at": at(seconds),
        "probability": probability,
        **more,
    }


def classified(
    name: str,
    seconds: float,
    probabilities: dict[str, float],
    *,
    model: str = "m",
    version: str = "1",
    **more: Any,
) -> Fact:
    """A multiclass prediction; ``more`` are the contract's other fields."""
    topic, event = prediction(name, seconds, model=model, version=version, **more)
    del event["probability"]
    return topic, {**event, "probabilities": probabilities}


def valued(name: str, seconds: float, value: float, *, model: str = "m", version: str = "1", **more: Any) -> Fact:
    """A regression prediction; ``more`` are the contract's other fields."""
    topic, event = prediction(name, seconds, model=model, version=version, **more)
    del event["probability"]
    return topic, {**event, "value": value}


def label(entity: str, seconds: float = 0, outcome: float | str | None = 1, **more: Any) -> Fact:
    return LABELS, {"entity_id": entity, "outcome": outcome, "observed_at": at(seconds), **more}


def run(seconds: float, status: str = "success", *, pipeline: str = "daily", **more: Any) -> Fact:
    return PIPELINE_RUNS, {"pipeline": pipeline, "completed_at": at(seconds), "status": status, **more}


def version(name: str, seconds: float, stage: str = "champion", *, model: str = "m", **more: Any) -> Fact:
    return MODEL_VERSIONS, {
        "model": model,
        "version": name,
        "registered_at": at(seconds),
        "stage": stage,
        **more,
    }


def policy(*, model: str = "m", **more: Any) -> Fact:
    return POLICIES, {"model": model, **more}


@dataclass
class SetClock:
    """Wall time as the test sets it."""

    moment: datetime = RECEIVED_AT

    def now(self) -> datetime:
        return self.moment


@dataclass
class HandInput:
    """Stands where Kafka's consumer would: which partitions there are, and where their logs end."""

    partitions: set[Place] = field(default_factory=set)
    ends: dict[Place, int] = field(default_factory=dict)
    overdue: dict[Place, int] | Exception = field(default_factory=dict)
    ask: Callable[[set[Place], datetime], Awaitable[dict[Place, int]]] | None = None
    released: list[int] = field(default_factory=list)

    async def places(self, topics: tuple[Topic, ...]) -> set[Place]:
        names = {topic.name for topic in topics}
        return {place for place in self.partitions if place[0] in names}

    async def log_ends(self, places: set[Place]) -> dict[Place, int]:
        return {place: self.ends.get(place, 0) for place in places}

    async def received_before(self, places: set[Place], moment: datetime) -> dict[Place, int]:
        if self.ask is not None:
            return await self.ask(places, moment)
        if isinstance(self.overdue, Exception):
            raise self.overdue
        return {place: end for place, end in self.overdue.items() if place in places}

    async def unread(self, taken: Mapping[Place, int], ends: Mapping[Place, int]) -> set[Place]:
        return {place for place, end in ends.items() if taken.get(place, 0) < end}

    def release(self, reached: int) -> None:
        self.released.append(reached)


class MetricsWorld:
    """One instance of the service on a database; ``take`` is a batch, ``cut`` a boundary."""

    def __init__(
        self, pool: asyncpg.Pool[Any], *, clock: str = "wall", interval: int = MINUTE, **more: Any
    ) -> None:
        self.pool = pool
        self.clock = SetClock()
        self.input = HandInput()
        self.feed = Feed()
        settings = MetricsSettings(clock=clock, snapshot_interval=timedelta(seconds=interval), **more)
        self.context = Context(
            service="metrics",
            settings=settings,
            pool=pool,
            clock=self.clock,
            listener=Listener("", role="metrics", application_name="test"),
            input=self.input,  # type: ignore[arg-type]  # stands in for Kafka
        )
        self.handler = make_handler(settings.clock, interval, clocks.horizons_of(settings))

    async def begin(self) -> None:
        """Start the deployment's clock, as the service does."""
        async with self.pool.acquire() as connection:
            await clocks.prepare_clock(connection, self.context.settings)

    def record(self, fact: Fact, partition: int = 0, **more: Any) -> Record:
        topic, value = fact
        return self.feed.record(topic, value, partition=partition, **more)

    async def take(self, *facts: Fact, partition: int = 0) -> list[Emitted]:
        """One batch; returns what it emitted."""
        return await self.take_records([self.record(fact, partition) for fact in facts])

    async def take_records(
        self, records: Sequence[Record], log_ends: Mapping[Place, int] | None = None
    ) -> list[Emitted]:
        consumer = make_consumer(self.handler, self.pool, service="metrics")
        await consumer.take(list(records), log_ends or {})
        return await drain_outbox(self.pool)

    async def cut(self, seconds: int) -> list[Snapshot]:
        """Let wall time come to a boundary; returns the snapshots that were made of it."""
        self.clock.moment = START + timedelta(seconds=seconds)
        await clocks.cut_wall(self.context)
        return await self.published()

    async def published(self) -> list[Snapshot]:
        """The snapshots in the outbox, which is empty afterwards."""
        emitted = await drain_outbox(self.pool)
        assert {message.topic for message in emitted} <= {"snapshots"}
        return [Snapshot.model_validate_json(message.value) for message in emitted]

    async def one(self, seconds: int) -> Snapshot:
        """The only snapshot of a boundary."""
        (snapshot,) = await self.cut(seconds)
        return snapshot

    async def figures(self) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        """The published figures by model, version, segment and window."""
        rows = await self.pool.fetch("SELECT * FROM published_figures")
        return {(row["model"], row["version"], row["segment"], row["time_window"]): row["metrics"] for row in rows}

    async def forget(self) -> None:
        """Empty every table, as cheaply as a few rows can be removed."""
        await self.pool.execute("; ".join(f"DELETE FROM {table}" for table in STATE))
        self.feed = Feed()
