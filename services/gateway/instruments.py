"""The outermost middleware: counts every answer, gives it its headers, and answers for our own mistakes."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.problems import our_mistake

REQUESTS_TOTAL = Counter("trueward_http_requests_total", "Requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("trueward_http_request_seconds", "Time to the answer's first byte.", ["route"])
KNOWN_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Watched:
    """Counts and times every answer by its route, never by its path: paths are the callers' to invent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and watch what is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message["headers"])
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Content-Type-Options"] = "nosniff"
                self._count(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if not started:
                await our_mistake(error).response(Request(scope))(scope, receive, watched_send)
            raise  # for the server to log

    @staticmethod
    def _count(scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        template = getattr(route, "path", "unknown")
        method = scope["method"] if scope["method"] in KNOWN_METHODS else "OTHER"
        REQUESTS_TOTAL.labels(method=method, route=template, status=str(status)).inc()
        REQUEST_SECONDS.labels(route=template).observe(seconds)
