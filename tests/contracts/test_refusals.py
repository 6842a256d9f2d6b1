"""Every rule of a contract, broken: the record is refused, and the field that broke the rule is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from shared.contracts.base import Contract
from shared.contracts.catalogue import CATALOGUE
from shared.contracts.models import ModelVersion, Policy
from shared.contracts.observations import Label, Prediction
from shared.decoding import decode
from shared.errors import Refusal
from shared.records import Record

T = "2026-01-31T12:00:00Z"
PREDICTION: Mapping[str, Any] = {
    "prediction_id": "p-1",
    "model": "m",
    "model_version": "v1",
    "predicted_at": T,
}
BINARY = {**PREDICTION, "probability": 0.5}
MULTICLASS = {**PREDICTION, "probabilities": {"a": 0.5, "b": 0.5}}
REGRESSION = {**PREDICTION, "value": 1.0}
LABEL = {"entity_id": "e-1", "outcome": 1, "observed_at": T}
RUN = {"pipeline": "p", "completed_at": T, "status": "success"}
LINEAGE = {
    "eventType": "COMPLETE",
    "eventTime": T,
    "run": {"runId": "r"},
    "job": {"namespace": "n", "name": "j"},
}
VERSION = {"model": "m", "version": "v1", "registered_at": T, "stage": "champion"}
POLICY = {"model": "m"}
REQUEST = {"request_id": "r", "model": "m", "requested_at": T}
UPDATE = {"job_id": "j", "update": "started", "at": T}
TICK = {"tick": T}

VALID = {
    "prediction.v1": (BINARY, MULTICLASS, REGRESSION),
    "label.v1": (LABEL,),
    "pipeline-run.v1": (RUN,),
    "openlineage-run-event.v1": (LINEAGE,),
    "tick.v1": (TICK,),
    "model-version.v1": (VERSION,),
    "policy.v1": (POLICY,),
    "retrain-request.v1": (REQUEST,),
    "retrain-job-update.v1": (UPDATE,),
}
NOT_A_NUMBER = float("nan")
INFINITE = float("inf")
ABSENT = object()


def nested(depth: int) -> list[Any]:
    """Lists in each other, so many of them."""
    made: list[Any] = [1]
    for _ in range(depth - 1):
        made = [made]
    return made


NO_TIMES = (
    "2026-01-31T12:00:00",  # no zone
    "2026-01-31",
    "2026-01-31T12:00Z",  # no seconds
    "2026-02-30T12:00:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T12:00:60Z",
    "2026-01-31T12:00:00+24:00",
    "0001-01-01T00:00:00+01:00",  # before the calendar begins, in UTC
    "9999-12-31T23:59:59-01:00",
    "2026-01-31T12:00:00Z\n",
    "\uff12\uff10\uff12\uff16-01-31T12:00:00Z",  # digits, but not those of RFC 3339
    "1769860800",
    1769860800,
    1769860800.5,
    "",
    None,
    True,
    [],
)
NO_NAMES = ("", "x" * 129, "nul\x00", 7, 0.5, True, None, [], {})
NO_PROBABILITIES = (1.2, -0.1, 1.0000000000000002, NOT_A_NUMBER, INFINITE, "0.5", True, [], {})
TIMES = (
    ("prediction.v1", BINARY, "predicted_at"),
    ("label.v1", LABEL, "observed_at"),
    ("pipeline-run.v1", RUN, "completed_at"),
    ("openlineage-run-event.v1", LINEAGE, "eventTime"),
    ("tick.v1", TICK, "tick"),
    ("model-version.v1", VERSION, "registered_at"),
    ("retrain-request.v1", REQUEST, "requested_at"),
    ("retrain-job-update.v1", UPDATE, "at"),
)
NAMES = (
    ("prediction.v1", BINARY, "prediction_id"),
    ("prediction.v1", BINARY, "model"),
    ("prediction.v1", BINARY, "model_version"),
    ("label.v1", LABEL, "entity_id"),
    ("pipeline-run.v1", RUN, "pipeline"),
    ("model-version.v1", VERSION, "model"),
    ("model-version.v1", VERSION, "version"),
    ("policy.v1", POLICY, "model"),
    ("retrain-request.v1", REQUEST, "request_id"),
    ("retrain-request.v1", REQUEST, "model"),
    ("retrain-job-update.v1", UPDATE, "job_id"),
)
CASES: list[tuple[str, Mapping[str, Any], str, Any]] = [
    *[(event, valid, field, value) for event, valid, field in TIMES for value in (*NO_TIMES, ABSENT)],
    *[(event, valid, field, value) for event, valid, field in NAMES for value in (*NO_NAMES, ABSENT)],
    *[("prediction.v1", BINARY, "probability", value) for value in NO_PROBABILITIES],
    *[("prediction.v1", BINARY, "predicted", value) for value in (True, False, 2, -1, 0.5, "1", "yes", "", [])],
    *[("prediction.v1", BINARY, "segment", value) for value in (None, "EWR", ["EWR"])],
    *[
        ("prediction.v1", BINARY, "segment", {"origin": value})
        for value in (None, 1, True, "", "x" * 129, "nul\x00", {"airport": "EWR"}, ["EWR"])
    ],
    *[("prediction.v1", BINARY, "segment", {name: "EWR"}) for name in ("", "x" * 129, "nul\x00")],
    *[("prediction.v1", BINARY, "data_as_of", value) for value in NO_TIMES if value is not None],
    *[("prediction.v1", BINARY, "entity_id", value) for value in NO_NAMES if value is not None],
    *[
        ("prediction.v1", MULTICLASS, "probabilities", value)
        for value in (
            {},
            {"a": 1.0},  # one class is no choice
            {"a": 0.5, "b": 0.500002},
            {"a": 0.5, "b": 0.499998},
            {"a": 1.2, "b": -0.2},
            {"a": NOT_A_NUMBER, "b": 0.5},
            {"a": True, "b": 0.0},
            {"": 0.5, "b": 0.5},
            {"nul\x00": 0.5, "b": 0.5},
            {"x" * 129: 0.5, "b": 0.5},
            [0.5, 0.5],
        )
    ],
    *[("prediction.v1", MULTICLASS, "predicted", value) for value in ("c", 0, 1, True)],
    *[("prediction.v1", REGRESSION, "value", value) for value in (NOT_A_NUMBER, INFINITE, "1", True)],
    *[("prediction.v1", REGRESSION, "predicted", value) for value in (0, 1, "a")],
    ("prediction.v1", BINARY, "probability", ABSENT),  # nothing predicted
    ("prediction.v1", BINARY, "value", 1.0),  # two things predicted
    ("prediction.v1", BINARY, "probabilities", {"a": 0.5, "b": 0.5}),
    ("prediction.v1", MULTICLASS, "value", 1.0),
    *[
        ("label.v1", LABEL, "outcome", value)
        for value in (True, False, NOT_A_NUMBER, INFINITE, -INFINITE, "", "x" * 129, "nul\x00", [], {}, ABSENT)
    ],
    *[("label.v1", LABEL, "source", value) for value in NO_NAMES if value is not None],
    *[("pipeline-run.v1", RUN, "status", value) for value in ("SUCCESS", "ok", "", None, 1, ABSENT)],
    *[("pipeline-run.v1", RUN, "records", value) for value in (-1, 2**63, 1.5, "7", True)],
    *[("openlineage-run-event.v1", LINEAGE, "eventType", value) for value in ("DONE", "complete", 1)],
    *[("openlineage-run-event.v1", LINEAGE, "run", value) for value in (None, {}, {"runId": ""}, {"runId": 7})],
    *[
        ("openlineage-run-event.v1", LINEAGE, "job", value)
        for value in ({}, {"namespace": "n"}, {"namespace": "", "name": "j"}, {"namespace": "n", "name": "\x00"})
    ],
    *[("model-version.v1", VERSION, "stage", value) for value in ("Champion", "shadow", None, 1, ABSENT)],
    *[("model-version.v1", VERSION, "changed_at", value) for value in NO_TIMES if value is not None],
    *[
        ("model-version.v1", VERSION, "artifact", value)
        for value in (
            {},
            {"uri": None},
            {"uri": "x" * 4097},
            {"uri": "s3://m", "sha256": "AB" * 32},
            {"uri": "s3://m", "sha256": "ab" * 31},
            {"uri": "s3://m", "size_bytes": -1},
            {"uri": "s3://m", "size_bytes": 2**63},
            {"uri": "s3://m", "created_at": "2026-01-31"},
            "s3://m",
        )
    ],
    *[
        ("model-version.v1", VERSION, "training", value)
        for value in (
            None,
            [],
            {"note": "nul\x00"},
            {"nul\x00": 1},
            {"deep": [{"er": "\x00"}]},
            {"loss": NOT_A_NUMBER},
            {"losses": [0.1, {"best": -INFINITE}]},
            {"deep": nested(100)},
        )
    ],
    *[("policy.v1", POLICY, "window", value) for value in ("2d", "7D", 7, None)],
    *[("policy.v1", POLICY, "mode", value) for value in ("dry-run", "", None, True)],
    *[("policy.v1", POLICY, "min_evaluated", value) for value in (0, -1, 30.0, "30", True, None, 2**63)],
    *[("policy.v1", POLICY, "lease_seconds", value) for value in (0, -1, 900.5, 10**30, True, None)],
    *[
        ("policy.v1", POLICY, "rules", value)
        for value in (
            None,
            {"accuracy_breach": {"below": 1.2}},
            {"accuracy_breach": {"below": "0.5"}},
            {"accuracy_breach": False},
            {"brier_breach": {"above": -0.1}},
            {"brier_breach": {"high_above": NOT_A_NUMBER}},
            {"data_stale": {"above_seconds": 0}},
            {"data_stale": {"high_above_seconds": 10**30}},
            {"pipeline_stale": {"above_seconds": "2 days"}},
        )
    ],
    *[
        ("policy.v1", POLICY, "triggers", value)
        for value in (
            {"accuracy_breach": False},
            {"accuracy_breach": 1},
            {"brier_breach": "on"},
            {"new_labels": 0},
            {"new_labels": 40.5},
            {"new_labels": True},
        )
    ],
    *[("policy.v1", POLICY, "rollback", value) for value in ({"accuracy_drop": -0.1}, {"brier_rise": 1.1})],
    *[
        ("policy.v1", POLICY, "segments", value)
        for value in (
            {"origin": "EWR"},
            {"origin": [""]},
            {"": ["EWR"]},
            {"origin": [str(n) for n in range(101)]},
            {str(n): ["EWR"] for n in range(11)},
            {"a": ["b:c"], "a:b": ["c"]},
            {"a": ["x", "b:other"], "a:b": []},
        )
    ],
    *[("retrain-request.v1", REQUEST, "dry_run", value) for value in ("false", 0, None)],
    *[("retrain-job-update.v1", UPDATE, "update", value) for value in ("queued", "STARTED", None, ABSENT)],
    ("retrain-job-update.v1", UPDATE, "details", {"deep": nested(100)}),
    *[("retrain-job-update.v1", UPDATE, "message", value) for value in ("x" * 4097, "nul\x00", 7)],
]


RULES_BETWEEN_FIELDS = {
    "exactly one of probability, probabilities and value must be given",
    "probabilities must sum to 1 within 1e-6",
    "predicted must be one of the classes in probabilities",
    "predicted must be 0 or 1 where probability is given",
    "predicted has no meaning beside value",
}


def with_field(valid: Mapping[str, Any], field: str, value: object) -> bytes:
    document = {**valid, field: value}
    if value is ABSENT:
        del document[field]
    return json.dumps(document).encode()


def refusal_of(contract: type[Contract], value: bytes | None) -> Refusal:
    answer = decode(record(value), contract)
    assert isinstance(answer, Refusal), f"accepted: {answer!r}"
    return answer


def record(value: bytes | None) -> Record:
    return Record(
        topic="any",
        partition=0,
        offset=0,
        received_at=datetime(2030, 1, 1, tzinfo=UTC),
        key=None,
        value=value,
        headers=(),
    )


@pytest.mark.parametrize(
    ("event", "valid"), [(event, valid) for event, documents in VALID.items() for valid in documents]
)
def test_what_the_cases_start_from_is_accepted(event: str, valid: Mapping[str, Any]) -> None:
    assert isinstance(decode(record(json.dumps(valid).encode()), CATALOGUE[event]), CATALOGUE[event])


@pytest.mark.parametrize(
    ("event", "valid", "field", "value"),
    CASES,
    ids=[f"{event}-{field}-{str(value)[:20]!a}" for event, _, field, value in CASES],
)
def test_a_broken_rule_is_refused_and_its_field_named(
    event: str, valid: Mapping[str, Any], field: str, value: object
) -> None:
    refusal = refusal_of(CATALOGUE[event], with_field(valid, field, value))
    assert refusal.reason == "invalid"
    if refusal.field is None:
        assert refusal.detail in RULES_BETWEEN_FIELDS
    else:
        assert refusal.field.split(".")[0] == field


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "undecodable"),
        (b"", "undecodable"),
        (b"   ", "undecodable"),
        (b"\x00\xff\xfe\xc0\x80", "undecodable"),
        (b'{"entity_id":"e","outcome":1', "undecodable"),
        (b'{"entity_id":"\xff","outcome":1,"observed_at":"2026-01-31T12:00:00Z"}', "undecodable"),
        (b'{"entity_id":"\\ud800","outcome":1,"observed_at":"2026-01-31T12:00:00Z"}', "undecodable"),
        (b"[" * 100_000, "undecodable"),
        (b'{"outcome":' + b"9" * 5000 + b"}", "undecodable"),
        (b"null", "invalid"),
        (b"[]", "invalid"),
        (b'"label"', "invalid"),
        (b"1", "invalid"),
        (b"{}", "invalid"),
        (b" " * 2_000_000, "too_large"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_garbage_is_refused_for_what_it_is(value: bytes | None, reason: str) -> None:
    assert refusal_of(Label, value).reason == reason


def test_numbers_that_json_spells_either_way_are_the_same() -> None:
    one = Label.model_validate_json(b'{"entity_id":"e","outcome":1,"observed_at":"2026-01-31T12:00:00Z"}')
    one_point_nought = Label.model_validate_json(
        b'{"entity_id":"e","outcome":1.0,"observed_at":"2026-01-31T12:00:00Z"}'
    )
    assert one.to_json() == one_point_nought.to_json()


@pytest.mark.parametrize(
    "segments",
    [{"a": ["b:c"], "a:b": ["d"]}, {"a": ["c", "c", "other"], "b": ["c", "other"]}, {"a:b": ["c"]}],
    ids=str,
)
def test_dimensions_may_share_values_and_names_may_hold_colons(segments: dict[str, list[str]]) -> None:
    value = with_field(POLICY, "segments", segments)
    assert isinstance(decode(record(value), Policy), Policy)


def test_a_policy_that_was_taken_before_a_rule_was_known_can_still_be_read() -> None:
    value = with_field(POLICY, "segments", {"a": ["b:c"], "a:b": ["c"]})
    assert refusal_of(Policy, value) == Refusal(
        "invalid", "segments", "dimensions 'a' and 'a:b' both have a segment that is spelled 'a:b:c'"
    )
    assert Policy.model_validate_json(value).segments == {"a": ["b:c"], "a:b": ["c"]}


def test_a_free_map_may_nest_a_hundred_levels_deep() -> None:
    document = {**VERSION, "training": {"deep": nested(99)}}
    assert isinstance(decode(record(json.dumps(document).encode()), ModelVersion), ModelVersion)


@pytest.mark.parametrize("total", [0.9999991, 1.0000009])
def test_probabilities_may_miss_one_by_a_millionth(total: float) -> None:
    document = {**PREDICTION, "probabilities": {"a": 0.25, "b": total - 0.25}}
    assert isinstance(decode(record(json.dumps(document).encode()), Prediction), Prediction)


def test_python_callers_are_held_to_the_same_rules() -> None:
    with pytest.raises(ValidationError):
        Label(entity_id="e", outcome=True, observed_at=datetime(2026, 1, 31, tzinfo=UTC))
    with pytest.raises(ValidationError):
        Label(entity_id="e", outcome=1, observed_at=datetime(2026, 1, 31))  # noqa: DTZ001 (the point)


@pytest.mark.parametrize("event", sorted(set(VALID) - {"policy.v1"}))
def test_an_event_time_more_than_five_minutes_ahead_of_receipt_is_refused(event: str) -> None:
    field = next(field for name, _, field in TIMES if name == event)
    valid = VALID[event][0]
    at_the_limit = json.dumps({**valid, field: "2030-01-01T00:05:00Z"}).encode()
    beyond = json.dumps({**valid, field: "2030-01-01T00:05:00.000001Z"}).encode()
    assert isinstance(decode(record(at_the_limit), CATALOGUE[event]), CATALOGUE[event])
    assert refusal_of(CATALOGUE[event], beyond).reason == "from_the_future"


def test_a_model_version_cannot_take_its_stage_in_the_future() -> None:
    beyond = json.dumps({**VERSION, "changed_at": "2099-01-01T00:00:00Z"}).encode()
    assert refusal_of(CATALOGUE["model-version.v1"], beyond).reason == "from_the_future"
