"""The description of the API: complete and true, so that a machine can test the API against it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from services.gateway.ingest_description import event_schemas
from services.gateway.problems import PROBLEM_JSON, ProblemDocument

_PROBLEM_REF = "#/components/schemas/Problem"
_MEANINGS = {
    403: "A browser asked on behalf of another site, or ahead of its user.",
    404: "Unknown: the problem lists what to check.",
    409: "The request contradicts what is so.",
    408: "The body did not come in time.",
    413: "The body has too many bytes.",
    415: "The body is of a media type or an encoding that is not taken.",
    422: "A parameter, header or body field broke a rule: `errors` names both.",
    429: "Too much is being taken in: send the same again after `Retry-After` seconds.",
    500: "The gateway made a mistake.",
    503: "PostgreSQL or Kafka is away: ask again after `Retry-After` seconds.",
}
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of an operation, for its ``responses``; 500 is always among them."""
    return {status: _problem(status) for status in (*statuses, 500)}


def _problem(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _MEANINGS[status],
        "content": {PROBLEM_JSON: {"schema": {"$ref": _PROBLEM_REF}}},
    }
    if status in (429, 503):
        response["headers"] = _RETRY_AFTER
    return response


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of ``app``: FastAPI's, with the shape of problems."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(schema.pop("$defs", {}))
        schemas["Problem"] = schema
        schemas.update(event_schemas())
        app.openapi_schema = document
    return app.openapi_schema
