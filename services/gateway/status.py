"""The state of everything: each question has its own answer, and one that fails spoils no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import httpx
from aiokafka.errors import KafkaError

from services.gateway.answers import (
    ClockStatus,
    DependencyStatus,
    ModelArtifact,
    OutboxStatus,
    PartitionLag,
    ServiceStatus,
    SystemStatus,
)
from services.gateway.kafka import Kafka
from services.gateway.problems import Problem, describe
from services.gateway.settings import GatewaySettings
from services.gateway.store import Store
from shared.records import Place
from shared.topics import Service, read_by

CONSUMERS: tuple[Service, ...] = ("metrics", "alerting", "retrain")


@dataclass(frozen=True, slots=True)
class Facts:
    """What only the database knows; empty while it is away."""

    inboxes: Mapping[tuple[str, Place], Mapping[str, Any]] = field(default_factory=dict)
    outboxes: dict[str, OutboxStatus] = field(default_factory=dict)
    clock: ClockStatus | None = None
    artifacts: list[ModelArtifact] = field(default_factory=list)


class Status:
    """Asks the services, the database and the broker."""

    def __init__(self, settings: GatewaySettings, store: Store, kafka: Kafka, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._store = store
        self._kafka = kafka
        self._http = http

    async def system(self) -> SystemStatus:
        """Everything that must work, and how far it is."""
        services, kafka, database = await asyncio.gather(
            self._services(), self._kafka.obstacle(), self._obstacle_of_database()
        )
        dependencies = {
            "postgresql": DependencyStatus(ok=database is None, detail=database or "answers"),
            "kafka": DependencyStatus(ok=kafka is None, detail=kafka or "answers"),
        }
        works = all(known.ok for known in dependencies.values()) and all(
            service.ready is not False for service in services.values()
        )
        state: Literal["ok", "degraded"] = "ok" if works else "degraded"
        ranges = await self._log_ranges() if kafka is None else {}
        facts = await self._facts() if database is None else Facts()
        return SystemStatus(
            status=state,
            at=datetime.now(UTC),
            services=services,
            dependencies=dependencies,
            consumer_lag=partition_lags(facts.inboxes, ranges),
            outbox=facts.outboxes,
            clock=facts.clock,
            artifacts=facts.artifacts,
        )

    async def _facts(self) -> Facts:
        try:
            return Facts(
                inboxes={
                    (row["service"], (row["topic"], row["partition"])): dict(row)
                    for row in await self._store.inboxes()
                },
                outboxes=await self._store.outboxes(),
                clock=await self._store.clock(),
                artifacts=await self._store.artifacts(),
            )
        except Problem:
            # It went away between the question whether it is there and these; the next status says so.
            return Facts()

    async def _services(self) -> dict[str, ServiceStatus]:
        urls = self._settings.service_urls()
        answers = await asyncio.gather(*map(self._service, urls.values()))
        gateway = ServiceStatus(ready=True, detail="answers")
        return {**dict(zip(urls, answers, strict=True)), "gateway": gateway}

    async def _service(self, url: str | None) -> ServiceStatus:
        if url is None:
            return ServiceStatus(ready=None, detail="the gateway was not told where it answers")
        try:
            answer = await self._http.get(f"{url.rstrip('/')}/health/ready")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return ServiceStatus(ready=False, detail=f"does not answer at {url} ({describe(error)})")
        if answer.status_code == httpx.codes.OK:
            return ServiceStatus(ready=True, detail="ready")
        return ServiceStatus(ready=False, detail=_said(answer))

    async def _obstacle_of_database(self) -> str | None:
        try:
            await self._store.ping()
        except Problem as problem:
            return problem.detail
        return None

    async def _log_ranges(self) -> dict[Place, tuple[int, int]]:
        if not self._settings.kafka_true_end_offsets:
            return {}
        topics = {topic.name for service in CONSUMERS for topic in read_by(service)}
        try:
            return await self._kafka.log_ranges(topics)
        except (KafkaError, OSError, TimeoutError):
            return {}


def partition_lags(
    inboxes: Mapping[tuple[str, Place], Mapping[str, Any]], ranges: Mapping[Place, tuple[int, int]]
) -> list[PartitionLag]:
    """Join where each service stands with where the logs end.

    A partition that a service has never read counts from its log's beginning. Lag is in offsets: markers of
    transactions and compacted records count as records.
    """
    places = {
        (service, (topic.name, number))
        for service in CONSUMERS
        for topic in read_by(service)
        for name, number in ranges
        if name == topic.name
    }
    return [
        _partition_lag(service, place, inboxes.get((service, place), {}), ranges.get(place))
        for service, place in sorted(places | set(inboxes))
    ]


def _partition_lag(
    service: str, place: Place, inbox: Mapping[str, Any], log: tuple[int, int] | None
) -> PartitionLag:
    next_offset: int | None = inbox.get("next_offset")
    lag = None
    if log is not None:
        begin, end = log
        lag = max(0, end - max(begin, next_offset or 0))
    return PartitionLag(
        service=service,
        topic=place[0],
        partition=place[1],
        next_offset=next_offset,
        end_offset=log and log[1],
        lag=lag,
        lost_records=inbox.get("lost_records"),
        updated_at=inbox.get("updated_at"),
    )


def _said(answer: httpx.Response) -> str:
    """Why a service says that it is not ready."""
    try:
        document = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    detail = document.get("detail") if isinstance(document, dict) else None
    return str(detail or f"HTTP {answer.status_code}")
