"""What a running gateway holds, made once in its lifespan and handed to the routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, cast

import httpx
from fastapi import Depends, Request

from services.gateway.commands import Commands
from services.gateway.database import Database, Line
from services.gateway.intake import Intake
from services.gateway.kafka import Kafka
from services.gateway.kept.answering import Answering
from services.gateway.kept.answers import KeptAnswers
from services.gateway.kept.reading import revision_reader
from services.gateway.kept.revisions import Revisions
from services.gateway.page.live import Live
from services.gateway.page.reader import Reader
from services.gateway.settings import GatewaySettings
from services.gateway.status import Status
from services.gateway.store import Store
from shared.retries import until_done

SERVICE_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that a route may use."""

    store: Store
    answering: Answering
    commands: Commands
    status: Status
    kafka: Kafka
    intake: Intake
    most_body_bytes: int
    reader: Reader
    live: Live


@asynccontextmanager
async def opened(settings: GatewaySettings, live: Live) -> AsyncIterator[Resources]:
    """Open everything without waiting for anything: what is away is connected when it comes."""
    async with (
        Database.opened(settings) as database,
        httpx.AsyncClient(timeout=SERVICE_WAIT_SECONDS, trust_env=False) as http,
    ):
        store = Store(database, settings.topic_prefix)
        kafka = Kafka(settings)
        line = Line(settings)
        background = [
            asyncio.create_task(kafka.run()),
            asyncio.create_task(live.run()),
            # Requests ask for themselves; this one is for the log, which says what is waited for.
            asyncio.create_task(until_done("PostgreSQL", store.ping)),
        ]
        try:
            yield Resources(
                store=store,
                answering=Answering(Revisions(revision_reader(line)), KeptAnswers(settings.kept_answers_bytes)),
                commands=Commands(store, kafka, settings.decision_wait_seconds),
                status=Status(settings, store, kafka, http),
                kafka=kafka,
                reader=Reader(database, settings.topic_prefix),
                live=live,
                intake=Intake(settings.ingest_requests_in_flight, settings.ingest_bytes_in_flight),
                most_body_bytes=settings.ingest_body_bytes,
            )
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            line.close()


def resources(request: Request) -> Resources:
    """The running gateway's resources."""
    return cast("Resources", request.app.state.resources)


Held = Annotated[Resources, Depends(resources)]
