"""The endpoints. Each asks one question of the store, the commands or the status, and adds nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message

from services.gateway.answers import (
    Accepted,
    Answer,
    Jobs,
    Live,
    Models,
    Monitoring,
    Policies,
    PolicyRun,
    Ready,
    SystemStatus,
    Trend,
)
from services.gateway.commands import Pending, fresh_request_id, refusal, refuse_other_sites, request_id_of
from services.gateway.openapi import problems
from services.gateway.parameters import (
    JobsParameters,
    ModelsParameters,
    MonitoringParameters,
    Nothing,
    OutcomeParameters,
    PoliciesParameters,
    RetrainPolicyParameters,
    RunRequest,
    TrendParameters,
)
from services.gateway.resources import Held
from services.gateway.store import RefusedRequest, policy_run
from shared.contracts.base import Name
from shared.contracts.retraining import Decision

MONITORING_PATH, TREND_PATH = "/api/v1/mlops/monitoring", "/api/v1/mlops/monitoring/trend"
KEPT_PATHS = (MONITORING_PATH, TREND_PATH)
"""What is answered from memory while the database says that nothing changed."""
REQUESTS_PATH = "/api/v1/mlops/retrain/requests"
NO_STORE = {"Cache-Control": "no-store"}

MOST_BODY_BYTES = 65_536
"""More than the largest request has, whichever way its characters are escaped."""


class SmallBody(APIRoute):
    """A route whose body is a few fields: a client that sends more is told so, and no more of it is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, behind the limit."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            size = 0

            async def receive() -> Message:
                nonlocal size
                message = await request.receive()
                size += len(message.get("body", b""))
                if size > MOST_BODY_BYTES:
                    # FastAPI would take any other error for a body that is no JSON.
                    raise HTTPException(413, f"The body has more than {MOST_BODY_BYTES} bytes. Nothing was done.")
                return message

            return await handle(Request(request.scope, receive))

        return bounded


mlops = APIRouter(prefix="/api/v1/mlops", tags=["mlops"], route_class=SmallBody)
system = APIRouter(prefix="/api/v1", tags=["system"])
health = APIRouter(prefix="/health", tags=["health"])

_OUTCOME = {
    "description": "What came of the request.",
    "operationId": "retrain_request",
}
_DECIDED: dict[int | str, dict[str, Any]] = {
    200: {
        "links": {
            "outcome": {
                **_OUTCOME,
                "parameters": {
                    "request_id": "$response.body#/execution/request_id",
                    "model": "$response.body#/model",
                },
            }
        }
    }
}
_LOCATION = {"Location": {"description": "Where the decision will be.", "schema": {"type": "string"}}}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": Accepted,
        "description": "The request is on its way; the decision was not there within the wait.",
        "headers": {
            **_LOCATION,
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}},
        },
        "links": {
            "outcome": {
                **_OUTCOME,
                "parameters": {"request_id": "$response.body#/request_id", "model": "$response.body#/model"},
            }
        },
    }
}


@mlops.get("/monitoring", response_model=Monitoring, responses=problems(404, 422, 503))
async def monitoring(asked: Annotated[MonitoringParameters, Query()], held: Held, request: Request) -> Response:
    """Is the model still good? Figures, thresholds and standing alerts, as of the newest snapshot."""

    async def make() -> bytes:
        return as_json(await held.store.monitoring(asked))

    return Json(await held.answering.answer(_key(request), asked.model, make))


@mlops.get("/monitoring/trend", response_model=Trend, responses=problems(404, 422, 503))
async def trend(asked: Annotated[TrendParameters, Query()], held: Held, request: Request) -> Response:
    """The champion's figures, snapshot by snapshot, newest first."""

    async def make() -> bytes:
        return as_json(await held.store.trend(asked))

    return Json(await held.answering.answer(_key(request), asked.model, make))


