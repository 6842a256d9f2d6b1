"""What the API says of the bodies that publish events: truthfully, so that a machine can test it.

Every event is judged and refused by itself, so that any object is taken; the schema of a good one stands beside.
"""

from __future__ import annotations

import json
from typing import Any

from shared.contracts.base import Contract
from shared.contracts.models import ModelVersion
from shared.contracts.observations import Label, OpenLineageRunEvent, PipelineRun, Prediction, Tick
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, PREDICTIONS, Topic

JSON, LINES = "application/json", "application/x-ndjson"
MOST_EVENTS = 10_000

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    PREDICTIONS.name: [
        {
            "prediction_id": "order-1-v3",
            "model": "fraud",
            "model_version": "3",
            "predicted_at": "2026-01-31T12:00:00Z",
            "probability": 0.87,
            "entity_id": "order-1",
            "segment": {"country": "NL"},
        },
        {
            "prediction_id": "order-2-v3",
            "model": "fraud",
            "model_version": "3",
            "predicted_at": "2026-01-31T12:00:01Z",
            "probability": 0.04,
            "entity_id": "order-2",
        },
    ],
    LABELS.name: [
        {"entity_id": "order-1", "outcome": 1, "observed_at": "2026-02-03T09:30:00Z"},
        {"entity_id": "order-2", "outcome": 0, "observed_at": "2026-02-03T09:30:00Z", "source": "chargebacks"},
    ],
    PIPELINE_RUNS.name: [
        {"pipeline": "orders", "completed_at": "2026-01-31T04:00:00Z", "status": "success", "records": 8211},
        {
            "eventType": "COMPLETE",
            "eventTime": "2026-01-31T04:00:00Z",
            "run": {"runId": "0176a8c2-fe01-7439-87e6-56a1a1b4029f"},
            "job": {"namespace": "warehouse", "name": "orders"},
        },
    ],
    MODEL_VERSIONS.name: [
        {
            "model": "fraud",
            "version": "3",
            "registered_at": "2026-01-30T08:00:00Z",
            "stage": "champion",
            "trained_through": "2026-01-29T00:00:00Z",
        }
    ],
}


def event_schemas() -> dict[str, dict[str, Any]]:
    """Components: the schema of every event that can be published, by its name in this document."""
    schemas: dict[str, dict[str, Any]] = {}
    for contract in (Prediction, Label, PipelineRun, OpenLineageRunEvent, ModelVersion):
        name = _name(contract)
        schema = contract.model_json_schema(ref_template=f"#/components/schemas/{name}{{model}}")
        for part, definition in schema.pop("$defs", {}).items():
            schemas[f"{name}{part}"] = {**definition, "title": f"{name}{part}"}
        schemas[name] = {**schema, "title": name}
    return schemas


def request_body(topic: Topic) -> dict[str, Any]:
    """The request body of the operation that publishes to a topic."""
    shapes = [{"$ref": f"#/components/schemas/{_name(contract)}"} for contract in _contracts(topic)]
    examples = EXAMPLES[topic.name]
    anything = {"description": "Anything else is refused by itself, with its index."}
    any_object = {"type": "object", **anything}
    array = {"type": "array", "items": {"anyOf": [*shapes, anything]}, "maxItems": MOST_EVENTS}
    return {
        "required": True,
        "content": {
            JSON: {
                "schema": {"anyOf": [*shapes, any_object, array]},
                "examples": {
                    "one": {"summary": "One event.", "value": examples[0]},
                    "several": {"summary": "An array of events.", "value": examples},
                },
            },
            LINES: {
                # No type: a schema speaks of one JSON document, and this is any text, judged line by line.
                "schema": {"description": "One JSON event a line, as NDJSON has it; blank lines are passed over."},
                "examples": {
                    "lines": {
                        "summary": "One event a line.",
                        "value": "".join(f"{json.dumps(example)}\n" for example in examples),
                    }
                },
            },
        },
    }


def _contracts(topic: Topic) -> list[type[Contract]]:
    return [contract for contract in topic.contracts if contract is not Tick]


def _name(contract: type[Contract]) -> str:
    name = contract.__name__
    return name if name.endswith("Event") else f"{name}Event"
