"""From bytes to an event, or to the reason why not."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.base import Contract, unknown_fields
from shared.contracts.dead_letters import RefusalReason
from shared.contracts.models import ModelVersion, Policy
from shared.contracts.observations import Label, Prediction
from shared.decoding import LARGEST_LEAD, decode
from shared.errors import Refusal
from shared.records import Record
from shared.topics import MAX_RECORD_BYTES

RECEIVED_AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
PREDICTION = {
    "prediction_id": "p-1",
    "model": "m",
    "model_version": "1",
    "predicted_at": "2026-06-01T11:59:00Z",
    "probability": 0.5,
}


def record(value: bytes | None) -> Record:
    return Record("predictions", 0, 0, RECEIVED_AT, None, value)


def prediction(**changed: Any) -> bytes:
    return json.dumps({**PREDICTION, **changed}).encode()


def refusal(value: bytes | None, contract: type[Contract] = Prediction) -> Refusal:
    decoded = decode(record(value), contract)
    assert isinstance(decoded, Refusal), decoded
    return decoded


def test_an_unknown_field_is_ignored_whatever_its_name() -> None:
    decoded = decode(record(b'{"model": "m", "occurred_at": "yesterday"}'), Policy)
    assert isinstance(decoded, Policy)
    assert unknown_fields(decoded) == ("occurred_at",)


def test_a_good_record_is_its_event() -> None:
    decoded = decode(record(prediction()), Prediction)
    assert isinstance(decoded, Prediction)
    assert (decoded.prediction_id, decoded.probability) == ("p-1", 0.5)


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "undecodable", None),
        (b"", "undecodable", None),
        (b"\x00\xff garbage", "undecodable", None),
        (b"\xff\xfe{}", "undecodable", None),
        (b"{", "undecodable", None),
        (b'{"prediction_id": "\xe9"}', "undecodable", None),
        (b'{"prediction_id": "\\ud800"}', "undecodable", None),
        (prediction() + b"}", "undecodable", None),
        (b"[" * 100_000, "undecodable", None),
        (b'{"prediction_id": 1' + b"0" * 5_000 + b"}", "undecodable", None),
        (b"null", "invalid", None),
        (b"[]", "invalid", None),
        (b'"text"', "invalid", None),
        (b"{}", "invalid", "prediction_id"),
        (prediction(probability=1.2), "invalid", "probability"),
        (prediction(probability=-0.1), "invalid", "probability"),
        (prediction(probability=math.nan), "invalid", "probability"),
        (prediction(probability=math.inf), "invalid", "probability"),
        (prediction(probability="0.5"), "invalid", "probability"),
        (prediction(probability=True), "invalid", "probability"),
        (prediction(prediction_id=7), "invalid", "prediction_id"),
        (prediction(prediction_id=""), "invalid", "prediction_id"),
        (prediction(prediction_id="x" * 129), "invalid", "prediction_id"),
        (prediction(prediction_id="a\x00b"), "invalid", "prediction_id"),
        (prediction(predicted_at="2026-06-01T11:59:00"), "invalid", "predicted_at"),
        (prediction(predicted_at="2026-06-01"), "invalid", "predicted_at"),
        (prediction(predicted_at=1_780_000_000), "invalid", "predicted_at"),
        (prediction(predicted_at="1780000000"), "invalid", "predicted_at"),
        (prediction(predicted_at="2099-01-01T00:00:00Z"), "from_the_future", "event time"),
    ],
)
def test_what_cannot_be_accepted_is_refused_with_the_reason(
    value: bytes | None, reason: RefusalReason, field: str | None
) -> None:
    found = refusal(value)
    assert (found.reason, found.field) == (reason, field)
    assert found.detail


def test_nan_as_json_spells_it_is_refused() -> None:
    value = prediction(probability=0.25).replace(b"0.25", b"NaN")
    assert refusal(value).field == "probability"


def test_an_unknown_field_is_no_error_and_can_be_counted() -> None:
    decoded = decode(record(prediction(no_such_field=1)), Prediction)
    assert isinstance(decoded, Prediction)
    assert unknown_fields(decoded) == ("no_such_field",)


@pytest.mark.parametrize(("excess", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_value_may_be_as_large_as_the_limit(excess: int, accepted: bool) -> None:
    padded = prediction() + b" " * (MAX_RECORD_BYTES + excess - len(prediction()))
    decoded = decode(record(padded), Prediction)
    assert isinstance(decoded, Prediction) is accepted
    if isinstance(decoded, Refusal):
        assert decoded.reason == "too_large"
        assert str(MAX_RECORD_BYTES + 1) in decoded.detail


@pytest.mark.parametrize(
    ("lead", "accepted"),
    [
        (timedelta(days=-400), True),
        (timedelta(0), True),
        (LARGEST_LEAD - timedelta(microseconds=1), True),
        (LARGEST_LEAD, True),
        (LARGEST_LEAD + timedelta(microseconds=1), False),
    ],
)
def test_an_event_may_lie_five_minutes_ahead_of_its_receipt(lead: timedelta, accepted: bool) -> None:
    assert timedelta(minutes=5) == LARGEST_LEAD
    moment = (RECEIVED_AT + lead).isoformat()
    assert isinstance(decode(record(prediction(predicted_at=moment)), Prediction), Prediction) is accepted


def test_the_zone_of_an_event_time_is_heeded() -> None:
    ahead = prediction(predicted_at="2026-06-01T14:00:00+02:00")
    assert isinstance(decode(record(ahead), Prediction), Prediction)
    assert refusal(prediction(predicted_at="2026-06-01T12:00:00-02:00")).reason == "from_the_future"


def test_every_event_time_of_a_version_counts() -> None:
    document = {
        "model": "m",
        "version": "1",
        "stage": "champion",
        "registered_at": "2026-06-01T00:00:00Z",
        "changed_at": "2099-01-01T00:00:00Z",
    }
    assert refusal(json.dumps(document).encode(), ModelVersion).reason == "from_the_future"


def test_the_refusal_of_a_nested_field_names_its_path() -> None:
    assert refusal(prediction(segment={"country": 1})).field == "segment.country"


@given(value=st.binary(max_size=200))
def test_no_bytes_whatever_raise(value: bytes) -> None:
    for contract in (Prediction, Label, ModelVersion):
        assert isinstance(decode(record(value), contract), (contract, Refusal))


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PREDICTION, "x"]), inner),
        max_leaves=10,
    )
)
def test_no_json_whatever_raises(document: object) -> None:
    value = json.dumps(document).encode()
    assert isinstance(decode(record(value), Prediction), (Prediction, Refusal))
