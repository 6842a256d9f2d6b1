"""A model's row in `trueward status`: figures beside what they are held against."""

from __future__ import annotations

from typing import Any

import pytest
from rich.text import Text

from trueward.cli.reports import standing

THRESHOLDS = {"accuracy_below": 0.55, "brier_above": 0.25, "data_freshness_above_seconds": 172_800}
JOB = {"status": "queued", "as_of": "2026-03-08T00:00:00Z", "triggers": ["accuracy_breach", "new_labels"]}


def row(**changes: Any) -> list[str]:
    metrics = {"accuracy": 0.8, "brier_score": 0.1, "data_freshness_seconds": 90.0, **changes.pop("metrics", {})}
    model: Any = {
        "model": "m",
        "standing": "good",
        "metrics": metrics,
        "thresholds": THRESHOLDS,
        "longest_streak": 0,
        "last_job": None,
        **changes,
    }
    return [Text.from_markup(cell).plain for cell in standing(model)]


def test_a_good_model() -> None:
    assert row() == ["m", "good", "0.8000 ≥ 0.55", "0.1000 ≤ 0.25", "1.5 min", "-", "-"]


def test_a_model_in_breach() -> None:
    metrics = {"accuracy": 0.42, "brier_score": 0.3, "data_freshness_seconds": 3 * 86_400.0}
    found = row(standing="incident", metrics=metrics, longest_streak=3, last_job=JOB)
    assert found == [
        "m",
        "incident",
        "0.4200 < 0.55",
        "0.3000 > 0.25",
        "3.0 d, stale",
        "3",
        "queued 2026-03-08 00:00:00Z (accuracy_breach, new_labels)",
    ]


@pytest.mark.parametrize(("accuracy", "brier", "age"), [(0.55, 0.25, 172_800.0)])
def test_at_its_threshold_a_figure_is_no_breach(accuracy: float, brier: float, age: float) -> None:
    metrics = {"accuracy": accuracy, "brier_score": brier, "data_freshness_seconds": age}
    assert row(metrics=metrics)[2:5] == ["0.5500 ≥ 0.55", "0.2500 ≤ 0.25", "2.0 d"]


def test_what_is_unknown_is_not_invented() -> None:
    nothing = {"accuracy": None, "brier_score": None, "data_freshness_seconds": None}
    assert row(standing="waiting", metrics=nothing, thresholds=None)[1:] == ["waiting", "-", "-", "-", "-", "-"]


def test_rules_that_are_off_leave_the_figures_alone() -> None:
    off = dict.fromkeys(THRESHOLDS)
    assert row(thresholds=off)[2:5] == ["0.8000", "0.1000", "1.5 min"]


def test_a_name_is_no_markup() -> None:
    assert row(model="[red]x[/]")[0] == "[red]x[/]"


REGRESSION = {"kind": "regression", "mae": 3.1, "rmse": 4.25, "baseline_mae": 2.0}
AGAINST_BASELINE = {**THRESHOLDS, "mae_above_ratio": 1.5, "mae_baseline": None}


@pytest.mark.parametrize(
    ("metrics", "thresholds", "cells"),
    [
        (REGRESSION, AGAINST_BASELINE, ["MAE 3.1000 > 3", "RMSE 4.2500"]),
        ({**REGRESSION, "mae": 3.0}, AGAINST_BASELINE, ["MAE 3.0000 \u2264 3", "RMSE 4.2500"]),
        (REGRESSION, {**AGAINST_BASELINE, "mae_baseline": 10.0}, ["MAE 3.1000 \u2264 15", "RMSE 4.2500"]),
        ({**REGRESSION, "baseline_mae": None}, AGAINST_BASELINE, ["MAE 3.1000", "RMSE 4.2500"]),
        (REGRESSION, {**AGAINST_BASELINE, "mae_above_ratio": None}, ["MAE 3.1000", "RMSE 4.2500"]),
        (dict.fromkeys(REGRESSION) | {"kind": "regression"}, None, ["MAE -", "RMSE -"]),
        ({**REGRESSION, "mae": 1.5e300, "rmse": 2e-7}, None, ["MAE 1.5e+300", "RMSE 2e-07"]),
    ],
)
def test_a_regression_model_shows_its_errors(
    metrics: dict[str, Any], thresholds: dict[str, Any] | None, cells: list[str]
) -> None:
    assert row(metrics=metrics, thresholds=thresholds)[2:4] == cells


def test_a_multiclass_model_is_held_to_the_brier_score_of_many_classes() -> None:
    thresholds = {**THRESHOLDS, "multiclass_brier_above": 0.5}
    metrics = {"kind": "multiclass", "accuracy": 0.6, "brier_score": 0.45}
    assert row(metrics=metrics, thresholds=thresholds)[2:4] == ["0.6000 \u2265 0.55", "0.4500 \u2264 0.5"]
