"""What one snapshot changes, and the words and figures that the change is told with."""

from __future__ import annotations

from typing import Any

import pytest

from services.alerting.domain.judgement import (
    AlertChanged,
    Conflict,
    Judged,
    ModelAlerts,
    Repeat,
    StateChanged,
    judge,
)
from services.alerting.domain.rules import InsufficientData
from services.alerting.handlers import decide, policy_of, snapshot_of
from shared.contracts.models import Rules
from tests.unit.alerting.builders import DAY, MODEL, make_snapshot
from tests.unit.alerting.scenarios import SCENARIOS, Scenario, changes_of

NEW = ModelAlerts()


def judged(before: ModelAlerts, sequence: int, **about: Any) -> Judged:
    snapshot = make_snapshot(sequence, **about)
    judgement = judge(policy_of(snapshot.policy), before, snapshot_of(snapshot))
    assert isinstance(judgement, Judged)
    return judgement


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario) -> None:
    decided = decide({MODEL: NEW}, scenario.snapshots())
    alerts = decided.models[MODEL].alerts
    assert changes_of(decided.transitions) == list(scenario.changes)
    assert alerts.state == scenario.state
    assert [
        (alert.alert_id, alert.severity, alert.breach_streak, alert.escalation_level) for alert in alerts.standing
    ] == list(scenario.standing)


def test_an_opened_alert_tells_everything() -> None:
    judgement = judged(NEW, 1, brier_score=0.3)
    assert judgement.transitions == (
        AlertChanged(
            alert_sequence=1,
            transition="opened",
            alert_id="brier_breach",
            severity="medium",
            breach_streak=1,
            escalation_level="none",
            previous_escalation_level=None,
            reason="brier_score 0.3 is above 0.25",
            value=0.3,
            threshold=0.25,
        ),
        StateChanged(alert_sequence=2, state="active", previous_state="none", reason="standing: brier_breach"),
    )
    assert judgement.transitions[0].recommended_action == "monitor"  # type: ignore[union-attr]


def test_a_resolved_alert_keeps_its_severity_and_says_why_it_ended() -> None:
    before = judged(NEW, 1, accuracy=0.5).state
    resolved, state_changed = judged(before, 2, accuracy=0.5, evaluated_predictions=12).transitions
    assert resolved == AlertChanged(
        alert_sequence=3,
        transition="resolved",
        alert_id="accuracy_breach",
        severity="high",
        breach_streak=0,
        escalation_level="none",
        previous_escalation_level="watch",
        reason="12 evaluated predictions of the 30 that are needed",
        value=0.5,
        threshold=0.55,
    )
    assert state_changed == StateChanged(
        alert_sequence=4, state="none", previous_state="watch", reason="no alert stands"
    )


def test_an_alert_whose_rule_is_off_resolves_without_figures() -> None:
    before = judged(NEW, 1, accuracy=0.5).state
    resolved = judged(before, 2, accuracy=0.5, rules=Rules(accuracy_breach=None)).transitions[0]
    assert isinstance(resolved, AlertChanged)
    assert (resolved.transition, resolved.reason, resolved.value, resolved.threshold) == (
        "resolved",
        "the rule is off",
        None,
        None,
    )


def test_the_streak_is_told_in_the_reason() -> None:
    before = judged(judged(NEW, 1, brier_score=0.3).state, 2, brier_score=0.3).state
    escalated = judged(before, 3, brier_score=0.31).transitions[0]
    assert escalated.reason == "brier_score 0.31 is above 0.25, 3 snapshots in a row"


def test_a_gap_is_told_in_the_reason_and_counted() -> None:
    before = judged(judged(NEW, 1, accuracy=0.5).state, 2, accuracy=0.5).state
    judgement = judged(before, 5, accuracy=0.5)
    assert judgement.missing == 2
    assert judgement.transitions[0].reason == (
        "accuracy 0.5 is below 0.55; the streak starts anew after a gap of 2 in the snapshots"
    )


def test_an_alert_that_opens_after_a_gap_speaks_of_no_streak() -> None:
    before = judged(NEW, 1).state
    assert judged(before, 5, accuracy=0.5).transitions[0].reason == "accuracy 0.5 is below 0.55"


def test_the_states_reason_names_the_alerts_that_it_comes_from() -> None:
    judgement = judged(
        NEW, 1, accuracy=0.5, brier_score=0.4, data_freshness_seconds=3.0 * DAY, pipeline_freshness_seconds=None
    )
    assert judgement.transitions[-1].reason == "escalated to watch: accuracy_breach, brier_breach"


def test_opened_as_of_stays_while_the_alert_stands() -> None:
    first = judged(NEW, 1, accuracy=0.5).state
    later = judged(judged(first, 2, accuracy=0.5).state, 9, accuracy=0.5).state
    assert later.standing[0].opened_as_of == make_snapshot(1).as_of


def test_a_standing_alert_has_the_figures_of_the_last_snapshot() -> None:
    first = judged(NEW, 1, accuracy=0.5).state
    (alert,) = judged(first, 2, accuracy=0.4).state.standing
    assert (alert.value, alert.breach_streak) == (0.4, 2)


def test_a_repeat_says_so() -> None:
    before = judged(NEW, 3).state
    snapshot = make_snapshot(3, accuracy=0.1)
    assert judge(policy_of(snapshot.policy), before, snapshot_of(snapshot)) == Repeat(
        reason="snapshot 3 is not above 3, the last one judged"
    )


def test_a_later_snapshot_under_an_old_number_is_no_repeat() -> None:
    """Else a service that numbers anew, from a restored database, would go unheard until it has caught up."""
    before = judged(NEW, 3).state
    snapshot = make_snapshot(4, accuracy=0.1).model_copy(update={"sequence": 2})
    assert judge(policy_of(snapshot.policy), before, snapshot_of(snapshot)) == Conflict(
        reason="snapshot 2 is later than 3, the last one judged, of 2026-01-01T00:03:00+00:00: "
        "was the metrics service's database restored?"
    )


def test_evaluations_are_there_when_nothing_changed() -> None:
    judgement = judged(NEW, 1, evaluated_predictions=3)
    assert judgement.transitions == ()
    assert isinstance(judgement.evaluations["accuracy_breach"], InsufficientData)


def test_boundaries_missed_by_a_stopped_service_end_no_streak() -> None:
    first = make_snapshot(1, accuracy=0.5)
    second = make_snapshot(2, accuracy=0.5).model_copy(update={"missed_boundaries": 40})
    decided = decide({MODEL: NEW}, [first, second])
    assert decided.models[MODEL].alerts.standing[0].breach_streak == 2
