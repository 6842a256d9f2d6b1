import itertools
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from examples.flights.story import Story
from examples.flights.wire import Heard, heard

AS_OF = datetime(2013, 3, 2, tzinfo=UTC)


def snapshot(sequence: int) -> Heard:
    as_of = f"2013-03-{sequence + 1:02}T00:00:00Z"
    return Heard("snapshots", {"model": "flight-late", "sequence": sequence, "as_of": as_of})


def decision(sequence: int, action: str = "noop", job_id: str | None = None, asked_by: str = "snapshot") -> Heard:
    evidence = {"snapshot_sequence": sequence}
    said = {"model": "flight-late", "asked_by": asked_by, "action": action, "job_id": job_id, "evidence": evidence}
    return Heard("retrain-decisions", said)


def job(number: int, status: str, aftermath: dict[str, Any] | None = None) -> Heard:
    said = {
        "model": "flight-late",
        "job_id": "j",
        "job_sequence": number,
        "status": status,
        "aftermath": aftermath,
    }
    return Heard("retrain-jobs", said)


def transition(  # noqa: PLR0917 - a row of a table
    number: int, sequence: int, what: str, alert: str | None, level: str | None, before: str, state: str
) -> Heard:
    said = {
        "model": "flight-late", "alert_sequence": number, "snapshot_sequence": sequence, "transition": what,
        "alert_id": alert, "escalation_level": level, "state": state, "previous_state": before,
    }  # fmt: skip
    return Heard("alerts", said)


ALERTS = [
    transition(1, 2, "opened", "brier_breach", "none", "none", "active"),
    transition(2, 2, "state_changed", None, None, "none", "active"),
    transition(3, 3, "opened", "accuracy_breach", "watch", "active", "watch"),
    transition(4, 3, "state_changed", None, None, "active", "watch"),
    transition(5, 4, "resolved", "accuracy_breach", "none", "watch", "watch"),
    transition(6, 4, "escalated", "brier_breach", "watch", "watch", "watch"),
    transition(7, 6, "resolved", "brier_breach", "none", "watch", "none"),
    transition(8, 6, "state_changed", None, None, "watch", "none"),
]


def told(*heard_of: Heard) -> Story:
    story = Story()
    for each in heard_of:
        story.take(each)
    return story


@pytest.mark.parametrize(
    ("sequence", "standing", "state"),
    [
        (1, {}, "none"),
        (2, {"brier_breach": "none"}, "active"),
        (3, {"brier_breach": "none", "accuracy_breach": "watch"}, "watch"),
        (4, {"brier_breach": "watch"}, "watch"),
        (5, {"brier_breach": "watch"}, "watch"),
        (6, {}, "none"),
    ],
)
def test_alerts_stand_until_they_are_resolved(sequence: int, standing: dict[str, str], state: str) -> None:
    shuffled = random.Random(1).sample(ALERTS * 2, k=2 * len(ALERTS))
    story = told(*shuffled)
    assert story.standing_after(sequence) == standing
    assert story.state_after(sequence) == state


def test_transitions_of_a_snapshot_come_in_the_order_they_were_said() -> None:
    story = told(*reversed(ALERTS))
    assert [said["alert_sequence"] for said in story.transitions_of(3)] == [3, 4]
    assert story.transitions_of(5) == []


@pytest.mark.parametrize(
    ("heard_of", "complete"),
    [([], True), (ALERTS[:1], False), (ALERTS[:2], True), ([ALERTS[1]], True), (ALERTS[:4], True)],
)
def test_a_change_of_state_is_waited_for(heard_of: list[Heard], complete: bool) -> None:
    assert told(*heard_of).is_alerted(2) is complete


def test_days_are_counted_by_state() -> None:
    story = told(*ALERTS, *(snapshot(sequence) for sequence in range(1, 7)))
    assert story.days_in_state() == Counter(none=2, active=1, watch=3)


def test_a_decision_without_a_job_is_through_at_once() -> None:
    assert not told().is_decided(1)
    assert told(decision(1)).is_decided(1)
    assert not told(decision(1)).is_decided(2)


def test_a_decision_that_someone_asked_for_is_no_chapter() -> None:
    assert not told(decision(1, asked_by="request")).is_decided(1)


@pytest.mark.parametrize(
    ("status", "through"),
    [
        ("queued", False),
        ("running", False),
        ("completed", True),
        ("failed", True),
        ("cancelled", True),
        ("expired", True),
    ],
)
def test_a_queued_job_is_waited_for(status: str, through: bool) -> None:
    story = told(decision(1, "queued-retrain", "j"))
    assert not story.is_decided(1)
    story.take(job(1, status))
    assert story.is_decided(1) is through


def test_a_job_that_is_already_queued_is_not_waited_for_again() -> None:
    assert told(decision(2, "already-queued", "j")).is_decided(2)
    assert told(decision(2, "already-queued", "j"), job(1, "queued")).job_of(2) is None


def test_the_newest_state_of_a_job_counts_whatever_the_order() -> None:
    events = [job(1, "queued"), job(2, "running"), job(3, "completed", {"snapshot_sequence": 9})]
    for order in itertools.permutations(events):
        story = told(decision(1, "queued-retrain", "j"), *order, *order)
        newest = story.job_of(1)
        assert newest is not None
        assert newest["status"] == "completed"
        assert story.aftermaths_of(9) == [newest]
        assert story.aftermaths_of(8) == []


def test_snapshots_are_found_by_their_moment() -> None:
    assert told(snapshot(1), snapshot(1)).snapshots[AS_OF]["sequence"] == 1


def test_other_models_are_none_of_its_business() -> None:
    other = Heard("snapshots", {"model": "another", "sequence": 1, "as_of": "2013-03-02T00:00:00Z"})
    assert told(other) == Story()


def test_dead_letters_are_kept_whoever_they_are_about() -> None:
    assert len(told(Heard("dead-letters", {"topic": "labels", "reason": "invalid"})).refused) == 1


def test_the_prefix_is_taken_off() -> None:
    assert heard("trueward.alerts", b'{"a":1}') == Heard("alerts", {"a": 1})
