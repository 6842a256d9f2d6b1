from dataclasses import replace

import pytest

from services.retrain.domain.aftermath import Criteria, Keep, NotYet, Revert, assess, can_be_assessed
from services.retrain.domain.triggers import Figures

CRITERIA = Criteria(accuracy_drop=0.03, brier_rise=0.02, baseline_accuracy=0.80, baseline_brier_score=0.20)
SAME = Figures(evaluated_predictions=30, accuracy=0.80, brier_score=0.20)


@pytest.mark.parametrize(
    ("accuracy", "verdict"), [(0.9, Keep), (0.7700001, Keep), (0.77, Keep), (0.7699999, Revert)]
)
def test_accuracy_may_drop_by_no_more_than_its_limit(accuracy: float | None, verdict: type[object]) -> None:
    assert isinstance(assess(CRITERIA, replace(SAME, accuracy=accuracy), min_evaluated=30), verdict)


@pytest.mark.parametrize(
    ("brier_score", "verdict"), [(0.1, Keep), (0.2199999, Keep), (0.22, Keep), (0.2200001, Revert)]
)
def test_brier_may_rise_by_no_more_than_its_limit(brier_score: float | None, verdict: type[object]) -> None:
    assert isinstance(assess(CRITERIA, replace(SAME, brier_score=brier_score), min_evaluated=30), verdict)


@pytest.mark.parametrize(("evaluated", "verdict"), [(29, NotYet), (30, Keep), (31, Keep)])
def test_a_verdict_needs_min_evaluated_predictions(evaluated: int, verdict: type[object]) -> None:
    figures = replace(SAME, evaluated_predictions=evaluated)

    assert isinstance(assess(CRITERIA, figures, min_evaluated=30), verdict)


def test_either_criterion_alone_reverts() -> None:
    better_accuracy_worse_brier = replace(SAME, accuracy=0.95, brier_score=0.5)

    assert assess(CRITERIA, better_accuracy_worse_brier, min_evaluated=30) == Revert(
        "accuracy 0.8 before, 0.95 now: down by not more than 0.03; "
        "Brier score 0.2 before, 0.5 now: up by more than 0.02"
    )


def test_an_unknown_figure_compares_with_nothing() -> None:
    without_baseline = replace(CRITERIA, baseline_accuracy=None)

    assert assess(without_baseline, replace(SAME, accuracy=0.0), min_evaluated=30) == Keep(
        "accuracy cannot be compared: None before, 0.0 now; "
        "Brier score 0.2 before, 0.2 now: up by not more than 0.02"
    )
    assert isinstance(assess(without_baseline, replace(SAME, brier_score=0.9), min_evaluated=30), Revert)


@pytest.mark.parametrize(
    ("model_version", "previous", "can_be"),
    [("v2", "v1", True), ("v2", None, True), (None, "v1", False), ("v1", "v1", False)],
)
def test_only_a_version_of_its_own_can_be_assessed(
    model_version: str | None, previous: str | None, can_be: bool
) -> None:
    assert can_be_assessed(model_version, previous) is can_be
