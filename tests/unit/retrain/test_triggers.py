from dataclasses import replace

import pytest

from services.retrain.domain.triggers import Figures, Thresholds, Trigger, fired, judge

THRESHOLDS = Thresholds(accuracy_below=0.55, brier_above=0.25, new_labels_at_least=40, min_evaluated=30)
QUIET = Figures(evaluated_predictions=30, accuracy=0.9, brier_score=0.1, new_labels=0)


def outcomes(figures: Figures, thresholds: Thresholds = THRESHOLDS) -> dict[str, str]:
    return {reason.trigger: reason.outcome for reason in judge(figures, thresholds)}


@pytest.mark.parametrize(
    ("accuracy", "outcome"),
    [(0.0, "fired"), (0.5499999, "fired"), (0.55, "quiet"), (0.5500001, "quiet"), (None, "insufficient_data")],
)
def test_accuracy_fires_below_its_threshold(accuracy: float | None, outcome: object) -> None:
    assert outcomes(replace(QUIET, accuracy=accuracy))["accuracy_breach"] == outcome


@pytest.mark.parametrize(
    ("brier_score", "outcome"),
    [(0.2499999, "quiet"), (0.25, "quiet"), (0.2500001, "fired"), (1.0, "fired"), (None, "insufficient_data")],
)
def test_brier_fires_above_its_threshold(brier_score: float | None, outcome: object) -> None:
    assert outcomes(replace(QUIET, brier_score=brier_score))["brier_breach"] == outcome


@pytest.mark.parametrize(
    ("new_labels", "outcome"),
    [(39, "quiet"), (40, "fired"), (41, "fired"), (None, "insufficient_data")],
)
def test_new_labels_fire_at_their_threshold(new_labels: int | None, outcome: object) -> None:
    assert outcomes(replace(QUIET, new_labels=new_labels))["new_labels"] == outcome


@pytest.mark.parametrize(
    ("evaluated", "outcome"), [(0, "insufficient_data"), (29, "insufficient_data"), (30, "fired"), (31, "fired")]
)
def test_quality_needs_min_evaluated_predictions(evaluated: int, outcome: object) -> None:
    bad = Figures(evaluated_predictions=evaluated, accuracy=0.1, brier_score=0.9, new_labels=0)

    assert outcomes(bad) == {"accuracy_breach": outcome, "brier_breach": outcome, "new_labels": "quiet"}


def test_new_labels_need_no_evaluated_predictions() -> None:
    nothing_evaluated = Figures(evaluated_predictions=0, accuracy=None, brier_score=None, new_labels=40)

    assert outcomes(nothing_evaluated)["new_labels"] == "fired"


@pytest.mark.parametrize(
    ("trigger", "off"),
    [
        ("accuracy_breach", replace(THRESHOLDS, accuracy_below=None)),
        ("brier_breach", replace(THRESHOLDS, brier_above=None)),
        ("new_labels", replace(THRESHOLDS, new_labels_at_least=None)),
    ],
)
def test_a_trigger_that_is_off_says_so_and_the_others_go_on(trigger: Trigger, off: Thresholds) -> None:
    bad = Figures(evaluated_predictions=100, accuracy=0.1, brier_score=0.9, new_labels=1000)
    others = {"accuracy_breach", "brier_breach", "new_labels"} - {trigger}

    reasons = judge(bad, off)

    assert {reason.trigger: reason.outcome for reason in reasons} == {
        trigger: "off",
        **dict.fromkeys(others, "fired"),
    }
    assert set(fired(reasons)) == others


def test_every_reason_tells_the_numbers_compared() -> None:
    figures = Figures(evaluated_predictions=120, accuracy=0.5, brier_score=0.3, new_labels=12)

    accuracy, brier, new_labels = judge(figures, THRESHOLDS)

    assert (accuracy.value, accuracy.threshold, accuracy.text) == (0.5, 0.55, "accuracy 0.5 is below 0.55")
    assert (brier.value, brier.threshold, brier.text) == (0.3, 0.25, "Brier score 0.3 is above 0.25")
    assert (new_labels.value, new_labels.threshold) == (12, 40)
    assert new_labels.text == "12 new labels are fewer than 40"


def test_insufficient_data_tells_the_count() -> None:
    accuracy, _, _ = judge(replace(QUIET, evaluated_predictions=7), THRESHOLDS)

    assert accuracy.text == "7 evaluated predictions; 30 are needed"
    assert accuracy.value == 0.9
