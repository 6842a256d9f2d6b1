"""JSON Schemas of the contracts: one file per event type and version."""

from __future__ import annotations

import json
from typing import Any

from shared.contracts.base import Contract
from shared.contracts.catalogue import CATALOGUE

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(contract: type[Contract]) -> Schema:
    """What a contract admits, as JSON Schema. Rules between fields stand in the description only."""
    return contract.model_json_schema(mode="validation")


def schema_documents() -> dict[str, Schema]:
    """Every event's JSON Schema by the name of its file."""
    return {
        f"{name}.schema.json": {
            "$schema": DIALECT,
            "$id": f"urn:trueward:contract:{name}",
            **schema_of(contract),
        }
        for name, contract in CATALOGUE.items()
    }


def as_text(schema: Schema) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
