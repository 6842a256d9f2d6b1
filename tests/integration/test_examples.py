"""Every golden example is taken in by each service that reads its topic, on the real database."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from services.metrics.settings import MetricsSettings
from shared.contracts.catalogue import CATALOGUE, name_of
from shared.service import ServiceDefinition
from shared.settings import Settings
from shared.topics import DEAD_LETTERS, RETRAIN_REQUESTS, SNAPSHOTS, Service, Topic, read_by
from tests.contracts.conformance import check_published
from tests.contracts.examples import EXAMPLES, Example
from tests.support import Emitted, Feed, apply

LATE = datetime.max.replace(tzinfo=UTC)
"""Received after everything that the examples tell of, the end of the calendar included."""

READ = [(service, topic) for service in ("metrics", "alerting", "retrain") for topic in read_by(service)]


def examples_of(topic: Topic) -> list[Example]:
    names = [name_of(contract) for contract in topic.contracts]
    return [golden for name in names for golden in EXAMPLES if golden.event == name]


def handler_of(service: Service) -> Any:
    definition: ServiceDefinition = importlib.import_module(f"services.{service}.app").DEFINITION
    settings = MetricsSettings() if definition.name == "metrics" else Settings()
    return definition.handler_for(SimpleNamespace(settings=settings, kept={}))  # type: ignore[arg-type]


def refusals(emitted: list[Emitted], topic: Topic) -> dict[int, tuple[str, str]]:
    """Reason and detail of each refused record, by its offset."""
    letters = [json.loads(one.value) for one in emitted if one.topic == DEAD_LETTERS.name]
    assert all(letter["topic"] == topic.name for letter in letters)
    return {letter["offset"]: (letter["reason"], letter["detail"]) for letter in letters}


@pytest.mark.parametrize(("service", "topic"), READ, ids=[f"{service}-{topic.name}" for service, topic in READ])
async def test_examples_are_taken_in(service: Service, topic: Topic, database_dsn: str) -> None:
    examples = examples_of(topic)
    feed = Feed(received_at=LATE)
    records = [feed.record(topic, golden.sent, key=b"any") for golden in examples]
    if topic is RETRAIN_REQUESTS:
        # A request is decided on the model's newest snapshot: there must be one.
        records = [feed.record(SNAPSHOTS, golden.sent) for golden in examples_of(SNAPSHOTS)] + records
    emitted = await apply(
        handler_of(service), records, database_dsn, service=service, now=LATE - timedelta(days=1)
    )
    check_published(emitted)
    refused = refusals(emitted, topic)
    for offset, golden in enumerate(examples):
        if golden.event == "retrain-job-update.v1":
            # Well understood, but of a job that this database never made.
            assert refused.pop(offset)[0] == "unknown_job"
    assert refused == {}


@pytest.mark.parametrize(
    ("service", "published"),
    [("alerting", {"alerts"}), ("retrain", {"retrain-decisions", "retrain-jobs"})],
)
async def test_what_snapshots_bring_about_is_as_documented(
    service: Service, published: set[str], database_dsn: str
) -> None:
    records = [Feed(received_at=LATE).record(SNAPSHOTS, golden.sent) for golden in examples_of(SNAPSHOTS)[:1]]
    emitted = await apply(handler_of(service), records, database_dsn, service=service)
    check_published(emitted)
    assert {one.topic for one in emitted} == published


async def test_what_no_example_says_is_refused_by_every_service(database_dsn: str) -> None:
    for service, topic in READ:
        record = Feed(received_at=LATE).record(topic, b'{"of_no_contract": true}')
        (letter,) = await apply(handler_of(service), [record], database_dsn, service=service)
        assert refusals([letter], topic)[0][0] == "invalid"


def test_there_are_examples_for_every_topic_that_is_read() -> None:
    assert all(examples_of(topic) for _, topic in READ)
    assert {golden.event for golden in EXAMPLES} == set(CATALOGUE)
