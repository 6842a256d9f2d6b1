"""Asking the gateway over HTTP, and asking again while it is away: everything it is asked acts once."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

from trueward.client.errors import AwayError, RequestRefusedError

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may succeed."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0

Parameters = Mapping[str, str | int | bool | None]


class Transport:
    """One gateway, and how long to be patient with it."""

    def __init__(self, url: str, http: httpx.Client, patience_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.http = http
        self.patience_seconds = patience_seconds

    def ask(
        self,
        method: str,
        path: str,
        parameters: Parameters | None = None,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to a request that may be repeated; parameters that are None are left out.

        Raises ``AwayError`` when patience ends, ``RequestRefusedError`` for any other 4xx.
        """
        deadline = time.monotonic() + self.patience_seconds
        pause = FIRST_PAUSE_SECONDS
        asked = {name: _text(value) for name, value in (parameters or {}).items() if value is not None}
        while True:
            wait: float | None = None
            try:
                answer = self.http.request(
                    method, f"{self.url}{path}", params=asked or None, content=content, headers=headers
                )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                away = AwayError(
                    f"the gateway at {self.url} does not answer ({str(error) or type(error).__name__})"
                )
                away.__cause__ = error
            else:
                if answer.is_success:
                    return answer
                away = self.fault(answer)
                wait = _retry_after(answer)
            # Not all of it always: those who were sent away together must not come back together.
            wait = max(wait or 0.0, pause * random.uniform(0.5, 1))  # noqa: S311 (no secret)
            if time.monotonic() + wait > deadline:
                raise away
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def document(self, answer: httpx.Response) -> Any:
        """An answer's JSON. Raises ``AwayError`` where something else answers at the gateway's place."""
        try:
            return answer.json()
        except ValueError as error:
            raise AwayError(f"what answers at {self.url} is no Trueward gateway") from error

    def fault(self, answer: httpx.Response) -> AwayError:
        """What to raise when patience ends. Raises ``RequestRefusedError`` where asking again cannot help."""
        problem = _problem(answer)
        detail = str(problem.get("detail") or f"HTTP {answer.status_code}").replace("\n", " ")
        if answer.status_code not in AGAIN and answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
            raise RequestRefusedError(detail, answer.status_code, problem)
        away = AwayError(f"the gateway at {self.url} cannot answer: {detail}")
        if answer.status_code not in AGAIN:
            raise away
        return away


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _retry_after(answer: httpx.Response) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
