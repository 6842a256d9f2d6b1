"""Whether what a service publishes is what the AsyncAPI document says of its topic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from jsonschema import Draft7Validator

from deploy.docs.asyncapi import asyncapi_document
from tests.support import Emitted

DOCUMENT = asyncapi_document()


def check_published(emitted: Iterable[Emitted]) -> None:
    """Fail unless every event follows the payload and the headers of its channel's message."""
    for one in emitted:
        check_event(one.topic, one.value, one.headers)


def check_event(topic: str, value: bytes, headers: Mapping[str, str]) -> None:
    """One event of a topic (without prefix) that services alone write: such topics have one message."""
    (reference,) = DOCUMENT["channels"][topic]["messages"].values()
    message = DOCUMENT["components"]["messages"][reference["$ref"].removeprefix("#/components/messages/")]
    Draft7Validator(message["headers"]).validate(dict(headers))
    Draft7Validator({**message["payload"], "components": DOCUMENT["components"]}).validate(json.loads(value))
