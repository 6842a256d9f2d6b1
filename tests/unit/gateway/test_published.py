"""From a body to records: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.problems import Problem
from services.gateway.published import MOST_EVENTS, Judged, judge
from shared.publishing import decode_published, key_of
from shared.records import Record
from shared.topics import LABELS, MAX_RECORD_BYTES, MODEL_VERSIONS, PIPELINE_RUNS, PREDICTIONS, Topic

NOW = datetime(2026, 6, 1, tzinfo=UTC)
END_OF_TIME = datetime.max.replace(tzinfo=UTC)
GOLDEN = Path(__file__).parents[2] / "contracts" / "golden"
LABEL = {"entity_id": "e", "outcome": 1, "observed_at": "2026-05-01T00:00:00Z"}
PREDICTION = {
    "prediction_id": "p",
    "model": "m",
    "model_version": "1",
    "predicted_at": "2026-05-01T00:00:00Z",
    "probability": 0.5,
}


def judged(body: object, topic: Topic = LABELS, *, as_lines: bool = False) -> Judged:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(text, topic, as_lines=as_lines, now=NOW)


def lines(*events: object) -> bytes:
    return b"".join(
        (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n" for event in events
    )


def refusals(found: Judged) -> list[tuple[int, str | None, str]]:
    return [(refused.index, refused.field, refused.reason) for refused in found.refused]


def test_an_event_is_the_same_record_in_every_form() -> None:
    spaced = json.dumps(LABEL, indent=2).encode()
    forms = [judged(LABEL), judged([LABEL]), judged(spaced), judged(lines(LABEL), as_lines=True)]
    (records,) = {tuple(form.records) for form in forms}
    value = b'{"entity_id":"e","observed_at":"2026-05-01T00:00:00Z","outcome":1}'
    assert records == ((b"e", value),)


def test_the_good_are_taken_and_each_bad_one_is_named() -> None:
    bad = {**LABEL, "outcome": True}
    body = [LABEL, bad, 3, {**LABEL, "entity_id": "f"}, {**LABEL, "observed_at": "2026-06-01T00:05:01Z"}]
    for found in (judged(body), judged(lines(*body), as_lines=True)):
        assert [key for key, _ in found.records] == [b"e", b"f"]
        assert [(index, reason) for index, _, reason in refusals(found)] == [
            (1, "invalid"),
            (2, "invalid"),
            (4, "from_the_future"),
        ]
        assert (found.refused[0].field or "").startswith("outcome")
        assert found.answer().accepted == 2


def test_a_line_that_is_no_json_spoils_no_other() -> None:
    body = lines(LABEL, b"{", b"", b"  \r", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, LABEL)
    found = judged(body, as_lines=True)
    assert len(found.records) == 2
    assert refusals(found) == [(number, None, "undecodable") for number in range(1, 5)]
    assert "no UTF-8" in found.refused[1].rule
    assert "NaN" in found.refused[2].rule


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON in UTF-8: Expecting property name"),
        (b"\xff\xfe", "byte 0 is no UTF-8"),
        (b"[NaN]", "NaN is no JSON"),
        (b"[" * 100_000, "nests too deeply"),
        (b"[" + b"1" * 5_000 + b"]", "must be JSON"),
        (b'"text"', "one event (a JSON object) or an array"),
        (b"null", "one event (a JSON object) or an array"),
    ],
)
def test_a_body_that_is_no_events_is_refused_whole(body: bytes, rule: str) -> None:
    with pytest.raises(Problem) as raised:
        judged(body)
    assert raised.value.status == 422
    assert rule in raised.value.errors[0].rule


@pytest.mark.parametrize(("body", "as_lines"), [(b"[]", False), (b"", True), (b"\n \n", True)])
def test_no_event_at_all_is_nothing_to_do(body: bytes, as_lines: bool) -> None:
    found = judged(body, as_lines=as_lines)
    assert found.answer().model_dump() == {"accepted": 0, "refused": [], "unknown_fields": {}}


@pytest.mark.parametrize("as_lines", [False, True])
def test_as_many_as_are_allowed_and_no_more(as_lines: bool) -> None:
    most = [LABEL] * MOST_EVENTS
    assert len(judged(lines(*most) if as_lines else most, as_lines=as_lines).records) == MOST_EVENTS
    with pytest.raises(Problem) as raised:
        judged(lines(*most, LABEL) if as_lines else [*most, LABEL], as_lines=as_lines)
    assert raised.value.status == 422
    assert "at most 10000 events" in raised.value.errors[0].rule


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b'{"entity_id": "\\ud800", "outcome": 1, "observed_at": "2026-05-01T00:00:00Z"}', "undecodable"),
        (b'{"entity_id": "e", "outcome": 1e999, "observed_at": "2026-05-01T00:00:00Z"}', "undecodable"),
        (b'{"a":' * 400 + b"1" + b"}" * 400, "undecodable"),
        (json.dumps({**LABEL, "x": "y" * MAX_RECORD_BYTES}).encode(), "too_large"),
    ],
)
def test_what_could_not_be_written_again_is_refused_by_itself(event: bytes, reason: str) -> None:
    found = judged(b"[" + json.dumps(LABEL).encode() + b"," + event + b"]")
    assert len(found.records) == 1
    assert refusals(found) == [(1, None, reason)]


def test_what_the_services_would_put_aside_later_is_refused_now() -> None:
    def classes(count: int) -> dict[str, Any]:
        return {**PREDICTION, "probability": None, "probabilities": {str(n): 1 / count for n in range(count)}}

    assert refusals(judged(classes(1_001), PREDICTIONS)) == [(0, "probabilities", "unsupported")]
    assert (
        refusals(judged([classes(1_000), {**PREDICTION, "probability": None, "value": 1e300}], PREDICTIONS)) == []
    )


@pytest.mark.parametrize("topic", [PREDICTIONS, LABELS, PIPELINE_RUNS])
def test_a_tick_is_no_event_to_publish(topic: Topic) -> None:
    assert refusals(judged({"tick": "2026-05-01T00:00:00Z"}, topic)) == [(0, "tick", "unsupported")]


def test_fields_that_no_contract_knows_are_counted_and_kept() -> None:
    found = judged([{**PREDICTION, "probabilty": 1}, {**PREDICTION, "probabilty": 1, "x": 2}], PREDICTIONS)
    assert found.answer().unknown_fields == {"probabilty": 2, "x": 1}
    assert json.loads(found.records[1][1])["x"] == 2


def test_a_mark_that_an_editor_left_is_no_content() -> None:
    assert len(judged(b"\xef\xbb\xbf" + json.dumps(LABEL).encode()).records) == 1
    assert len(judged(b"\xef\xbb\xbf" + lines(LABEL), as_lines=True).records) == 1


FOLDERS = {
    "label.v1": LABELS,
    "pipeline-run.v1": PIPELINE_RUNS,
    "openlineage-run-event.v1": PIPELINE_RUNS,
    "model-version.v1": MODEL_VERSIONS,
    "prediction.v1": PREDICTIONS,
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_examples_go_out_as_they_are(folder: str) -> None:
    topic = FOLDERS[folder]
    for example in sorted((GOLDEN / folder).glob("*.json")):
        document = json.loads(example.read_bytes())
        found = judge(example.read_bytes(), topic, as_lines=False, now=END_OF_TIME)
        ((key, value),) = found.records
        assert json.loads(value) == document
        event = decode_published(Record(topic.name, 0, 0, END_OF_TIME, None, value), topic)
        assert key == key_of(event).encode()  # type: ignore[arg-type]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        JSON_VALUES
        | st.fixed_dictionaries(
            {**{name: st.just(value) for name, value in LABEL.items()}, "outcome": JSON_VALUES},
            optional={"x": JSON_VALUES},
        )
    )
)
def test_whatever_is_sent_every_event_is_either_sent_or_named(events: list[Any]) -> None:
    # JSON has no NaN: a body with one is refused whole, which is another test's.
    body = json.dumps(events)
    if any(constant in body for constant in ("NaN", "Infinity")):
        return
    found = judge(body.encode(), LABELS, as_lines=False, now=NOW)
    assert len(found.records) + len(found.refused) == len(events)
    for _, value in found.records:
        sent = json.loads(value)
        assert sent in events
        assert not (isinstance(sent["outcome"], float) and math.isinf(sent["outcome"]))
