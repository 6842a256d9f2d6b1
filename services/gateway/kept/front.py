"""The shortest way to an answer that is kept: before any route is looked for or any parameter is read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.kept.answering import Answering
from services.gateway.problems import Problem

CONTENT_TYPE = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class KeptRoute:
    """What the instruments count such an answer by, as they do by a route."""

    path: str


class Front:
    """Gives what is kept, and passes everything else on; a question is known by its very bytes.

    What is kept was asked in the same words before, so its parameters were found to be right then.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app = app
        self._routes = {path: KeptRoute(path) for path in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        answering = cast("Answering", scope["app"].state.resources.answering)
        try:
            content = await answering.kept((route.path, scope["query_string"]))
        except Problem as problem:
            scope["route"] = route
            await problem.response(Request(scope))(scope, receive, send)
            return
        if content is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        await send_json(send, content)


async def send_json(send: Send, content: bytes) -> None:
    """Send a whole answer, its headers as they are given to every answer in JSON."""
    headers = [CONTENT_TYPE, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
