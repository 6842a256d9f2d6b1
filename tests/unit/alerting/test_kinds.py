"""The rules of multiclass and regression models around each threshold, and models that change kind."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from services.alerting.domain.judgement import AlertChanged, Judged, ModelAlerts, StateChanged, judge
from services.alerting.domain.rules import (
    AlertId,
    Breached,
    InsufficientData,
    Off,
    Outcome,
    Quiet,
    Severity,
    evaluate,
)
from services.alerting.handlers import policy_of, snapshot_of
from shared.contracts.models import MaeRule, MulticlassBrierRule, Rules
from tests.unit.alerting.builders import make_snapshot

MULTICLASS: dict[str, Any] = {"kind": "multiclass"}
REGRESSION: dict[str, Any] = {
    "kind": "regression",
    "accuracy": None,
    "brier_score": None,
    "mae": 1.0,
    "baseline_mae": 2.0,
    "baseline_evaluated_predictions": 30,
}
QUIET: None = None


def evaluations(**about: Any) -> dict[AlertId, Outcome]:
    snapshot = make_snapshot(1, **about)
    return dict(evaluate(policy_of(snapshot.policy), snapshot_of(snapshot).figures))


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        ("binary", ("accuracy_breach", "brier_breach", "data_stale", "pipeline_stale")),
        ("multiclass", ("accuracy_breach", "multiclass_brier_breach", "data_stale", "pipeline_stale")),
        ("regression", ("mae_breach", "data_stale", "pipeline_stale")),
    ],
)
def test_a_model_is_judged_by_the_rules_of_its_kind(kind: str, rules: tuple[AlertId, ...]) -> None:
    assert tuple(evaluations(kind=kind)) == rules


TABLE: list[tuple[AlertId, dict[str, Any], float, Severity | None, float]] = [
    ("accuracy_breach", MULTICLASS, below(0.55), "high", 0.55),
    ("accuracy_breach", MULTICLASS, 0.55, QUIET, 0.55),
    ("accuracy_breach", MULTICLASS, above(0.55), QUIET, 0.55),
    ("multiclass_brier_breach", MULTICLASS, 0.0, QUIET, 0.5),
    ("multiclass_brier_breach", MULTICLASS, below(0.5), QUIET, 0.5),
    ("multiclass_brier_breach", MULTICLASS, 0.5, QUIET, 0.5),
    ("multiclass_brier_breach", MULTICLASS, above(0.5), "medium", 0.5),
    ("multiclass_brier_breach", MULTICLASS, 0.66, "medium", 0.5),
    ("multiclass_brier_breach", MULTICLASS, above(0.66), "high", 0.66),
    ("multiclass_brier_breach", MULTICLASS, 2.0, "high", 0.66),
    # The baseline is 2.0, so that 1.25 and 1.5 times it are 2.5 and 3.0.
    ("mae_breach", REGRESSION, 0.0, QUIET, 2.5),
    ("mae_breach", REGRESSION, below(2.5), QUIET, 2.5),
    ("mae_breach", REGRESSION, 2.5, QUIET, 2.5),
    ("mae_breach", REGRESSION, above(2.5), "medium", 2.5),
    ("mae_breach", REGRESSION, below(3.0), "medium", 2.5),
    ("mae_breach", REGRESSION, 3.0, "medium", 2.5),
    ("mae_breach", REGRESSION, above(3.0), "high", 3.0),
    ("mae_breach", REGRESSION, sys.float_info.max, "high", 3.0),
]
FIGURE = {"accuracy_breach": "accuracy", "multiclass_brier_breach": "brier_score", "mae_breach": "mae"}


@pytest.mark.parametrize(("alert_id", "model", "value", "severity", "threshold"), TABLE)
def test_each_rule_around_each_of_its_thresholds(
    alert_id: AlertId, model: dict[str, Any], value: float, severity: Severity | None, threshold: float
) -> None:
    outcome = evaluations(**{**model, FIGURE[alert_id]: value})[alert_id]
    assert (outcome.value, outcome.threshold) == (value, threshold)
    if severity is None:
        assert isinstance(outcome, Quiet)
    else:
        assert isinstance(outcome, Breached)
        assert outcome.severity == severity


@pytest.mark.parametrize(
    ("alert_id", "model"),
    [("accuracy_breach", MULTICLASS), ("multiclass_brier_breach", MULTICLASS), ("mae_breach", REGRESSION)],
)
@pytest.mark.parametrize("evaluated", [0, 29])
def test_too_few_evaluated_predictions_are_no_breach(
    alert_id: AlertId, model: dict[str, Any], evaluated: int
) -> None:
    bad = {"accuracy": 0.1, "brier_score": 1.9, "mae": 1e9}
    outcome = evaluations(**{**model, **bad, "evaluated_predictions": evaluated})[alert_id]
    assert isinstance(outcome, InsufficientData)
    assert outcome.evaluated_predictions == evaluated


@pytest.mark.parametrize(("before", "judged"), [(0, False), (29, False), (30, True), (31, True), (None, False)])
def test_a_baseline_needs_as_many_evaluated_predictions_as_the_window(before: int | None, judged: bool) -> None:
    outcome = evaluations(**{**REGRESSION, "mae": 1e9, "baseline_evaluated_predictions": before})["mae_breach"]
    assert isinstance(outcome, Breached) is judged
    if not judged:
        assert isinstance(outcome, InsufficientData)
        assert outcome.reason == (
            f"{before or 0} predictions evaluated before the window of the 30 that a baseline needs"
        )
        assert (outcome.threshold, outcome.evaluated_predictions) == (None, before or 0)


def test_a_baseline_from_the_policy_needs_no_past() -> None:
    rules = Rules(mae_breach=MaeRule(baseline=10.0, above_ratio=1.1, high_above_ratio=2.0))
    young = {**REGRESSION, "baseline_mae": None, "baseline_evaluated_predictions": 0}
    at, beyond = (evaluations(**{**young, "mae": mae}, rules=rules)["mae_breach"] for mae in (11.0, above(11.0)))
    assert isinstance(at, Quiet)
    assert isinstance(beyond, Breached)
    assert beyond.reason == f"mae {above(11.0)!r} is above 11.0, 1.1 times the baseline of 10.0"


def test_a_share_of_a_baseline_is_taken_of_the_numbers_as_they_are_written() -> None:
    rules = Rules(mae_breach=MaeRule(baseline=3.0, above_ratio=1.1))
    assert 1.1 * 3.0 > 3.3
    assert evaluations(**{**REGRESSION, "mae": 3.3}, rules=rules)["mae_breach"].threshold == 3.3


@pytest.mark.parametrize(("mae", "breached"), [(0.0, False), (5e-324, True)])
def test_a_perfect_past_allows_no_error(mae: float, breached: bool) -> None:
    outcome = evaluations(**{**REGRESSION, "baseline_mae": 0.0, "mae": mae})["mae_breach"]
    assert isinstance(outcome, Breached) is breached


def test_a_threshold_beyond_the_largest_number_is_never_crossed() -> None:
    largest = sys.float_info.max
    outcome = evaluations(**{**REGRESSION, "baseline_mae": largest, "mae": largest})["mae_breach"]
    assert (type(outcome), outcome.threshold) == (Quiet, largest)


@pytest.mark.parametrize(
    ("unknown", "said"), [("mae", "mae is unknown"), ("baseline_mae", "the baseline is unknown")]
)
def test_an_unknown_figure_is_no_breach(unknown: str, said: str) -> None:
    outcome = evaluations(**{**REGRESSION, unknown: None})["mae_breach"]
    assert isinstance(outcome, InsufficientData)
    assert outcome.reason == said


@pytest.mark.parametrize(
    ("alert_id", "model"), [("multiclass_brier_breach", MULTICLASS), ("mae_breach", REGRESSION)]
)
def test_a_rule_may_be_off(alert_id: AlertId, model: dict[str, Any]) -> None:
    assert evaluations(**model, rules=Rules(**{alert_id: None}))[alert_id] == Off()


def test_the_policy_sets_the_thresholds() -> None:
    rules = Rules(multiclass_brier_breach=MulticlassBrierRule(above=1.2, high_above=1.9))
    outcome = evaluations(**{**MULTICLASS, "brier_score": 1.5}, rules=rules)["multiclass_brier_breach"]
    assert isinstance(outcome, Breached)
    assert (outcome.severity, outcome.threshold) == ("medium", 1.2)


def judged(before: ModelAlerts, sequence: int, **about: Any) -> Judged:
    snapshot = make_snapshot(sequence, **about)
    found = judge(policy_of(snapshot.policy), before, snapshot_of(snapshot))
    assert isinstance(found, Judged)
    return found


def test_streaks_and_escalation_are_as_ever() -> None:
    state = ModelAlerts()
    seen = []
    for sequence, mae in enumerate([2.6, 2.6, 2.6, 9.0, 9.0, 1.0], start=1):
        found = judged(state, sequence, **{**REGRESSION, "mae": mae})
        state = found.state
        seen.append((state.state, [one.breach_streak for one in state.standing]))
    assert seen == [
        ("active", [1]), ("active", [2]), ("watch", [3]), ("incident", [4]), ("incident", [5]), ("none", []),
    ]  # fmt: skip


def test_an_alert_of_a_model_that_became_another_kind_is_resolved_and_says_so() -> None:
    standing = judged(ModelAlerts(), 1, accuracy=0.5).state
    found = judged(standing, 2, **REGRESSION)
    resolved, changed = found.transitions
    assert isinstance(resolved, AlertChanged)
    assert isinstance(changed, StateChanged)
    assert (resolved.alert_id, resolved.transition) == ("accuracy_breach", "resolved")
    assert resolved.reason == "the rule does not judge regression models"
    assert (found.state.standing, changed.state) == ((), "none")
    assert tuple(found.evaluations) == ("accuracy_breach", "mae_breach", "data_stale", "pipeline_stale")
    assert tuple(judged(found.state, 3, **REGRESSION).evaluations) == (
        "mae_breach",
        "data_stale",
        "pipeline_stale",
    )
