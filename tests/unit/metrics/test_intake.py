"""From records to what the join and the clock work on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.clock import Gate
from services.metrics.domain.identity import id_of, key_of
from services.metrics.domain.joining import Label
from services.metrics.intake import Batch, microseconds, moment_of, read
from shared.contracts.dead_letters import DeadLetter
from shared.effects import Effects
from shared.records import Place, Record
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, POLICIES, PREDICTIONS
from tests.metrics_world import HOUR, START_SECONDS, Fact, at, label, policy, prediction, run, version
from tests.support import RECEIVED_AT, Feed


def effects() -> Effects:
    return Effects("metrics", None, RECEIVED_AT)  # type: ignore[arg-type]  # reading a batch asks no database


def read_facts(*facts: Fact, gate: Gate | None = None) -> tuple[Batch, Effects]:
    feed, found = Feed(), effects()
    return read([feed.record(topic, value) for topic, value in facts], found, gate), found


def reasons(found: Effects) -> list[tuple[str, str | None]]:
    letters = [DeadLetter.model_validate_json(message[2]) for message in found._messages]
    return [(letter.reason, letter.field) for letter in letters]


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 (given a zone below)
def test_microseconds_are_exact_over_the_whole_calendar(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    assert moment_of(microseconds(moment)) == moment
    assert microseconds(moment + timedelta(microseconds=1)) == microseconds(moment) + 1


def test_a_prediction_is_stored_under_its_keys_with_what_it_would_contribute() -> None:
    batch, found = read_facts(
        prediction("p", 1.5, 0.7, entity_id="e", segment={"b": "2", "a": "1"}, data_as_of=at(1), predicted=0)
    )
    (new,) = batch.predictions
    assert reasons(found) == []
    assert (new.model, new.version, new.segments) == ("m", "1", (("a", "1"), ("b", "2")))
    assert new.data_as_of == (START_SECONDS + 1) * 10**6
    stored = new.stored
    assert (stored.prediction_key, stored.entity_key) == (key_of("p"), key_of("e"))
    assert (stored.version_id, stored.segment_id) == (id_of("m", "1"), id_of("a", "1", "b", "2"))
    assert (stored.predicted_at, stored.probability) == (START_SECONDS * 10**6 + 1_500_000, 0.7)
    assert stored.predicted_positive is False
    assert (stored.squared_error_if_negative, stored.log_loss_if_positive) == (490_000_000_000, 356_674_944)


def test_without_an_entity_the_label_names_the_prediction() -> None:
    (new,) = read_facts(prediction("p"))[0].predictions
    assert new.stored.entity_key == new.stored.prediction_key == key_of("p")


SAME: list[dict[str, Any]] = [{}, {"entity_id": "p"}, {"segment": {}}, {"unknown": 1}, {"data_as_of": None}]
OTHER: list[dict[str, Any]] = [
    {"probability": 0.70000001},
    {"model": "n"},
    {"model_version": "2"},
    {"predicted_at": at(0.000001)},
    {"entity_id": "q"},
    {"predicted": 1},
    {"segment": {"a": "1"}},
    {"data_as_of": at(0)},
]


@pytest.mark.parametrize(
    ("change", "same"), [(change, True) for change in SAME] + [(change, False) for change in OTHER], ids=str
)
def test_what_makes_a_prediction_another(change: dict[str, Any], same: bool) -> None:
    (one,), (two,) = (read_facts((PREDICTIONS, prediction("p")[1] | more))[0].predictions for more in ({}, change))
    assert (one.stored.content_hash == two.stored.content_hash) is same


@pytest.mark.parametrize(
    ("outcome", "read_as"),
    [(1, 1.0), (0, 0.0), (1.0, 1.0), (0.5, 0.5), ("1", "1"), ("late", "late"), (None, None)],
)
def test_outcomes_keep_their_kind(outcome: object, read_as: object) -> None:
    batch, _ = read_facts((LABELS, {"entity_id": "e", "outcome": outcome, "observed_at": at(2)}))
    assert batch.labels == [("e", Label((START_SECONDS + 2) * 10**6, read_as))]  # type: ignore[arg-type]
    assert type(batch.labels[0][1].outcome) is type(read_as)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("COMPLETE", "success"), ("FAIL", "failed"), ("ABORT", "failed"), ("START", None), ("RUNNING", None)],
)
def test_openlineage_events_are_runs_once_they_have_ended(kind: str, status: str | None) -> None:
    event = {
        "eventType": kind,
        "eventTime": at(3),
        "run": {"runId": "r"},
        "job": {"namespace": "n", "name": "j"},
        "producer": "https://example.org",
    }
    batch, found = read_facts((PIPELINE_RUNS, event))
    assert [(one.pipeline, one.status) for one in batch.runs] == ([] if status is None else [("n/j", status)])
    assert reasons(found) == []


def test_an_openlineage_event_belongs_on_its_own_topic() -> None:
    event = {
        "eventType": "COMPLETE",
        "eventTime": at(3),
        "run": {"runId": "r"},
        "job": {"namespace": "n", "name": "j"},
    }
    assert [reason for reason, _ in reasons(read_facts((LABELS, event))[1])] == ["invalid"]


@pytest.mark.parametrize("topic", [PREDICTIONS, LABELS, PIPELINE_RUNS])
def test_a_tick_says_nothing_but_the_time(topic: Any) -> None:
    batch, found = read_facts((topic, {"tick": at(5)}))
    assert (batch, reasons(found)) == (Batch(), [])


@pytest.mark.parametrize("topic", [MODEL_VERSIONS, POLICIES])
def test_operators_topics_have_no_ticks(topic: Any) -> None:
    assert [reason for reason, _ in reasons(read_facts((topic, {"tick": at(5)}))[1])] == ["invalid"]


@pytest.mark.parametrize(
    "fact",
    [prediction("p", 10**8), label("e", 10**8), run(10**8), (LABELS, {"tick": at(10**8)}), version("1", 10**8)],
    ids=lambda fact: fact[0].name,
)
def test_what_has_not_happened_yet_moves_no_clock(fact: Fact) -> None:
    batch, found = read_facts(fact, gate=Gate(None))
    assert (batch, found.held) == (Batch(), {})
    assert reasons(found) == [("from_the_future", "event time")]


def records_of(times: list[float | None], partition: int, feed: Feed) -> list[Record]:
    """Ticks at the times; where there is none, a record that has no event time."""
    return [
        feed.record(LABELS, b"garbage" if seconds is None else {"tick": at(seconds)}, partition=partition)
        for seconds in times
    ]


TIMES = st.lists(st.one_of(st.none(), st.sampled_from([0, HOUR - 0.000001, HOUR, 2 * HOUR])), max_size=6)


@given(st.lists(TIMES, min_size=1, max_size=3), st.sampled_from([None, START_SECONDS + HOUR]), st.randoms())
def test_each_partition_waits_at_its_first_record_that_has_reached_the_boundary(
    partitions: list[list[float | None]], boundary: int | None, chance: Any
) -> None:
    feed, found = Feed(), effects()
    logs = [records_of(times, partition, feed) for partition, times in enumerate(partitions)]
    batch: list[Record] = []
    waiting = [list(log) for log in logs]
    while any(waiting):  # in any interleaving that keeps each partition's order
        batch.append(chance.choice([log for log in waiting if log]).pop(0))
    reached = read(batch, found, Gate(boundary)).reached
    expected: dict[Place, int] = {}
    refused = 0
    for partition, times in enumerate(partitions):
        for offset, seconds in enumerate(times):
            if seconds is None:
                refused += 1
            elif boundary is None or START_SECONDS + seconds >= boundary:
                expected["labels", partition] = round((START_SECONDS + seconds) * 10**6)
                assert found.held["labels", partition].offset == offset
                assert found.held["labels", partition].until == Gate(boundary).tag
                break
    assert reached == expected
    assert found.held.keys() == expected.keys()
    assert len(found._messages) == refused


def test_operators_topics_pass_the_gate() -> None:
    batch, found = read_facts(policy(), version("1", 0), gate=Gate(None))
    assert (len(batch.policies), len(batch.versions), found.held) == (1, 1, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"entity_id": "' + "\\ud800" + '", "outcome": 1, "observed_at": "2025-12-01T00:00:00Z"}', "undecodable"),
        ('{"entity_id": "", "n": ' + "9" * 4300 + "}", "invalid"),
        ('{"entity_id": "", "n": ' + "9" * 4301 + "}", "undecodable"),
        ('{"entity_id": "", "n": ' + "[" * 190 + "]" * 190 + "}", "invalid"),
        ('{"entity_id": "", "n": ' + "[" * 10_000 + "]" * 10_000 + "}", "undecodable"),
        ('{"entity_id": "e", "outcome": 1e999, "observed_at": "2025-12-01T00:00:00Z"}', "invalid"),
        ('{"entity_id": "e", "outcome": NaN, "observed_at": "2025-12-01T00:00:00Z"}', "invalid"),
        ('{"entity_id": "e\\u0000", "outcome": 1, "observed_at": "2025-12-01T00:00:00Z"}', "invalid"),
        ("null", "invalid"),
        ('"tick"', "invalid"),
        ("\ufeff{}", "undecodable"),
    ],
)
def test_what_is_poison_to_a_second_reading_is_refused_at_the_first(text: str, reason: str) -> None:
    """What breaks its contract is read again, to see whether it is a tick: that must not fail by itself."""
    feed, found = Feed(), effects()
    read([feed.record(LABELS, text.encode())], found, None)
    assert [told for told, _ in reasons(found)] == [reason]


def test_every_field_of_a_stored_segment_survives() -> None:
    segment = {"a": "ü\n\"'", "b:c": "d", "b": "c:d", "\U0001f600": "x" * 128}
    (new,) = read_facts(prediction("p", segment=segment))[0].predictions
    assert dict(json.loads(json.dumps(new.segments))) == segment
