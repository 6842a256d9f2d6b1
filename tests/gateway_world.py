"""A small world for the gateway's tests: what the real handlers of the services make of a few days of events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.alerting.handlers import alerting_handler
from services.alerting.store import PostgresStore as AlertingStore
from services.metrics.handlers import make_handler
from services.retrain.handlers import retrain_handler
from services.retrain.store import PostgresStore as RetrainStore
from shared.contracts.models import Artifact, ModelVersion, Policy
from shared.contracts.observations import Label, PipelineRun, Prediction
from shared.contracts.retraining import JobUpdate, RetrainRequest
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.effects import Handler
from shared.records import Record
from shared.topics import (
    ALERTS,
    LABELS,
    MODEL_VERSIONS,
    PIPELINE_RUNS,
    POLICIES,
    PREDICTIONS,
    RETRAIN_JOB_UPDATES,
    RETRAIN_REQUESTS,
    SNAPSHOTS,
    Topic,
)
from tests.metrics_world import START, MetricsWorld
from tests.support import Emitted, Feed, apply

FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
GOOD_DAYS, DAYS = 4, 8
A_DAY = 20
FLIGHTS, QUIET, NEWBORN, STRANGE = "flights", "quiet", "newborn", "späte Flüge/ü 100%"
"""Judged for a week; only a policy; known since its last boundary; a name that addresses must escape."""

SHADOW = "v0-shadow"
INTERVAL = 86_400
POLICY = Policy(
    model=FLIGHTS,
    mode="enforce",
    min_evaluated=5,
    window="1d",
    segments={"carrier": ["AA", "UA"]},
)
ARTIFACT = Artifact(uri="s3://models/flights/v1", sha256="ab" * 32, size_bytes=1234, created_at=FIRST_DAY - DAY)


@dataclass
class World:
    """Feeds the services' handlers, on one database, as the topics would.

    A second world on the same database needs a partition of its own: its offsets begin at 0 again.
    """

    dsn: str
    partition: int = 0
    feed: Feed = field(default_factory=Feed)
    metrics: Handler = field(default_factory=lambda: make_handler("wall", INTERVAL))
    alerting: Handler = field(default_factory=lambda: alerting_handler(AlertingStore()))
    retrain: Handler = field(default_factory=lambda: retrain_handler(RetrainStore()))

    async def take(self, topic: Topic, *events: Any, at: datetime = FIRST_DAY + 30 * DAY) -> None:
        """The metrics service takes events in."""
        records = [self._record(topic, event, at) for event in events]
        await apply(self.metrics, records, self.dsn, service="metrics", now=at)

    async def cut(self, as_of: datetime) -> list[Snapshot]:
        """Cut a boundary, and have the snapshots judged and decided on."""
        pool = await connect_pool(self.dsn, role="metrics", application_name="test", max_size=2)
        try:
            metrics = MetricsWorld(pool, interval=INTERVAL)
            await metrics.begin()
            snapshots = await metrics.cut(int((as_of - START).total_seconds()))
        finally:
            await pool.close()
        assert snapshots, "another world has cut this boundary"
        records = [self._record(SNAPSHOTS, snapshot) for snapshot in snapshots]
        alerts = await apply(self.alerting, records, self.dsn, service="alerting", now=as_of)
        heard = [self._record(ALERTS, alert.value) for alert in alerts if alert.topic == ALERTS.name]
        await self.decide([*records, *heard], now=as_of)
        return snapshots

    async def decide(self, records: Iterable[Record], now: datetime) -> list[Emitted]:
        """The retrain service takes records in."""
        return await apply(self.retrain, records, self.dsn, service="retrain", now=now)

    async def ask(self, request: RetrainRequest | bytes) -> list[Emitted]:
        """The retrain service takes a request in."""
        now = datetime.now(UTC)
        return await self.decide([self._record(RETRAIN_REQUESTS, request, now)], now)

    async def update_job(self, update: JobUpdate) -> list[Emitted]:
        """The retrain service hears from a trainer."""
        now = datetime.now(UTC)
        return await self.decide([self._record(RETRAIN_JOB_UPDATES, update, now)], now)

    def _record(self, topic: Topic, value: Any, at: datetime | None = None) -> Record:
        return self.feed.record(topic, value, partition=self.partition, received_at=at)


async def populate(dsn: str) -> World:
    """A week of flights whose model goes bad after four days, and models of which less is known."""
    world = World(dsn)
    await world.take(
        MODEL_VERSIONS,
        version(FLIGHTS, "v1", "champion", artifact=ARTIFACT),
        version(FLIGHTS, "v2", "candidate"),
        version(STRANGE, "1.0", "champion"),
    )
    await world.take(POLICIES, POLICY.model_copy(update={"mode": "observe"}), POLICY, Policy(model=QUIET))
    for day in range(DAYS):
        begin = FIRST_DAY + day * DAY
        await world.take(PREDICTIONS, *(prediction(begin, number) for number in range(A_DAY)))
        await world.take(PREDICTIONS, shadow(begin))
        await world.take(LABELS, *(label(begin, number, good=day < GOOD_DAYS) for number in range(A_DAY)))
        await world.take(PIPELINE_RUNS, PipelineRun(pipeline="p", completed_at=begin, status="success"))
        await world.cut(begin + DAY)
    await world.take(MODEL_VERSIONS, version(NEWBORN, "1", "candidate"))
    return world


def version(model: str, name: str, stage: Any, artifact: Artifact | None = None) -> ModelVersion:
    return ModelVersion(model=model, version=name, registered_at=FIRST_DAY - DAY, stage=stage, artifact=artifact)


def prediction(begin: datetime, number: int) -> Prediction:
    return Prediction(
        prediction_id=f"{begin:%m%d}-{number}",
        model=FLIGHTS,
        model_version="v1",
        predicted_at=begin + timedelta(minutes=number),
        probability=0.9 if number % 2 else 0.1,
        segment={"carrier": ("AA", "UA", "ZZ")[number % 3]},
    )


def shadow(begin: datetime) -> Prediction:
    """A prediction of a version that nobody has registered."""
    seen = prediction(begin, 0)
    return seen.model_copy(
        update={"prediction_id": f"shadow-{seen.prediction_id}", "entity_id": "nobody", "model_version": SHADOW}
    )


def label(begin: datetime, number: int, *, good: bool) -> Label:
    outcome = number % 2 if good else 1 - number % 2
    return Label(
        entity_id=f"{begin:%m%d}-{number}",
        outcome=outcome,
        observed_at=begin + timedelta(hours=2, minutes=number),
    )
