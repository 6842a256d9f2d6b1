"""The registry of topics is whole, and is what the services really read and write."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI

from deploy.docs.asyncapi import asyncapi_document
from shared import topics
from shared.contracts.base import Event
from shared.contracts.catalogue import CATALOGUE, name_of
from shared.service import Health, ServiceDefinition, Worker
from shared.settings import Settings
from shared.topics import DEAD_LETTERS, FOR_EVER, TOPICS, Party, Service, Topic, read_by, topic_named

ROOT = Path(__file__).parents[2]
SERVICES: tuple[Service, ...] = get_args(Service)
CONSUMERS: tuple[Service, ...] = ("metrics", "alerting", "retrain")
CONSTANTS = {name: topic for name, topic in vars(topics).items() if isinstance(topic, Topic)}

each_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def test_the_registry_lists_every_topic_once() -> None:
    assert sorted(topic.name for topic in TOPICS) == sorted(topic.name for topic in CONSTANTS.values())
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)


def test_the_registry_has_the_topics_of_the_design_and_the_replays() -> None:
    assert {topic.name for topic in TOPICS} == {
        "predictions",
        "labels",
        "pipeline-runs",
        "model-versions",
        "policies",
        "snapshots",
        "alerts",
        "retrain-requests",
        "retrain-decisions",
        "retrain-jobs",
        "retrain-job-updates",
        "dead-letters",
        "dead-letter-replays",
    }


@each_topic
def test_a_topic_is_found_by_its_name(topic: Topic) -> None:
    assert topic_named(topic.name) is topic


def test_a_name_outside_the_registry_is_an_error() -> None:
    with pytest.raises(KeyError):
        topic_named("prediction")


@each_topic
def test_a_topic_can_be_created(topic: Topic) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", topic.name)
    assert topic.partitions >= 1
    assert topic.retention_ms == FOR_EVER or topic.retention_ms > 0


@each_topic
def test_a_topic_has_a_writer_a_reader_and_words(topic: Topic) -> None:
    assert topic.writers
    assert topic.readers
    assert set(topic.writers) | set(topic.readers) <= set(get_args(Party))
    assert topic.summary.endswith(".")


@each_topic
def test_a_topics_records_follow_contracts_of_the_catalogue(topic: Topic) -> None:
    assert topic.contracts[0] is topic.contract
    assert {name_of(contract) for contract in topic.contracts} <= set(CATALOGUE)


def test_every_contract_of_the_catalogue_travels_on_a_topic() -> None:
    assert {contract for topic in TOPICS for contract in topic.contracts} == set(CATALOGUE.values())


@each_topic
def test_a_topics_key_is_a_field_of_its_contract(topic: Topic) -> None:
    assert topic.key in topic.contract.model_fields or topic is DEAD_LETTERS


@each_topic
def test_what_services_alone_write_are_cloud_events_and_what_others_write_is_plain_json(topic: Topic) -> None:
    ours = set(topic.writers) <= set(SERVICES)
    assert all(issubclass(contract, Event) is ours for contract in topic.contracts)


def test_what_must_be_versioned_and_auditable_is_kept_for_ever() -> None:
    assert {topic.name for topic in TOPICS if topic.retention_ms == FOR_EVER} == {"policies", "model-versions"}


def test_no_service_reads_what_it_writes() -> None:
    assert not [topic.name for topic in TOPICS if set(topic.writers) & set(topic.readers) & set(SERVICES)]


def definition_of(service: Service) -> ServiceDefinition:
    found = importlib.import_module(f"services.{service}.app").DEFINITION
    assert isinstance(found, ServiceDefinition)
    return found


async def faststream_document(
    service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What FastStream says of the subscriptions that the service's worker makes, no broker being there."""
    brokers: list[KafkaBroker] = []

    async def remember(broker: KafkaBroker) -> None:
        brokers.append(broker)

    monkeypatch.setattr(KafkaBroker, "start", remember)
    worker = Worker(definition_of(service), settings, Health())
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await worker._start_consuming(_NoConsumer(), failed)  # type: ignore[arg-type]
    (broker,) = brokers
    document: dict[str, Any] = AsyncAPI(broker, schema_version="3.0.0").to_specification().to_jsonable()
    return document


class _NoConsumer:
    """Takes nothing: only the subscription is looked at."""

    kafka: object = None


def receives(document: dict[str, Any], service: Service | None = None) -> set[str]:
    """Addresses that a document's operations receive from, the prefix filled in."""
    return {
        document["channels"][operation["channel"]["$ref"].removeprefix("#/channels/")]["address"].replace(
            "{prefix}", "trueward."
        )
        for name, operation in document["operations"].items()
        if operation["action"] == "receive" and (service is None or name.startswith(f"{service}."))
    }


@pytest.mark.parametrize("service", CONSUMERS)
async def test_the_document_says_what_faststream_says_that_a_service_receives(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = await faststream_document(service, Settings(), monkeypatch)
    assert receives(real) == receives(asyncapi_document(), service)
    assert receives(real) == {f"trueward.{topic.name}" for topic in read_by(service)}


async def test_a_service_subscribes_under_the_deployments_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    real = await faststream_document("alerting", Settings(topic_prefix="night."), monkeypatch)
    assert receives(real) == {"night.snapshots"}


def test_the_gateway_reads_no_topic() -> None:
    assert read_by("gateway") == ()
    assert not hasattr(importlib.import_module("services.gateway.app"), "DEFINITION")


def calls(service: Service) -> Iterator[ast.Call]:
    for file in sorted((ROOT / "services" / service).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield node


def method_of(call: ast.Call) -> str | None:
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def constant_in(expression: ast.expr) -> Topic:
    """``ALERTS`` or ``topics.ALERTS``: a service names the topic where it emits, so that it can be found."""
    name = expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", None)
    assert name in CONSTANTS, f"emit() takes a topic of the registry by name, not {ast.unparse(expression)}"
    return CONSTANTS[name]


@pytest.mark.parametrize("service", CONSUMERS)
def test_a_service_emits_to_the_topics_that_name_it_as_writer_and_to_no_other(service: Service) -> None:
    emitted = {constant_in(call.args[0]).name for call in calls(service) if method_of(call) == "emit"}
    # Every consumer refuses input: by itself, or in the kernel where the database refuses it.
    emitted.add(DEAD_LETTERS.name)
    assert emitted == {topic.name for topic in TOPICS if service in topic.writers}


def test_the_gateway_sends_to_the_topics_that_name_it_as_writer_and_to_no_other() -> None:
    source = (ROOT / "services" / "gateway" / "kafka.py").read_text(encoding="utf-8")
    sent = {name for name in CONSTANTS if re.search(rf"\b{name}\.name\b", source)}
    assert {CONSTANTS[name].name for name in sent} == {
        topic.name for topic in TOPICS if "gateway" in topic.writers
    }
