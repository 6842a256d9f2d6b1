"""What a prediction of each kind makes of each kind of label."""

from __future__ import annotations

from typing import Any

import pytest

from services.metrics.domain.joining import (
    ClassEvaluation,
    ErrorEvaluation,
    Evaluation,
    Label,
    Outcome,
    StoredPrediction,
    evaluate,
)
from services.metrics.domain.regression import in_units
from services.metrics.domain.sums import Changes
from services.metrics.intake import read
from shared.effects import Effects
from tests.metrics_world import START_SECONDS, classified, label, prediction, valued
from tests.support import RECEIVED_AT, Feed


def stored(fact: Any) -> StoredPrediction:
    effects = Effects("metrics", None, RECEIVED_AT)  # type: ignore[arg-type]  # reading a batch asks no database
    (new,) = read([Feed().record(*fact)], effects, None).predictions
    return new.stored


BINARY = stored(prediction("p", 1, 0.7))
MULTICLASS = stored(classified("p", 1, {"0": 0.25, "cat": 0.75}))
REGRESSION = stored(valued("p", 1, 3.5))
OUTCOMES: list[Outcome] = [0.0, 1.0, 2.0, 0.5, "cat", "0", "dog", None]


@pytest.mark.parametrize(
    ("made", "kind", "evaluated"),
    [
        (BINARY, Evaluation, [0.0, 1.0]),
        # A text is a class, a whole number the class that is spelled so.
        (MULTICLASS, ClassEvaluation, [0.0, "cat", "0", "dog"]),
        (REGRESSION, ErrorEvaluation, [0.0, 1.0, 2.0, 0.5]),
    ],
    ids=["binary", "multiclass", "regression"],
)
def test_an_outcome_of_another_kind_leaves_the_prediction_waiting(
    made: StoredPrediction, kind: type, evaluated: list[Outcome]
) -> None:
    for outcome in OUTCOMES:
        found = evaluate(made, Label(0, outcome))
        assert (found is not None) == (outcome in evaluated and type(outcome) in map(type, evaluated)), outcome
        assert found is None or isinstance(found, kind)
    assert evaluate(made, None) is None


@pytest.mark.parametrize(
    ("outcome", "correct", "squared_error", "named"),
    [
        ("cat", True, 0.125, "cat"),
        ("0", False, 1.125, "0"),
        (0.0, False, 1.125, "0"),
        ("dog", False, 1.625, "dog"),
    ],
)
def test_a_class_that_happened(outcome: Outcome, correct: bool, squared_error: float, named: str) -> None:
    found = evaluate(MULTICLASS, Label((START_SECONDS + 5) * 10**6, outcome))
    assert isinstance(found, ClassEvaluation)
    assert (found.outcome, found.correct, found.delay_seconds) == (named, correct, 4.0)
    assert found.squared_error == squared_error * 10**12


def test_an_error_is_predicted_minus_happened() -> None:
    found = evaluate(REGRESSION, Label(0, 5.25))
    assert found == ErrorEvaluation(REGRESSION.predicted_at, 0.0, in_units(-1.75))


@pytest.mark.parametrize(
    ("made", "outcomes"), [(MULTICLASS, ["cat", "dog"]), (REGRESSION, [1e300, 5e-324])], ids=["classes", "values"]
)
def test_what_is_put_in_and_taken_out_again_leaves_nothing(
    made: StoredPrediction, outcomes: list[Outcome]
) -> None:
    changes = Changes(60)
    for outcome in outcomes:
        found = evaluate(made, Label(made.predicted_at, outcome))
        assert found is not None
        changes.evaluated((1, 2), made, found, 1)
    assert len(changes.by_bucket((60, 3_600))) == 4
    for outcome in reversed(outcomes):
        found = evaluate(made, Label(made.predicted_at, outcome))
        assert found is not None
        changes.evaluated((1, 2), made, found, -1)
    assert changes.by_bucket((60, 3_600)) == {}


def test_the_same_number_as_a_probability_and_as_a_value_are_different_predictions() -> None:
    assert stored(prediction("p", 1, 0.5)).content_hash != stored(valued("p", 1, 0.5)).content_hash


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (classified("p", 1, {"a": 0.5, "b": 0.5}), classified("p", 1, {"b": 0.5, "a": 0.5}), True),
        (classified("p", 1, {"a": 0.0, "b": 1.0}), classified("p", 1, {"a": -0.0, "b": 1.0}), True),
        (classified("p", 1, {"a": 0.5, "b": 0.5}), classified("p", 1, {"a": 0.5, "b": 0.5}, predicted="b"), False),
        (classified("p", 1, {"a": 0.5, "b": 0.5}), classified("p", 1, {"a": 0.5, "c": 0.5}), False),
        (valued("p", 1, -0.0), valued("p", 1, 0), True),
        (valued("p", 1, 1), valued("p", 1, 1.0), True),
        (valued("p", 1, 1), valued("p", 1, 1.0000000000000002), False),
    ],
)
def test_what_makes_a_prediction_another(one: Any, other: Any, same: bool) -> None:
    assert (stored(one).content_hash == stored(other).content_hash) is same


def test_a_label_may_come_first_and_of_any_kind() -> None:
    effects = Effects("metrics", None, RECEIVED_AT)  # type: ignore[arg-type]  # reading a batch asks no database
    batch = read([Feed().record(*label("e", 1, outcome)) for outcome in (1, "cat", 1e300)], effects, None)
    assert [found.outcome for _, found in batch.labels] == [1.0, "cat", 1e300]
