"""The handler's side of alerting: what it takes, what it refuses, what it keeps and publishes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.alerting.app import DEFINITION
from services.alerting.domain.judgement import ModelAlerts
from services.alerting.handlers import alerting_handler, decide
from services.alerting.settings import AlertingSettings
from services.alerting.store import document_of_evaluations, document_of_standing, standing_from
from shared.contracts.alerts import AlertTransition
from shared.contracts.dead_letters import DeadLetter
from shared.effects import Effects
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.records import Record
from shared.topics import SNAPSHOTS, read_by
from tests.support import Feed
from tests.unit.alerting.builders import MODEL, make_snapshot
from tests.unit.alerting.fake_store import FakeStore
from tests.unit.alerting.scenarios import SCENARIOS, Scenario, changes_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)


async def take(store: FakeStore, records: list[Record]) -> list[tuple[str, bytes | None, Any]]:
    """Topic, key and event of everything that one batch emits."""
    effects = Effects("alerting", None, NOW)  # type: ignore[arg-type]
    await alerting_handler(store)(records, effects)
    effects.committed()
    contracts = {"alerts": AlertTransition, "dead-letters": DeadLetter}
    return [
        (topic, key, contracts[topic].model_validate_json(value))
        for topic, key, value, _headers in effects._messages
    ]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_scenario_one_record_a_batch(scenario: Scenario) -> None:
    feed, store, events = Feed(), FakeStore(), []
    for snapshot in scenario.snapshots():
        emitted = await take(store, [feed.record(SNAPSHOTS, snapshot)])
        assert all((topic, key) == ("alerts", MODEL.encode()) for topic, key, _ in emitted)
        events += [event for _, _, event in emitted]
    assert changes_of(events) == list(scenario.changes)
    assert store.rows[MODEL]["state"] == scenario.state
    assert [event.known() for event in events] == list(store.documents.values())


async def test_what_cannot_be_decoded_becomes_a_dead_letter_and_the_rest_is_judged() -> None:
    feed = Feed()
    wrong = make_snapshot(1).known() | {"sequence": 0}
    records = [
        feed.record(SNAPSHOTS, b"\xff\x00garbage", key=b"k"),
        feed.record(SNAPSHOTS, None),
        feed.record(SNAPSHOTS, wrong),
        feed.record(SNAPSHOTS, make_snapshot(1).known() | {"sequence": 2**63}),
        feed.record(SNAPSHOTS, make_snapshot(1, accuracy=0.5)),
    ]
    emitted = await take(FakeStore(), records)
    letters = [event for topic, _, event in emitted if topic == "dead-letters"]
    assert [(letter.offset, letter.reason, letter.field) for letter in letters] == [
        (0, "undecodable", None),
        (1, "undecodable", None),
        (2, "invalid", "sequence"),
        (3, "invalid", "sequence"),
    ]
    assert letters[0].original_value() == b"\xff\x00garbage"
    assert [event.transition for topic, _, event in emitted if topic == "alerts"] == ["opened", "state_changed"]


async def test_a_later_snapshot_under_an_old_number_becomes_a_dead_letter() -> None:
    feed, store = Feed(), FakeStore()
    await take(store, [feed.record(SNAPSHOTS, make_snapshot(3))])
    numbered_anew = make_snapshot(4, accuracy=0.1).model_copy(update={"sequence": 1})
    emitted = await take(store, [feed.record(SNAPSHOTS, numbered_anew), feed.record(SNAPSHOTS, make_snapshot(3))])
    assert [(topic, event.offset, event.reason, event.field) for topic, _, event in emitted] == [
        ("dead-letters", 1, "conflict", "sequence")
    ]


async def test_a_batch_of_nothing_but_garbage_touches_no_model() -> None:
    store = FakeStore()
    emitted = await take(store, [Feed().record(SNAPSHOTS, b"{")])
    assert [topic for topic, _, _ in emitted] == ["dead-letters"]
    assert store.rows == {}


async def test_an_unknown_field_is_accepted_and_counted() -> None:
    counted = UNKNOWN_FIELDS_TOTAL.labels(topic="snapshots")._value
    before = counted.get()
    snapshot = make_snapshot(1, accuracy=0.5).known() | {"colour": "green"}
    snapshot["metrics"] |= {"taste": "sweet"}
    emitted = await take(FakeStore(), [Feed().record(SNAPSHOTS, snapshot)])
    assert [topic for topic, _, _ in emitted] == ["alerts", "alerts"]
    assert counted.get() - before == 2


async def test_models_do_not_touch_each_other() -> None:
    feed, store = Feed(), FakeStore()
    records = [
        feed.record(SNAPSHOTS, make_snapshot(sequence, model=model, accuracy=accuracy))
        for sequence in (1, 2)
        for model, accuracy in (("b", 0.5), ("a", 0.9), ("c", 0.5))
    ]
    emitted = await take(store, records)
    assert {model: row["state"] for model, row in store.rows.items()} == {
        "a": "none",
        "b": "incident",
        "c": "incident",
    }
    assert [(key, event.alert_sequence) for _, key, event in emitted] == [
        (b"b", 1),
        (b"b", 2),
        (b"c", 1),
        (b"c", 2),
        (b"b", 3),
        (b"b", 4),
        (b"c", 3),
        (b"c", 4),
    ]


async def test_nothing_is_emitted_when_nothing_changed() -> None:
    feed, store = Feed(), FakeStore()
    await take(store, [feed.record(SNAPSHOTS, make_snapshot(n, accuracy=0.5)) for n in (1, 2)])
    assert await take(store, [feed.record(SNAPSHOTS, make_snapshot(3, accuracy=0.5))]) == []
    assert store.rows[MODEL]["snapshot_sequence"] == 3


def test_the_event_says_where_the_change_came_from() -> None:
    snapshot = make_snapshot(1, accuracy=0.5)
    opened, state_changed = decide({MODEL: ModelAlerts()}, [snapshot]).transitions
    for event in (opened, state_changed):
        assert (event.state, event.previous_state) == ("watch", "none")
        assert (event.snapshot_id, event.snapshot_sequence) == (snapshot.snapshot_id, 1)
        assert (event.as_of, event.policy_sha256) == (snapshot.as_of, snapshot.policy_sha256)
    assert opened.recommended_action == "investigate_now"
    assert (state_changed.alert_id, state_changed.severity, state_changed.recommended_action) == (None, None, None)
    assert opened.event_id() != state_changed.event_id()
    assert opened.event_id() == decide({MODEL: ModelAlerts()}, [snapshot]).transitions[0].event_id()


async def test_changes_repeats_and_gaps_are_logged_with_their_reasons() -> None:
    feed = Feed()
    history = [(1, 0.5), (1, 0.5), (4, 0.9)]
    with capture_logs() as lines:
        await take(FakeStore(), [feed.record(SNAPSHOTS, make_snapshot(n, accuracy=value)) for n, value in history])
    assert [(line["event"], line.get("reason") or line.get("missing")) for line in lines] == [
        ("opened", "accuracy 0.5 is below 0.55"),
        ("state_changed", "escalated to watch: accuracy_breach"),
        ("snapshot dropped", "snapshot 1 is not above 1, the last one judged"),
        ("snapshots are missing, streaks start anew", 2),
        ("resolved", "accuracy 0.9 is not below 0.55"),
        ("state_changed", "no alert stands"),
    ]


def test_standing_alerts_survive_their_document() -> None:
    decided = decide({MODEL: ModelAlerts()}, [make_snapshot(1, data_freshness_seconds=1e30)])
    standing = decided.models[MODEL].alerts.standing
    document = json.loads(json.dumps(document_of_standing(standing)))
    assert standing_from(document) == standing
    # As jsonb gives it back: a great number without an exponent.
    document["data_stale"]["value"] = 10**30
    assert standing_from(document) == standing


def test_evaluations_are_told_by_their_outcome() -> None:
    decided = decide(
        {MODEL: ModelAlerts()},
        [make_snapshot(1, evaluated_predictions=7, data_freshness_seconds=400_000.0)],
    )
    documents = document_of_evaluations(decided.models[MODEL].evaluations)
    assert documents["accuracy_breach"] == {
        "outcome": "insufficient_data",
        "severity": None,
        "evaluated_predictions": 7,
        "reason": "7 evaluated predictions of the 30 that are needed",
        "value": 0.8,
        "threshold": 0.55,
    }
    assert (documents["data_stale"]["outcome"], documents["data_stale"]["severity"]) == ("breached", "high")
    assert documents["pipeline_stale"]["outcome"] == "quiet"


def test_the_service_reads_the_topic_that_its_handler_is_for() -> None:
    assert DEFINITION.name == "alerting"
    assert read_by("alerting") == (SNAPSHOTS,)
    assert AlertingSettings().topic_prefix == "trueward."
