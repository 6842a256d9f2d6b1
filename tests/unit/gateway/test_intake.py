"""Back-pressure: what is in flight is counted, too much is refused, and what is over is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.types import Message

from services.gateway import intake as intake_module
from services.gateway.intake import Intake
from services.gateway.problems import Problem


def request(*parts: bytes, declared: int | None = None, then: Message | None = None) -> Request:
    """A request whose body comes in parts, and then ends, breaks off (``then``), or stands still."""
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]

    async def messages() -> AsyncIterator[Message]:
        for part in parts:
            yield {"type": "http.request", "body": part, "more_body": True}
        yield then or {"type": "http.request", "body": b"", "more_body": False}

    coming = messages()
    return Request({"type": "http", "method": "POST", "headers": headers}, receive=lambda: anext(coming))


async def test_a_body_is_read_and_counted_until_its_place_is_given_back() -> None:
    intake = Intake(2, 10)
    with intake.place() as place:
        assert await place.body(request(b"abc", b"def"), 6) == b"abcdef"
        assert (intake.requests, intake.bytes) == (1, 6)
    assert (intake.requests, intake.bytes) == (0, 0)


@pytest.mark.parametrize("declared", [7, None, 3])
async def test_a_body_that_is_too_large_is_refused_whatever_it_said(declared: int | None) -> None:
    intake = Intake(2, 100)
    with pytest.raises(Problem) as raised, intake.place() as place:
        await place.body(request(b"abc", b"defg", declared=declared), 6)
    assert raised.value.status == 413
    assert (intake.requests, intake.bytes) == (0, 0)


async def test_more_requests_than_places_are_sent_away() -> None:
    intake = Intake(1, 10)
    with intake.place():
        with pytest.raises(Problem) as raised, intake.place():
            pass
        assert raised.value.status == 429
        assert raised.value.headers["Retry-After"] == "1"
    with intake.place():
        assert intake.requests == 1


async def test_more_bytes_than_may_be_held_are_sent_away() -> None:
    intake = Intake(5, 10)
    with intake.place() as first:
        await first.body(request(b"x" * 8), 10)
        with pytest.raises(Problem) as raised, intake.place() as second:
            await second.body(request(b"y", b"yy"), 10)
        assert raised.value.status == 429
        assert intake.bytes == 8
    with intake.place() as third:
        assert await third.body(request(b"y" * 10), 10) == b"y" * 10


async def test_a_client_that_goes_gives_its_place_back() -> None:
    intake = Intake(1, 10)
    with pytest.raises(Problem) as raised, intake.place() as place:
        await place.body(request(b"x", then={"type": "http.disconnect"}), 10)
    assert raised.value.status == 408
    assert (intake.requests, intake.bytes) == (0, 0)


async def test_a_client_that_stands_still_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "READ_SECONDS", 0.01)
    intake = Intake(1, 10)

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Problem) as raised, intake.place() as place:
        await place.body(Request({"type": "http", "method": "POST", "headers": []}, receive=never), 10)
    assert raised.value.status == 408
    assert intake.requests == 0
