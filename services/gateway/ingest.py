"""Publishing over HTTP, for those without a Kafka client: the same events, the same rules, the same topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request

from services.gateway.answers import Ingested
from services.gateway.commands import refuse_other_sites
from services.gateway.ingest_description import JSON, LINES, request_body
from services.gateway.openapi import problems
from services.gateway.parameters import Nothing
from services.gateway.problems import Problem
from services.gateway.published import judge
from services.gateway.resources import Held
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, PREDICTIONS, Topic

DESCRIPTION = """{summary} One event, a JSON array of up to 10,000, or one a line.

The answer comes when the broker has acknowledged them. Every event is judged by itself, by the rules of the topic
`{topic}`; `refused` names the index, field and rule of each that was not sent. The same events sent twice change
nothing, so after a 429, a 503 or no answer at all send the same again.
"""

ingest = APIRouter(prefix="/api/v1/ingest", tags=["ingest"])

Endpoint = Callable[..., Awaitable[Ingested]]


def _publisher(topic: Topic) -> Endpoint:
    async def publish(request: Request, held: Held, nothing: Annotated[Nothing, Query()]) -> Ingested:
        del nothing
        refuse_other_sites(request.headers)
        as_lines = _media_type(request) == LINES
        with held.intake.place() as place:
            body = await place.body(request, held.most_body_bytes)
            # In a thread: ten thousand events are a noticeable while, in which others are answered.
            judged = await asyncio.to_thread(judge, body, topic, as_lines=as_lines, now=datetime.now(UTC))
            if judged.records:
                await held.kafka.publish(topic, judged.records)
        return judged.answer()

    return publish


def _media_type(request: Request) -> str:
    """Raises ``Problem`` (415) for what is neither JSON nor lines of it."""
    named = request.headers.get("content-type", "")
    media_type = named.partition(";")[0].strip().lower()
    if media_type not in (JSON, LINES):
        said = f"not {named!r}" if named else "and none is named"
        detail = f"The Content-Type must be {JSON} or {LINES}, {said}. Nothing was sent."
        raise Problem(415, "unsupported-media-type", detail, headers={"Accept-Post": f"{JSON}, {LINES}"})
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        detail = f"The body must not be encoded ({encoding!r}). Nothing was sent."
        raise Problem(415, "unsupported-encoding", detail, headers={"Accept-Encoding": "identity"})
    return media_type


for _topic, _summary in (
    (PREDICTIONS, "Publish predictions: a model said something."),
    (LABELS, "Publish labels: what happened."),
    (PIPELINE_RUNS, "Publish finished pipeline runs, in the plain form or as OpenLineage RunEvents as they are."),
    (MODEL_VERSIONS, "Publish model versions: registered, promoted or retired, with their artifacts."),
):
    ingest.add_api_route(
        f"/{_topic.name}",
        _publisher(_topic),
        methods=["POST"],
        status_code=202,
        name=f"ingest_{_topic.name.replace('-', '_')}",
        summary=_summary.partition(":")[0].partition(",")[0],
        description=DESCRIPTION.format(summary=_summary, topic=_topic.name),
        response_description="The broker has what was accepted; what was refused is named.",
        responses=problems(403, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": request_body(_topic)},
    )
