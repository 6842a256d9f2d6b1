"""Publishing: batches, refusals by their place in the call, and what has no JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from shared.publishing import decode_published
from shared.publishing import key_of as key_in_the_registry
from shared.records import Record
from shared.topics import topic_named
from tests.unit.client.gateways import client_of
from trueward.client import ClientError, EventsRefusedError, Trueward
from trueward.client.publishing import MOST_BYTES, MOST_EVENTS
from trueward.client.topics import key_of
from trueward.client.types import Label

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Gateway:
    """Takes every event whose outcome is no string."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.paths: list[str] = []

    def client(self) -> Trueward:
        return client_of(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["Content-Type"] == "application/x-ndjson"
        events = [json.loads(line) for line in request.content.splitlines()]
        self.paths.append(request.url.path)
        self.batches.append(events)
        refused = [
            {"index": index, "field": "outcome", "reason": "invalid", "rule": "no"}
            for index, event in enumerate(events)
            if isinstance(event["outcome"], str)
        ]
        answer = {"accepted": len(events) - len(refused), "refused": refused, "unknown_fields": {"x": 1}}
        return httpx.Response(202, json=answer)


def label(number: int, outcome: Any = 1) -> Label:
    return {"entity_id": f"e-{number}", "outcome": outcome, "observed_at": NOON}


def test_any_number_of_events_goes_in_batches() -> None:
    gateway = Gateway()
    receipt = gateway.client().publish_labels(label(number) for number in range(MOST_EVENTS + 1))
    assert [len(batch) for batch in gateway.batches] == [MOST_EVENTS, 1]
    assert (receipt.accepted, receipt.refused, receipt.unknown_fields) == (MOST_EVENTS + 1, [], {"x": 2})
    assert gateway.batches[0][0] == {"entity_id": "e-0", "outcome": 1, "observed_at": "2026-01-31T12:00:00+00:00"}
    assert set(gateway.paths) == {"/api/v1/ingest/labels"}


def test_large_events_make_smaller_batches() -> None:
    gateway = Gateway()
    large = [{**label(number), "x": "y" * (MOST_BYTES // 2 - 200)} for number in range(3)]
    gateway.client().publish_labels(large)  # type: ignore[arg-type]  # a field that no contract knows
    assert [len(batch) for batch in gateway.batches] == [2, 1]


def test_one_event_needs_no_list_and_none_at_all_is_nothing_to_do() -> None:
    gateway = Gateway()
    assert gateway.client().publish_labels(label(1)).accepted == 1
    assert gateway.client().publish_labels([]).accepted == 0
    assert len(gateway.batches) == 1


def test_what_was_refused_is_named_by_its_place_in_the_call() -> None:
    events = [label(number, "no" if number == MOST_EVENTS + 1 else 1) for number in range(MOST_EVENTS + 3)]
    with pytest.raises(
        EventsRefusedError, match="1 of 10,003 events were refused; the first, event 10001: outcome"
    ) as raised:
        Gateway().client().publish_labels(events)
    assert raised.value.receipt.accepted == MOST_EVENTS + 2
    receipt = Gateway().client().publish_labels(events, strict=False)
    assert [refused.index for refused in receipt.refused] == [MOST_EVENTS + 1]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (label(1, float("nan")), "event 1 cannot be said in JSON"),
        (label(1, np.float64("inf")), "event 1 cannot be said in JSON"),
        (label(1, object()), "object is no JSON type"),
        ({**label(1), "observed_at": NOON.replace(tzinfo=None)}, "has no time zone"),
        ("text", "event 1 is no mapping but str"),
    ],
)
def test_what_json_cannot_say_is_said_before_anything_is_sent(event: Any, said: str) -> None:
    gateway = Gateway()
    with pytest.raises(ClientError, match=said):
        gateway.client().publish_labels([label(0), event])
    assert gateway.batches == []


@pytest.mark.parametrize("outcome", [np.int64(1), np.float32(1), np.bool_(True)])
def test_scalars_of_numpy_are_numbers(outcome: Any) -> None:
    gateway = Gateway()
    gateway.client().publish_labels(label(1, outcome))
    assert gateway.batches[0][0]["outcome"] == 1


@pytest.mark.parametrize(
    ("topic", "event"),
    [
        ("predictions", {"prediction_id": "p", "entity_id": "e"}),
        ("predictions", {"prediction_id": "p"}),
        ("labels", {"entity_id": "e", "outcome": 1, "observed_at": "2026-01-31T12:00:00Z"}),
        ("pipeline-runs", {"pipeline": "p", "completed_at": "2026-01-31T12:00:00Z", "status": "success"}),
        (
            "pipeline-runs",
            {
                "eventType": "COMPLETE",
                "eventTime": "2026-01-31T12:00:00Z",
                "run": {"runId": "r"},
                "job": {"namespace": "n", "name": "j"},
            },
        ),
        (
            "model-versions",
            {"model": "m", "version": "1", "registered_at": "2026-01-31T12:00:00Z", "stage": "retired"},
        ),
    ],
)
def test_keys_are_those_of_the_registry(topic: str, event: dict[str, Any]) -> None:
    if topic == "predictions":
        event |= {"model": "m", "model_version": "1", "predicted_at": "2026-01-31T12:00:00Z", "probability": 0.5}
    read = decode_published(
        Record(topic, 0, 0, datetime.now(UTC), None, json.dumps(event).encode()), topic_named(topic)
    )
    assert key_of(topic, event) == key_in_the_registry(read)  # type: ignore[arg-type]


def test_an_event_without_its_key_has_none() -> None:
    assert key_of("labels", {}) is None
    assert key_of("model-versions", {"model": 3}) is None
