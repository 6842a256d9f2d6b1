"""The reference of HTTP, made from the gateway's own OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from deploy.docs.fields import in_words, name_in, reached, section
from deploy.docs.tables import NOTE, table
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings

Document = dict[str, Any]

METHODS = ("get", "post", "put", "patch", "delete")
_GROUPS = {
    "mlops": "Is a model still good, and what is being done?",
    "ingest": "Publishing events",
    "page": "What the page reads",
    "system": "The system",
    "health": "Health",
}
_INTRODUCTION = (
    "The same in OpenAPI 3.1 is served at `/openapi.json`. Errors are `application/problem+json` (RFC 9457); the "
    "stream of server-sent events, which has no end and so no place here, is described in [The page](page.md)."
)


def http_page() -> str:
    """Every endpoint: what it answers, its parameters, its body, its answers; then every body's fields."""
    document = create_app(GatewaySettings()).openapi()
    schemas = document["components"]["schemas"]
    parts = [f"# HTTP\n\n{NOTE} {_INTRODUCTION}", document["info"]["description"].strip()]
    for tag, title in _groups(document).items():
        parts.append(f"## {title}")
        parts += [_operation(*found) for found in operations(document) if found[2]["tags"][0] == tag]
    parts.append("## Bodies, field by field")
    parts += [section(name, schema).rstrip() for name, schema in reached(document["paths"], schemas).items()]
    return "\n\n".join(parts) + "\n"


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Method, path and description of every operation."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def _groups(document: Document) -> dict[str, str]:
    """The titles of the tags that are there, in the order in which people ask; a new tag comes last."""
    found = list(dict.fromkeys(operation["tags"][0] for _, _, operation in operations(document)))
    ordered = [tag for tag in _GROUPS if tag in found] + [tag for tag in found if tag not in _GROUPS]
    return {tag: _GROUPS.get(tag, tag.capitalize()) for tag in ordered}


def _operation(method: str, path: str, operation: Document) -> str:
    parts = [f"### {method} {path}", (operation.get("description") or operation["summary"]).strip()]
    if parameters := operation.get("parameters"):
        parts.append(table(("parameter", "type", "default", "what"), map(_parameter, parameters)).rstrip())
    if body := operation.get("requestBody"):
        parts.append(f"Body: {', or '.join(_contents(body['content']))}.")
    answers = [
        (code, "; ".join(_contents(answer.get("content", {}))), _reason(code, answer))
        for code, answer in operation["responses"].items()
    ]
    parts.append(table(("status", "body", "what"), answers).rstrip())
    return "\n\n".join(parts)


def _parameter(parameter: Document) -> tuple[str, str, str, str]:
    schema = parameter["schema"]
    default = f"`{json.dumps(schema['default'])}`" if schema.get("default") is not None else ""
    place = "" if parameter["in"] == "query" else f" ({parameter['in']})"
    what = parameter.get("description") or schema.get("description") or ""
    return (
        f"`{parameter['name']}`{place}",
        in_words(schema),
        "required" if parameter.get("required") else default.replace('"', ""),
        " ".join(what.split()),
    )


def _contents(content: Document) -> Iterator[str]:
    for media_type, described in content.items():
        schema = described.get("schema", {})
        # JSON goes without saying; an error is JSON of its own media type, as the introduction says.
        if media_type == "application/json" or name_in(schema.get("$ref", "")) == "Problem":
            yield in_words(schema)
        elif (said := in_words(schema)) == "anything":
            yield f"`{media_type}`"
        else:
            yield f"{said} (`{media_type}`)"


def _reason(code: str, answer: Document) -> str:
    said = " ".join((answer.get("description") or "").split())
    return HTTPStatus(int(code)).phrase if said in ("", "Successful Response") else said
