"""Back-pressure: how much of what users publish is held at once. Nobody queues: too much is a 429."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from services.gateway.problems import Problem

READ_SECONDS = 30
"""A client that takes longer to send its body would keep its place from others."""


class Intake:
    """Counts the requests and bytes in flight, from the first byte read to the broker's acknowledgement."""

    def __init__(self, most_requests: int, most_bytes: int) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one request. Raises ``Problem`` (429) when all are taken."""
        if self.requests >= self._most_requests:
            raise _too_much(f"{self.requests} requests with events are being taken in, which is the most at once")
        self.requests += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.requests -= 1
            self.bytes -= place.bytes

    def reserve(self, size: int) -> None:
        """Count bytes in. Raises ``Problem`` (429) where they are too many."""
        if self.bytes + size > self._most_bytes:
            raise _too_much(f"{self.bytes} bytes of events are being taken in; with these it would be too many")
        self.bytes += size


class Place:
    """What one request holds."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.bytes = 0

    async def body(self, request: Request, most_bytes: int) -> bytes:
        """The request's body, counted as it comes.

        Raises ``Problem``: 413 above ``most_bytes``, 429 where the gateway holds too much already, 408 where the
        body does not come.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most_bytes:
            raise _too_large(most_bytes)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for part in request.stream():
                    if self.bytes + len(part) > most_bytes:
                        raise _too_large(most_bytes)
                    self._intake.reserve(len(part))
                    self.bytes += len(part)
                    parts.append(part)
        except (TimeoutError, ClientDisconnect) as error:
            detail = f"The body did not come within {READ_SECONDS} seconds. Nothing was sent."
            raise Problem(408, "body-did-not-come", detail, title="Body did not come") from error
        return b"".join(parts)


def _too_much(why: str) -> Problem:
    detail = f"Nothing was sent: {why}. Send the same again in a moment."
    return Problem(429, "too-much-at-once", detail, title="Too much at once", headers={"Retry-After": "1"})


def _too_large(most_bytes: int) -> Problem:
    detail = f"The body has more than {most_bytes} bytes. Nothing was sent: send the events in parts."
    return Problem(413, "body-too-large", detail, title="Body too large")
