"""Triggers and rollback of multiclass and regression models, at, below and above their thresholds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from services.retrain.conversion import figures_of, thresholds_of
from services.retrain.domain.aftermath import Criteria, Keep, Revert, assess
from services.retrain.domain.triggers import Figures, Thresholds, judge
from shared.contracts.models import Rules, Triggers
from tests.unit.retrain.builders import make_snapshot

THRESHOLDS = Thresholds(
    accuracy_below=0.55,
    brier_above=0.25,
    multiclass_brier_above=0.5,
    mae_above_ratio=1.25,
    new_labels_at_least=40,
    min_evaluated=30,
)
MULTICLASS = Figures(evaluated_predictions=30, accuracy=0.9, brier_score=0.3, new_labels=0, kind="multiclass")
REGRESSION = Figures(
    evaluated_predictions=30,
    accuracy=None,
    brier_score=None,
    new_labels=0,
    kind="regression",
    mae=1.0,
    baseline_mae=2.0,
    baseline_evaluated_predictions=30,
)


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


def outcomes(figures: Figures, thresholds: Thresholds = THRESHOLDS) -> dict[str, str]:
    return {reason.trigger: reason.outcome for reason in judge(figures, thresholds)}


def test_the_triggers_of_each_kind() -> None:
    assert tuple(outcomes(MULTICLASS)) == ("accuracy_breach", "multiclass_brier_breach", "new_labels")
    assert tuple(outcomes(REGRESSION)) == ("mae_breach", "new_labels")


@pytest.mark.parametrize(
    ("brier_score", "outcome"),
    [(0.4999999, "quiet"), (0.5, "quiet"), (above(0.5), "fired"), (2.0, "fired"), (None, "insufficient_data")],
)
def test_multiclass_brier_fires_above_its_threshold(brier_score: float | None, outcome: str) -> None:
    assert outcomes(replace(MULTICLASS, brier_score=brier_score))["multiclass_brier_breach"] == outcome


@pytest.mark.parametrize(
    ("mae", "outcome"),
    [(0.0, "quiet"), (2.4999, "quiet"), (2.5, "quiet"), (above(2.5), "fired"), (None, "insufficient_data")],
)
def test_mae_fires_above_its_share_of_the_baseline(mae: float | None, outcome: str) -> None:
    assert outcomes(replace(REGRESSION, mae=mae))["mae_breach"] == outcome


@pytest.mark.parametrize(
    ("evaluated", "before", "outcome"),
    [
        (29, 30, "insufficient_data"),
        (30, 29, "insufficient_data"),
        (30, None, "insufficient_data"),
        (30, 30, "fired"),
    ],
)
def test_mae_needs_enough_now_and_enough_before(evaluated: int, before: int | None, outcome: str) -> None:
    figures = replace(REGRESSION, mae=99.0, evaluated_predictions=evaluated, baseline_evaluated_predictions=before)
    assert outcomes(figures)["mae_breach"] == outcome


def test_a_baseline_of_the_policys_needs_no_past() -> None:
    young = replace(REGRESSION, mae=11.1, baseline_mae=None, baseline_evaluated_predictions=0)
    given = replace(THRESHOLDS, mae_baseline=10.0, mae_above_ratio=1.1)
    reason, _ = judge(young, given)
    assert (reason.outcome, reason.value, reason.threshold) == ("fired", 11.1, 11.0)
    assert reason.text == "MAE 11.1 is above 11.0, 1.1 times the baseline of 10.0"


def test_mae_that_is_off_says_so() -> None:
    off = replace(THRESHOLDS, mae_above_ratio=None)
    assert outcomes(replace(REGRESSION, mae=99.0), off) == {"mae_breach": "off", "new_labels": "quiet"}


@pytest.mark.parametrize(
    "policy", [{"rules": Rules(mae_breach=None)}, {"triggers": Triggers(mae_breach=None)}], ids=["rule", "trigger"]
)
def test_a_trigger_without_its_rule_is_off(policy: dict[str, Any]) -> None:
    snapshot = make_snapshot(policy=policy, kind="regression", accuracy=None, brier_score=None, mae=9.0)
    assert outcomes(figures_of(snapshot), thresholds_of(snapshot.policy))["mae_breach"] == "off"


CRITERIA = Criteria(
    accuracy_drop=0.03,
    brier_rise=0.02,
    baseline_accuracy=0.80,
    baseline_brier_score=0.20,
    kind="multiclass",
    multiclass_brier_rise=0.04,
    mae_rise=0.1,
    baseline_mae=3.0,
)


@pytest.mark.parametrize(
    ("brier_score", "verdict"), [(0.1, Keep), (0.2399999, Keep), (0.24, Keep), (0.2400001, Revert)]
)
def test_multiclass_brier_may_rise_by_its_own_limit(brier_score: float, verdict: type[object]) -> None:
    figures = replace(MULTICLASS, accuracy=0.8, brier_score=brier_score)
    assert isinstance(assess(CRITERIA, figures, min_evaluated=30), verdict)


@pytest.mark.parametrize(
    ("mae", "verdict"), [(0.0, Keep), (3.0, Keep), (3.3, Keep), (above(3.3), Revert), (99.0, Revert)]
)
def test_mae_may_rise_by_a_share_of_the_baseline(mae: float, verdict: type[object]) -> None:
    criteria = replace(CRITERIA, kind="regression")
    assert isinstance(assess(criteria, replace(REGRESSION, mae=mae), min_evaluated=30), verdict)


def test_the_verdict_on_a_regression_model_tells_its_comparison() -> None:
    criteria = replace(CRITERIA, kind="regression")
    assert assess(criteria, replace(REGRESSION, mae=3.5), min_evaluated=30) == Revert(
        "MAE 3.0 before, 3.5 now: up by more than 0.1 times the former"
    )
    assert assess(replace(criteria, baseline_mae=None), REGRESSION, min_evaluated=30) == Keep(
        "MAE cannot be compared: None before, 1.0 now"
    )


def test_models_of_different_kinds_are_not_compared() -> None:
    assert assess(CRITERIA, REGRESSION, min_evaluated=30) == Keep(
        "a regression model cannot be compared with the multiclass one before it"
    )
