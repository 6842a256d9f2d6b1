"""The AsyncAPI 3.0 document of Trueward's topics, made from the registry and the contracts.

FastStream can write a document of its subscribers alone; what the services publish goes through their outbox,
where FastStream does not see it. So the document is made from the registry, from which topics are created and
services subscribed, and a test compares it with the document that FastStream makes of the real subscribers.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from shared.contracts.base import Contract, Event
from shared.contracts.catalogue import CATALOGUE, name_of
from shared.topics import FOR_EVER, MAX_MESSAGE_BYTES, TOPICS, Service, Topic

Document = dict[str, Any]

SERVICES: tuple[Service, ...] = get_args(Service)
KAFKA_BINDING = "0.5.0"
PREFIX_DEFAULT = "trueward."

DESCRIPTION = """\
Trueward keeps models true: it watches the live quality of machine-learning models from what they predicted
and what then happened, and decides, by policy and on the record, when they must be retrained.

Values are JSON in UTF-8; times are RFC 3339. What users send needs no headers: plain JSON from any client. What
Trueward publishes are CloudEvents 1.0 in Kafka's binary mode: the attributes are `ce_*` headers and the value
stays plain JSON. Topics are at least once: a repeat carries the same `ce_id` and the same bytes. A field that a
contract does not know is ignored, so readers must ignore it too."""


def asyncapi_document() -> Document:
    """The whole document, JSON-ready, in a stable order."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Trueward",
            "version": version("trueward"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": service} for service in SERVICES],
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The deployment's Kafka.",
                "variables": {
                    "bootstrap": {"default": "127.0.0.1:9092", "description": "Kafka's bootstrap servers."}
                },
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(
            _operation(service, topic, action)
            for service in SERVICES
            for topic in TOPICS
            for action, parties in (("receive", topic.readers), ("send", topic.writers))
            if service in parties
        ),
        "components": {
            "messages": {name: _message(name, contract) for name, contract in CATALOGUE.items()},
            "schemas": _schemas(),
        },
    }


def _channel(topic: Topic) -> Document:
    names = [name_of(contract) for contract in topic.contracts]
    return {
        "address": "{prefix}" + topic.name,
        "summary": topic.summary,
        "parameters": {
            "prefix": {"default": PREFIX_DEFAULT, "description": "What every topic's name begins with."}
        },
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": MAX_MESSAGE_BYTES,
                },
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "x-key": topic.key,
        "x-written-by": list(topic.writers),
        "x-read-by": list(topic.readers),
        "x-kept-for-ever": topic.retention_ms == FOR_EVER,
    }


def _operation(service: Service, topic: Topic, action: str) -> tuple[str, Document]:
    """One service's use of one topic, by its name."""
    operation: Document = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{service} {'reads' if action == 'receive' else 'writes'} {topic.name}.",
        "tags": [{"name": service}],
        "messages": [
            {"$ref": f"#/channels/{topic.name}/messages/{name_of(contract)}"} for contract in topic.contracts
        ],
    }
    if action == "receive":
        group = {"type": "string", "description": f"The deployment's topic prefix, then {service}."}
        operation["bindings"] = {"kafka": {"groupId": group, "bindingVersion": KAFKA_BINDING}}
    return f"{service}.{action}.{topic.name}", operation


def _message(name: str, contract: type[Contract]) -> Document:
    message: Document = {
        "name": f"trueward.{name}",
        "title": contract.__name__,
        "summary": (contract.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
    }
    if issubclass(contract, Event):
        message["headers"] = _cloud_event_headers(contract)
    message["payload"] = {"$ref": f"#/components/schemas/{contract.__name__}"}
    keys = [topic.key for topic in TOPICS if topic.contract is contract]
    if keys:
        key = {"type": "string", "description": keys[0]}
        message["bindings"] = {"kafka": {"key": key, "bindingVersion": KAFKA_BINDING}}
    return message


def _cloud_event_headers(contract: type[Event]) -> Document:
    """The headers of a published event: CloudEvents 1.0 in binary mode."""
    sources = [
        f"/trueward/{party}"
        for topic in TOPICS
        if contract in topic.contracts
        for party in topic.writers
        if party in SERVICES
    ]
    return {
        "type": "object",
        "required": [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_subject",
            "ce_time",
            "content-type",
        ],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": {"type": "string", "description": "The same fact always has the same id."},
            "ce_source": {"type": "string", "enum": sources},
            "ce_type": {"type": "string", "const": contract.event_type},
            "ce_subject": {"type": "string", "description": (contract.subject.__doc__ or "").strip()},
            "ce_time": {"type": "string", "format": "date-time"},
            "content-type": {"type": "string", "const": "application/json"},
            "traceparent": {"type": "string", "description": "W3C trace context, while a trace is open."},
        },
    }


def _schemas() -> Document:
    """Every contract and its parts, once each, in the dialect of AsyncAPI (JSON Schema draft 7)."""
    _, definitions = models_json_schema(
        [(contract, "validation") for contract in CATALOGUE.values()],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Document = _as_draft_7(definitions["$defs"])
    return dict(sorted(schemas.items()))


def _as_draft_7(schema: Any) -> Any:
    """Tuples are spelled ``items`` in draft 7 and ``prefixItems`` since."""
    if isinstance(schema, dict):
        return {"items" if key == "prefixItems" else key: _as_draft_7(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_as_draft_7(item) for item in schema]
    return schema
