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
