"""The AsyncAPI document is well formed, leads nowhere else, and says what is true of the events."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from deploy.docs.asyncapi import SERVICES, asyncapi_document
from shared.contracts.base import Event
from shared.contracts.catalogue import CATALOGUE
from shared.effects import cloud_event_headers
from shared.topics import TOPICS
from tests.contracts.examples import EXAMPLES, Example

STORED = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
Document = dict[str, Any]


def closed(properties: Document, *required: str) -> Document:
    """An object with these fields and x-extensions, and nothing else: as strict as the specification."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "patternProperties": {r"^x-[\w.\-]+$": True},
        "additionalProperties": False,
    }


def mapping(value: Document, names: str = r"^[A-Za-z0-9_.\-]+$") -> Document:
    return {
        "type": "object",
        "patternProperties": {names: value},
        "additionalProperties": False,
        "minProperties": 1,
    }


TEXT: Document = {"type": "string", "minLength": 1}
REFERENCE: Document = {
    "type": "object",
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
    "required": ["$ref"],
    "additionalProperties": False,
}
TAGS: Document = {"type": "array", "items": closed({"name": TEXT, "description": TEXT}, "name"), "minItems": 1}
SCHEMA: Document = {"$ref": "http://json-schema.org/draft-07/schema#"}
VARIABLE = closed({"enum": {"type": "array"}, "default": TEXT, "description": TEXT})
CHANNEL_BINDING = closed(
    {
        "topic": TEXT,
        "partitions": {"type": "integer", "minimum": 1},
        "replicas": {"type": "integer", "minimum": 1},
        "topicConfiguration": {
            "type": "object",
            "properties": {
                "cleanup.policy": {"type": "array", "items": {"enum": ["compact", "delete"]}},
                "retention.ms": {"type": "integer", "minimum": -1},
                "max.message.bytes": {"type": "integer", "minimum": 0},
            },
            "additionalProperties": False,
        },
        "bindingVersion": {"const": "0.5.0"},
    }
)
MESSAGE = closed(
    {
        "name": TEXT,
        "title": TEXT,
        "summary": TEXT,
        "contentType": {"const": "application/json"},
        "headers": {"allOf": [SCHEMA, {"properties": {"type": {"const": "object"}}, "required": ["type"]}]},
        "payload": REFERENCE,
        "bindings": closed({"kafka": closed({"key": SCHEMA, "bindingVersion": {"const": "0.5.0"}})}),
    },
    "payload",
)
OPERATION = closed(
    {
        "action": {"enum": ["send", "receive"]},
        "channel": REFERENCE,
        "summary": TEXT,
        "tags": TAGS,
        "messages": {"type": "array", "items": REFERENCE, "minItems": 1},
        "bindings": closed({"kafka": closed({"groupId": SCHEMA, "bindingVersion": {"const": "0.5.0"}})}),
    },
    "action",
    "channel",
)
CHANNEL = closed(
    {
        "address": TEXT,
        "summary": TEXT,
        "parameters": mapping(VARIABLE),
        "messages": mapping(REFERENCE),
        "bindings": closed({"kafka": CHANNEL_BINDING}),
    },
    "address",
    "messages",
)
ASYNCAPI_3_0 = closed(
    {
        "asyncapi": {"const": "3.0.0"},
        "info": closed(
            {
                "title": TEXT,
                "version": TEXT,
                "description": TEXT,
                "license": closed({"name": TEXT, "url": TEXT}, "name"),
                "tags": TAGS,
            },
            "title",
            "version",
        ),
        "defaultContentType": {"const": "application/json"},
        "servers": mapping(
            closed(
                {
                    "host": TEXT,
                    "protocol": {"const": "kafka"},
                    "description": TEXT,
                    "variables": mapping(VARIABLE),
                },
                "host",
                "protocol",
            )
        ),
        "channels": mapping(CHANNEL),
        "operations": mapping(OPERATION),
        "components": closed({"messages": mapping(MESSAGE), "schemas": mapping(SCHEMA)}),
    },
    "asyncapi",
    "info",
    "channels",
    "operations",
    "components",
)
"""The part of AsyncAPI 3.0 that the document uses, and no more."""


