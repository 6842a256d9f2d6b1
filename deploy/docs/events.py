"""The reference of topics and events, field by field, made from the AsyncAPI document."""

from __future__ import annotations

from typing import Any

from deploy.docs.asyncapi import asyncapi_document
from deploy.docs.fields import name_in, reached, section
from deploy.docs.tables import NOTE, table

Document = dict[str, Any]


def events_page() -> str:
    """Every topic with its records, every record with its fields and headers, then the parts that they share."""
    document = asyncapi_document()
    messages, schemas = document["components"]["messages"], document["components"]["schemas"]
    same = "The same for machines: [AsyncAPI](asyncapi.yaml) and [JSON Schemas](contracts/README.md)."
    topics = [_topic(name, channel) for name, channel in document["channels"].items()]
    parts = [
        f"# Events\n\n{NOTE} {same}",
        document["info"]["description"].strip(),
        "## Topics",
        table(("topic", "key", "records", "what"), topics),
        "## Records",
    ]
    named = {name_in(message["payload"]["$ref"]): message for message in messages.values()}
    parts += [_message(name, message, schemas[name]) for name, message in named.items()]
    parts.append("## Parts of records")
    shared = reached({name: schemas[name] for name in named}, schemas)
    parts += [section(name, schema).rstrip() for name, schema in shared.items() if name not in named]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _topic(name: str, channel: Document) -> tuple[str, str, str, str]:
    records = [_link(message) for message in channel["messages"]]
    return f"`{name}`", channel["x-key"], ", ".join(records), channel["summary"]


def _link(message_name: str) -> str:
    return f"[{message_name}](contracts/{message_name}.schema.json)"


def _message(name: str, message: Document, schema: Document) -> str:
    contract = message["name"].removeprefix("trueward.")
    said = [section(name, schema).rstrip(), f"JSON Schema: {_link(contract)}."]
    if headers := message.get("headers"):
        kind = headers["properties"]["ce_type"]["const"]
        said.append(f"A CloudEvent of type `{kind}`, about {headers['properties']['ce_subject']['description']}")
    return "\n\n".join(said)
