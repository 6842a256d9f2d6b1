"""Lines are checked as the services would check them, and a bad one is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.topics import LABELS, MAX_RECORD_BYTES, MODEL_VERSIONS, PIPELINE_RUNS, PREDICTIONS, Topic
from trueward.cli.lines import BadLineError, Checked, Keyed, check

NOW = datetime(2026, 6, 1, tzinfo=UTC)
END_OF_TIME = datetime.max.replace(tzinfo=UTC)
GOLDEN = Path(__file__).parents[2] / "contracts" / "golden"
PREDICTION: dict[str, Any] = {
    "prediction_id": "p-1",
    "model": "m",
    "model_version": "1",
    "predicted_at": "2026-05-01T00:00:00Z",
    "probability": 0.5,
}
LABEL: dict[str, Any] = {"entity_id": "e-1", "outcome": 1, "observed_at": "2026-05-01T00:00:00Z"}
RUN: dict[str, Any] = {"pipeline": "nightly", "completed_at": "2026-05-01T00:00:00Z", "status": "success"}
VERSION: dict[str, Any] = {
    "model": "m",
    "version": "1",
    "registered_at": "2026-05-01T00:00:00Z",
    "stage": "champion",
}
OPEN_LINEAGE: dict[str, Any] = {
    "eventType": "COMPLETE",
    "eventTime": "2026-05-01T00:00:00Z",
    "run": {"runId": "r"},
    "job": {"namespace": "ns", "name": "nightly"},
}


def checked(topic: Topic, *lines: bytes | dict[str, Any], found: Checked | None = None) -> list[Keyed]:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    return list(check(raw, topic, source="file.jsonl", now=NOW, found=found or Checked()))


@pytest.mark.parametrize(
    ("topic", "event", "key"),
    [
        (PREDICTIONS, PREDICTION, b"p-1"),
        (PREDICTIONS, {**PREDICTION, "entity_id": "e-1"}, b"e-1"),
        (LABELS, LABEL, b"e-1"),
        (PIPELINE_RUNS, RUN, b"nightly"),
        (PIPELINE_RUNS, OPEN_LINEAGE, b"ns/nightly"),
        (PIPELINE_RUNS, {**OPEN_LINEAGE, "eventType": "START"}, b"ns/nightly"),
        (MODEL_VERSIONS, VERSION, b"m"),
    ],
)
def test_the_key_is_the_registrys(topic: Topic, event: dict[str, Any], key: bytes) -> None:
    (record,) = checked(topic, event)
    assert record.key == key
    assert json.loads(record.value) == event


def test_what_is_sent_is_what_was_written() -> None:
    line = json.dumps({**LABEL, "extra": "ü", "source": "s"}, indent=None).encode()
    assert [record.value for record in checked(LABELS, b"  " + line + b" \r\n")] == [line]


def test_blank_lines_are_passed_over_and_counted_in_numbers() -> None:
    found = Checked()
    assert len(checked(LABELS, LABEL, b"\n", b"  \n", LABEL, found=found)) == 2
    assert found.lines == 2
    with pytest.raises(BadLineError, match=r"file\.jsonl, line 3: "):
        checked(LABELS, LABEL, b"\n", b"x\n")


def test_nothing_is_nothing() -> None:
    assert checked(LABELS) == checked(LABELS, b"\n") == []


@pytest.mark.parametrize(
    ("topic", "line", "field", "reason"),
    [
        (PREDICTIONS, {**PREDICTION, "probability": 1.2}, "probability", "invalid"),
        (PREDICTIONS, {**PREDICTION, "probability": "0.5"}, "probability", "invalid"),
        (PREDICTIONS, {**PREDICTION, "probability": float("nan")}, "probability", "invalid"),
        (PREDICTIONS, {**PREDICTION, "probability": None}, None, "invalid"),
        (PREDICTIONS, {**PREDICTION, "predicted_at": "2026-05-01T00:00:00"}, "predicted_at", "invalid"),
        (PREDICTIONS, {**PREDICTION, "predicted_at": "2026-06-01T00:05:01Z"}, "event time", "from_the_future"),
        (PREDICTIONS, {**PREDICTION, "prediction_id": "p" * 129}, "prediction_id", "invalid"),
        (PREDICTIONS, {name: PREDICTION[name] for name in PREDICTION if name != "model"}, "model", "invalid"),
        (PREDICTIONS, {**PREDICTION, "segment": {"a": "b" * MAX_RECORD_BYTES}}, None, "too_large"),
        (PREDICTIONS, {"tick": "2026-05-01T00:00:00Z"}, "tick", "unsupported"),
        (LABELS, b"\xff\xfe", None, "undecodable"),
        (LABELS, b"{", None, "undecodable"),
        (LABELS, b"[" * 100_000, None, "undecodable"),
        (LABELS, b"[]", None, "invalid"),
        (LABELS, b"null", None, "invalid"),
        (LABELS, {**LABEL, "outcome": True}, "outcome", "invalid"),
        (PIPELINE_RUNS, {**RUN, "status": "done"}, "status", "invalid"),
        (PIPELINE_RUNS, {**OPEN_LINEAGE, "eventTime": "yesterday"}, "eventTime", "invalid"),
        (PIPELINE_RUNS, {**OPEN_LINEAGE, "job": {"name": "x"}}, "job.namespace", "invalid"),
        (MODEL_VERSIONS, {**VERSION, "stage": "best"}, "stage", "invalid"),
        (MODEL_VERSIONS, {**VERSION, "tick": "2026-05-01T00:00:00Z", "stage": "x"}, "stage", "invalid"),
    ],
)
def test_a_bad_line_is_named_with_field_and_rule(
    topic: Topic, line: bytes | dict[str, Any], field: str | None, reason: str
) -> None:
    with pytest.raises(BadLineError) as raised:
        checked(topic, line)
    assert raised.value.number == 1
    assert raised.value.refusal.reason == reason
    found = raised.value.refusal.field
    assert found == field or (field is not None and found is not None and found.startswith(f"{field}."))
    assert str(raised.value).startswith("file.jsonl, line 1: ")
    assert str(raised.value).endswith("nothing was sent")
    assert "\n" not in str(raised.value)


def test_the_first_bad_line_is_named_and_the_others_counted() -> None:
    bad = {**LABEL, "entity_id": ""}
    with pytest.raises(BadLineError, match=r"line 2: entity_id: .*\(invalid; 2 more lines are bad\)") as raised:
        checked(LABELS, LABEL, bad, LABEL, b"x", bad)
    assert raised.value.number == 2


def test_fields_that_no_contract_knows_are_counted() -> None:
    found = Checked()
    checked(PREDICTIONS, {**PREDICTION, "probabilty": 1}, {**PREDICTION, "probabilty": 1, "x": 2}, found=found)
    assert found.unknown == {"probabilty": 2, "x": 1}


@pytest.mark.parametrize(
    ("folder", "topic"),
    [
        ("prediction.v1", PREDICTIONS),
        ("label.v1", LABELS),
        ("pipeline-run.v1", PIPELINE_RUNS),
        ("openlineage-run-event.v1", PIPELINE_RUNS),
        ("model-version.v1", MODEL_VERSIONS),
    ],
)
def test_every_golden_example_can_be_published(folder: str, topic: Topic) -> None:
    examples = sorted((GOLDEN / folder).glob("*.json"))
    assert examples
    for example in examples:
        line = json.dumps(json.loads(example.read_bytes())).encode()
        (record,) = check([line], topic, source=example.name, now=END_OF_TIME, found=Checked())
        assert record.value == line
