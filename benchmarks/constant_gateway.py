"""The gateway itself, with one more route whose body never changes: what its server can give at most.

It is put together and served by the gateway's own ``main``, so it stays the same server whatever that becomes.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import app as gateway
from services.gateway.settings import GatewaySettings

PATH = "/constant"
BODY_FILE = "BENCH_BODY_FILE"
"""The environment variable that names the file with the body."""


def main() -> None:
    """Run it until it is told to stop."""
    with open(os.environ[BODY_FILE], "rb") as file:  # noqa: PTH123 - one line
        body = file.read()

    async def constant(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    create_app = gateway.create_app

    def create_with_constant(settings: GatewaySettings) -> FastAPI:
        app = create_app(settings)
        app.add_route(PATH, constant)
        return app

    gateway.create_app = create_with_constant
    gateway.main()


if __name__ == "__main__":
    main()
