"""The gateway itself, with one more path whose body never changes: what its server can give at most.

It is put together and served by the gateway's own ``main``, so it stays the same server whatever that becomes. The
body is given at the place where answers that are kept are given, behind the same instruments.
"""

from __future__ import annotations

import os
from typing import cast

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import app as gateway
from services.gateway.instruments import Watched
from services.gateway.kept.front import KeptRoute, send_json
from services.gateway.settings import GatewaySettings

PATH = "/constant"
BODY_FILE = "BENCH_BODY_FILE"
"""The environment variable that names the file with the body."""


class Constant:
    def __init__(self, app: ASGIApp, body: bytes) -> None:
        self._app = app
        self._body = body
        self._route = KeptRoute(PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            scope["route"] = self._route
            await send_json(send, self._body)
            return
        await self._app(scope, receive, send)


def main() -> None:
    """Run it until it is told to stop."""
    with open(os.environ[BODY_FILE], "rb") as file:  # noqa: PTH123 - one line
        body = file.read()

    create_app = gateway.create_app

    def create_with_constant(settings: GatewaySettings) -> FastAPI:
        app = create_app(settings)
        outermost = app.user_middleware[0]
        assert cast("object", outermost.cls) is Watched, "the constant is counted as every answer is"
        app.user_middleware.insert(1, Middleware(Constant, body=body))
        return app

    gateway.create_app = create_with_constant
    gateway.main()


if __name__ == "__main__":
    main()