@mlops.get(
    "/retrain/policy", response_model=PolicyRun, responses={**_ACCEPTED, **problems(403, 404, 409, 422, 503)}
)
async def retrain_policy(
    asked: Annotated[RetrainPolicyParameters, Query()],
    held: Held,
    request: Request,
) -> PolicyRun | Response:
    """Should the model be retrained, and why? A dry run tells what the policy said of the newest snapshot.

    `dry_run=false` runs the policy, as `POST /api/v1/mlops/retrain/requests` does.
    """
    if asked.dry_run:
        return await held.store.dry_run(asked.model)
    refuse_other_sites(request.headers)
    outcome = await held.commands.run_policy(asked.model, fresh_request_id(), dry_run=False, requested_by=None)
    return _answer(asked.model, outcome)


@mlops.post(
    "/retrain/requests",
    response_model=PolicyRun,
    responses={**_DECIDED, **_ACCEPTED, **problems(403, 404, 409, 413, 422, 503)},
)
async def request_retrain(
    asked: RunRequest,
    held: Held,
    idempotency_key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            pattern="^[!-~]+$",
            description="The same key for the same model is the same request: it acts once and has one answer.",
        ),
    ],
    nothing: Annotated[Nothing, Query()],
    request: Request,
) -> PolicyRun | Response:
    """Run the policy for a model now. A cause that a job already covers makes no second job, whoever asks."""
    del nothing
    refuse_other_sites(request.headers)
    outcome = await held.commands.run_policy(
        asked.model,
        request_id_of(asked.model, idempotency_key),
        dry_run=asked.dry_run,
        requested_by=asked.requested_by,
    )
    return _answer(asked.model, outcome)


@mlops.get(
    "/retrain/requests/{request_id:path}",
    response_model=PolicyRun,
    responses={**_ACCEPTED, **problems(404, 409, 422, 503)},
)
async def retrain_request(
    request_id: Annotated[Name, Path()], asked: Annotated[OutcomeParameters, Query()], held: Held
) -> PolicyRun | Response:
    """What came of a request: 202 until it was decided (or for ever, where nobody made it)."""
    outcome = await held.store.outcome(asked.model, request_id)
    if isinstance(outcome, RefusedRequest):
        raise refusal(outcome)
    return _answer(asked.model, outcome or Pending(request_id))


@mlops.get("/retrain/jobs", responses=problems(404, 422, 503))
async def jobs(asked: Annotated[JobsParameters, Query()], held: Held) -> Jobs:
    """Retraining jobs, newest first, with reasons, evidence, artifact, rollback plan and the run's details."""
    return await held.store.jobs(asked)


@mlops.get("/policies", responses=problems(404, 422, 503))
async def policies(asked: Annotated[PoliciesParameters, Query()], held: Held) -> Policies:
    """A model's policy in force, and all that were ever received for it, newest first."""
    return await held.store.policies(asked)


@system.get("/models", responses=problems(422, 503))
async def models(asked: Annotated[ModelsParameters, Query()], held: Held) -> Models:
    """The models known, by name: versions, champion, state, and how far each service has come."""
    return await held.store.models(asked)


@system.get("/system/status", responses=problems())
async def status(held: Held) -> SystemStatus:
    """Services, dependencies, lag, outboxes, the clock, and every champion's artifact. Always answers."""
    return await held.status.system()


@health.get("/live", responses=problems())
async def live() -> Live:
    """The process runs."""
    return Live()


@health.get("/ready", responses=problems(503))
async def ready(held: Held) -> Ready:
    """The database answers. Whether commands would reach the broker is said, but is no condition."""
    await held.store.ping()
    return Ready(broker=await held.kafka.obstacle() or "ok")


class Json(Response):
    """An answer that is JSON already."""

    media_type = "application/json"


def as_json(answer: Answer) -> bytes:
    """An answer's bytes."""
    return answer.model_dump_json().encode()


def _key(request: Request) -> tuple[str, bytes]:
    return request.scope["path"], request.scope["query_string"]


def _answer(model: str, outcome: Decision | Pending) -> PolicyRun | Response:
    if isinstance(outcome, Decision):
        return policy_run(outcome)
    # Whoever asks chooses the id, and a header holds no more than ASCII.
    location = f"{REQUESTS_PATH}/{quote(outcome.request_id, safe='')}?{urlencode({'model': model})}"
    body = Accepted(model=model, request_id=outcome.request_id, location=location)
    return JSONResponse(
        body.model_dump(mode="json"), status_code=202, headers={"Location": location, "Retry-After": "1"}
    )
