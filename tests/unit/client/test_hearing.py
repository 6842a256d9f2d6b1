"""Hearing: each transition once, in order, and from the record where the stream cannot tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx
import pytest

from tests.unit.client.gateways import client_of
from trueward.client import AwayError, RequestRefusedError
from trueward.client.hearing import ServerSent, events_of


def transition(number: int, snapshot: int, model: str = "m") -> dict[str, Any]:
    return {"model": model, "alert_sequence": number, "snapshot_sequence": snapshot}


def said(*events: tuple[str, Any], first_id: int = 1) -> str:
    return "".join(
        f"id: b-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
        for number, (kind, data) in enumerate(events, first_id)
    )


class Gateway:
    """Gives these streams in turn, and what is on record."""

    def __init__(self, *streams: str | int, judged: int = 5) -> None:
        self.streams: Iterator[str | int] = iter(streams)
        self.judged = judged
        self.record: list[dict[str, Any]] = []
        self.last_ids: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/events":
            self.last_ids.append(request.headers.get("Last-Event-ID"))
            stream = next(self.streams)
            return httpx.Response(stream) if isinstance(stream, int) else httpx.Response(200, text=stream)
        if request.url.path == "/api/v1/models":
            known = {"model": "m", "snapshot_sequence": {"alerting": self.judged}}
            return httpx.Response(200, json={"models": [known], "next_cursor": None})
        assert request.url.path == "/api/v1/mlops/alerts/transitions"
        newest_first = sorted(self.record, key=lambda one: -int(one["alert_sequence"]))
        return httpx.Response(200, json={"transitions": newest_first, "next_cursor": None})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[float] = []
    monkeypatch.setattr("trueward.client.hearing.time.sleep", passed.append)
    monkeypatch.setattr("trueward.client.hearing.time.monotonic", lambda: sum(passed))


def numbers(gateway: Gateway, count: int) -> list[int]:
    return [told["alert_sequence"] for told in islice(client_of(gateway).transitions(), count)]


def test_each_is_told_once_though_the_stream_repeats_it() -> None:
    alerts = [("alert", transition(number, 6)) for number in (1, 2, 2, 1, 3)]
    assert numbers(Gateway(said(("snapshot", {"model": "m"}), *alerts)), 3) == [1, 2, 3]


def test_a_lost_stream_is_taken_up_where_it_was() -> None:
    gateway = Gateway(said(("alert", transition(1, 6))), 503, said(("alert", transition(2, 7)), first_id=2))
    assert numbers(gateway, 2) == [1, 2]
    assert gateway.last_ids == [None, "b-1", "b-1"]


def test_what_the_stream_cannot_tell_is_read_from_the_record() -> None:
    gateway = Gateway(
        said(("alert", transition(7, 6))), said(("resync", {"why": "gone"}), ("alert", transition(10, 9)))
    )
    # 1 to 6 were before: they are of snapshots that had been judged when the stream was joined.
    gateway.record = [transition(number, number - 2) for number in range(1, 7)]
    gateway.record += [transition(7, 6), transition(8, 7), transition(9, 8), transition(10, 9)]
    told = client_of(gateway).transitions()
    assert next(told)["alert_sequence"] == 7
    gateway.judged = 9
    assert [one["alert_sequence"] for one in islice(told, 3)] == [8, 9, 10]


def test_a_stream_lost_before_it_told_anything_is_read_from_the_record() -> None:
    gateway = Gateway("", said(("alert", transition(3, 8))))
    gateway.record = [transition(1, 3), transition(2, 7)]

    def judged_later(request: httpx.Request) -> httpx.Response:
        answer = gateway(request)
        if request.url.path == "/api/v1/models":
            gateway.judged = 8
        return answer

    told = client_of(judged_later).transitions()
    assert [one["alert_sequence"] for one in islice(told, 2)] == [2, 3]


def test_a_gateway_that_stays_away_is_given_up() -> None:
    gateway = Gateway(said(("alert", transition(1, 6))), *[503] * 100)
    told = client_of(gateway).transitions()
    assert next(told)["alert_sequence"] == 1
    with pytest.raises(AwayError, match="no longer tells what happens"):
        next(told)


def test_a_gateway_that_has_no_stream_is_no_gateway_to_wait_for() -> None:
    with pytest.raises(RequestRefusedError):
        next(client_of(Gateway(404)).transitions())


def test_server_sent_events_are_read_as_the_standard_has_them() -> None:
    text = ": comment\nretry: 5\n\nevent: a\ndata: [1,\ndata:2]\nid: 7\n\ndata: {}\n\nevent: cut\ndata: 1"
    assert list(events_of(iter(text.split("\n")))) == [
        ServerSent("a", [1, 2], "7"),
        ServerSent("message", {}, None),
    ]
