"""The outermost middleware: counts every answer, gives it its headers, and answers for our own mistakes."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.problems import our_mistake

REQUESTS_TOTAL = Counter("trueward_http_requests_total", "Requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("trueward_http_request_seconds", "Time to the answer's first byte.", ["route"])
NO_STORE = (b"cache-control", b"no-store")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
KNOWN_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Watched:
    """Counts and times every answer by its route, never by its path: paths are the callers' to invent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

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
                headers = message["headers"] = list(message["headers"])
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append(NO_STORE)
                headers.append(NO_SNIFFING)
                self._count(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if not started:
                await our_mistake(error).response(Request(scope))(scope, receive, watched_send)
            raise  # for the server to log

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        template = getattr(route, "path", "unknown")
        method = scope["method"] if scope["method"] in KNOWN_METHODS else "OTHER"
        # Finding a series by its labels takes longer than counting in it; there are as many as the registry has.
        series = self._series.get((method, template, status))
        if series is None:
            series = (
                REQUESTS_TOTAL.labels(method=method, route=template, status=str(status)),
                REQUEST_SECONDS.labels(route=template),
            )
            self._series[method, template, status] = series
        series[0].inc()
        series[1].observe(seconds)
