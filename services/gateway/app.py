"""The gateway: reads what the services publish, sends commands, serves the page. A thin reader."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.gateway import listing, openapi, problems, resources
from services.gateway.ingest import ingest
from services.gateway.instruments import Watched
from services.gateway.kept.front import Front
from services.gateway.page import routes as page
from services.gateway.page.live import Live
from services.gateway.routes import KEPT_PATHS, health, mlops, system
from services.gateway.server import run
from services.gateway.settings import GatewaySettings
from shared import logs
from shared.service import bind

DESCRIPTION = """\
Trueward watches the live quality of machine-learning models and decides, by policy and on the record, when people
must look and when a model must be retrained.

Unknown is null, in every answer; a number is never invented. Every error is an RFC 9457 problem. Lists are read on
with `cursor`, set to the `next_cursor` of the answer before.
"""


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway's ASGI application. Its lifespan opens what it needs, and waits for nothing."""
    live = Live(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with resources.opened(settings, live) as held:
            app.state.resources = held
            yield

    app = FastAPI(
        title="Trueward",
        version=version("trueward"),
        description=DESCRIPTION,
        lifespan=lifespan,
        # Their pages would load scripts from outside; /api lists the endpoints, /openapi.json says it all.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.live = live
    for router in (mlops, ingest, page.reads, system, health, page.files):
        app.include_router(router)
    _add_metrics(app)
    _add_listing(app)
    problems.install(app)
    app.add_middleware(Front, paths=KEPT_PATHS)
    app.add_middleware(Watched)
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]
    return app


def _add_metrics(app: FastAPI) -> None:
    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus' text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **openapi.problems(),
        },
        tags=["health"],
    )
    async def metrics() -> Response:
        """What the gateway counts, for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _add_listing(app: FastAPI) -> None:
    @app.get("/api", include_in_schema=False)
    async def endpoints() -> Response:
        headers = {"Content-Security-Policy": listing.CONTENT_SECURITY_POLICY}
        return HTMLResponse(listing.render(app.openapi()), headers=headers)


def main() -> None:
    """Run the gateway in this process until it is told to stop. Raises ``UsageError`` when its port is taken."""
    settings = GatewaySettings()
    logs.configure("gateway", log_format=settings.log_format, level=settings.log_level)
    # Each status asks three services for their health: nobody wants to read of every such question.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    listening = bind(settings.http_host, settings.http_port)
    app = create_app(settings)
    run(app, listening, app.state.live.until_stopped)


if __name__ == "__main__":
    main()