@pytest.fixture(scope="module")
def document() -> Document:
    stored: Document = yaml.safe_load(STORED.read_text(encoding="utf-8"))
    return stored


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolve(document: Document, reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def test_the_document_follows_asyncapi(document: Document) -> None:
    Draft7Validator(ASYNCAPI_3_0).validate(document)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spoilt: spoilt.pop("info"),
        lambda spoilt: spoilt.update(topics={}),
        lambda spoilt: spoilt["channels"]["labels"].pop("address"),
        lambda spoilt: spoilt["channels"]["labels"].update(subscribe={}),
        lambda spoilt: spoilt["operations"]["metrics.receive.labels"].update(action="subscribe"),
        lambda spoilt: spoilt["components"]["schemas"]["Label"].update(type="label"),
        lambda spoilt: spoilt["components"]["messages"]["label.v1"].pop("payload"),
    ],
)
def test_the_structure_is_strict_enough_to_notice(spoil: Callable[[Document], object]) -> None:
    spoilt = copy.deepcopy(asyncapi_document())
    spoil(spoilt)
    assert not Draft7Validator(ASYNCAPI_3_0).is_valid(spoilt)


def test_every_reference_leads_to_something(document: Document) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        resolve(document, reference)


def test_every_message_and_schema_is_used(document: Document) -> None:
    used = set(references(document))
    for kind in ("messages", "schemas"):
        for name in document["components"][kind]:
            assert f"#/components/{kind}/{name}" in used


def test_parameters_are_those_of_the_address(document: Document) -> None:
    for channel in document["channels"].values():
        assert set(channel["parameters"]) == {"prefix"}
        assert channel["address"].startswith("{prefix}")


def test_every_topic_is_a_channel_with_its_key_partitions_and_retention(document: Document) -> None:
    assert set(document["channels"]) == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        channel = document["channels"][topic.name]
        kafka = channel["bindings"]["kafka"]
        assert channel["address"] == f"{{prefix}}{topic.name}"
        assert channel["x-key"] == topic.key
        assert kafka["partitions"] == topic.partitions
        assert kafka["topicConfiguration"]["retention.ms"] == topic.retention_ms
        assert [CATALOGUE[name] for name in channel["messages"]] == list(topic.contracts)


def test_every_service_has_an_operation_for_each_topic_that_it_reads_or_writes(document: Document) -> None:
    expected = {
        f"{party}.{action}.{topic.name}"
        for topic in TOPICS
        for action, parties in (("receive", topic.readers), ("send", topic.writers))
        for party in parties
        if party in SERVICES
    }
    assert set(document["operations"]) == expected
    for name, operation in document["operations"].items():
        service, action, topic = name.split(".")
        assert operation["action"] == action
        assert operation["channel"] == {"$ref": f"#/channels/{topic}"}
        assert operation["tags"] == [{"name": service}]
        assert all(one["$ref"].startswith(f"#/channels/{topic}/messages/") for one in operation["messages"])


@pytest.mark.parametrize("golden", EXAMPLES, ids=str)
def test_an_event_follows_the_payload_of_its_message(golden: Example, document: Document) -> None:
    payload = document["components"]["messages"][golden.event]["payload"]
    Draft7Validator({**payload, "components": document["components"]}).validate(golden.canonical)


@pytest.mark.parametrize("golden", EXAMPLES, ids=str)
def test_a_published_event_travels_with_the_headers_of_its_message(golden: Example, document: Document) -> None:
    message = document["components"]["messages"][golden.event]
    event = golden.decode()
    if not isinstance(event, Event):
        assert "headers" not in message, "what users send needs no headers"
        return
    validator = Draft202012Validator(message["headers"])
    writers = [topic.writers for topic in TOPICS if golden.contract in topic.contracts]
    for service in SERVICES:
        headers = dict(cloud_event_headers(service, event))
        assert validator.is_valid(headers) is any(service in parties for parties in writers)
        assert set(headers) <= set(message["headers"]["properties"])
