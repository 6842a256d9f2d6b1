"""The endpoints of the page: its files, its reads, and the stream of what happens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.gateway.openapi import problems
from services.gateway.page.answers import (
    Decisions,
    DecisionsParameters,
    Overview,
    OverviewParameters,
    Segments,
    SegmentsParameters,
    Series,
    SeriesParameters,
    Transitions,
    TransitionsParameters,
)
from services.gateway.page.assets import ASSETS, Asset
from services.gateway.problems import Problem
from services.gateway.resources import Held
from shared.contracts.base import Name

reads = APIRouter(prefix="/api/v1", tags=["page"])
files = APIRouter(include_in_schema=False)


@reads.get("/overview", responses=problems(422, 503))
async def overview(asked: Annotated[OverviewParameters, Query()], held: Held) -> Overview:
    """Every model at a glance: standing, figures against thresholds, streaks, the last job. Sorted."""
    return await held.reader.overview(asked)


@reads.get("/mlops/monitoring/series", responses=problems(404, 422, 503))
async def series(asked: Annotated[SeriesParameters, Query()], held: Held) -> Series:
    """The champion's figures over time, thinned to what a chart can show; the trend tells every snapshot."""
    return await held.reader.series(asked)


@reads.get("/mlops/monitoring/segments", responses=problems(404, 422, 503))
async def segments(asked: Annotated[SegmentsParameters, Query()], held: Held) -> Segments:
    """The figures of every declared segment, as of the newest snapshot."""
    return await held.reader.segments(asked)


@reads.get("/mlops/alerts/transitions", responses=problems(404, 422, 503))
async def alert_transitions(asked: Annotated[TransitionsParameters, Query()], held: Held) -> Transitions:
    """Every change of a model's alerts and escalation state, newest first, as the topic had it."""
    return await held.reader.transitions(asked)


@reads.get("/mlops/retrain/decisions", responses=problems(404, 422, 503))
async def retrain_decisions(asked: Annotated[DecisionsParameters, Query()], held: Held) -> Decisions:
    """What the policy said of a model and on what evidence, newest first, as the topic had it."""
    return await held.reader.decisions(asked)


# A stream has no end, so no answer that a description of answers could hold: docs/page.md describes it.
@reads.get("/events", include_in_schema=False)
async def events(
    held: Held,
    model: Annotated[Name | None, Query()] = None,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> StreamingResponse:
    """What happens, as server-sent events: of one model, or of all."""
    stream = held.live.stream(model, last_event_id)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@files.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _answer(ASSETS["index.html"], request)


@files.get("/page/{name}")
async def asset(name: str, request: Request) -> Response:
    """A file of the page."""
    if (found := ASSETS.get(name)) is None:
        raise Problem(404, None, "The page has no such file.")
    return _answer(found, request)


def _answer(found: Asset, request: Request) -> Response:
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=found.headers)
    return Response(found.content, media_type=found.media_type, headers=found.headers)
