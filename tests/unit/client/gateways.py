"""Gateways for the client's unit tests: what they answer is written down beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import httpx

from trueward.client import Trueward

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(
    answers: Handler | Iterable[httpx.Response | Exception], *, patience_seconds: float = 30
) -> Trueward:
    """A client of a gateway that gives these answers, in this order."""
    if callable(answers):
        handler = answers
    else:
        remaining = iter(answers)

        def handler(request: httpx.Request) -> httpx.Response:
            del request
            answer = next(remaining)
            if isinstance(answer, Exception):
                raise answer
            return answer

    http = httpx.Client(transport=httpx.MockTransport(handler))
    return Trueward("http://gateway/", patience_seconds=patience_seconds, http=http)
