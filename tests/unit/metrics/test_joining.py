"""Which label wins, and what a prediction and its label make together."""

from __future__ import annotations

from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.contributions import score
from services.metrics.domain.joining import (
    Evaluation,
    Label,
    Outcome,
    StoredPrediction,
    Verdict,
    evaluate,
    is_new,
    judge_label,
)


def stored(probability: float = 0.7, *, predicted_at: int = 1_000_000, positive: bool = True) -> StoredPrediction:
    scored = score(probability)
    return StoredPrediction(
        prediction_key=UUID(int=1),
        entity_key=UUID(int=2),
        version_id=3,
        segment_id=4,
        predicted_at=predicted_at,
        content_hash=5,
        probability=probability,
        predicted_positive=positive,
        squared_error_if_negative=scored.squared_error_if_negative,
        squared_error_if_positive=scored.squared_error_if_positive,
        log_loss_if_negative=scored.log_loss_if_negative,
        log_loss_if_positive=scored.log_loss_if_positive,
    )


@pytest.mark.parametrize(
    ("standing", "arrived", "verdict"),
    [
        (None, Label(5, 1.0), "first"),
        (None, Label(5, None), "first"),
        (Label(5, 1.0), Label(5, 1.0), "duplicate"),
        (Label(5, None), Label(5, None), "duplicate"),
        (Label(5, "late"), Label(5, "late"), "duplicate"),
        (Label(5, 1.0), Label(6, 0.0), "corrected"),
        (Label(5, 1.0), Label(4, 0.0), "stale"),
        (Label(5, None), Label(6, 0.0), "corrected"),
        (Label(5, None), Label(4, 0.0), "stale"),
        # At equal times the greater outcome: null, then strings by code point, then numbers.
        (Label(5, 0.0), Label(5, 1.0), "corrected"),
        (Label(5, 1.0), Label(5, 0.0), "stale"),
        (Label(5, 1e300), Label(5, "a"), "corrected"),
        (Label(5, "a"), Label(5, 1e300), "stale"),
        (Label(5, "z"), Label(5, "a"), "stale"),
        (Label(5, "Z"), Label(5, "a"), "corrected"),
        (Label(5, "\ud7ff"), Label(5, "\U0001f600"), "corrected"),
        # UTF-16 would order these two the other way round.
        (Label(5, "\uffff"), Label(5, "\U0001f600"), "corrected"),
        (Label(5, "\U0010ffff"), Label(5, None), "corrected"),
        (Label(5, None), Label(5, "\U0010ffff"), "stale"),
        (Label(5, -0.0), Label(5, 0.0), "duplicate"),
    ],
)
def test_the_verdict_on_an_arriving_label(standing: Label | None, arrived: Label, verdict: Verdict) -> None:
    assert judge_label(standing, arrived) == verdict


outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.none(), st.sampled_from([0.0, 1.0, 0.5, -1.0]), st.sampled_from(["a", "b", "\U0001f600"])
)
labels = st.builds(Label, st.integers(0, 2), outcomes)


@given(st.lists(labels, min_size=1, max_size=4))
def test_the_winner_does_not_depend_on_the_order_of_arrival(arrived: list[Label]) -> None:
    winners = set()
    for order in permutations(arrived):
        standing: Label | None = None
        for label in order:
            if judge_label(standing, label) in ("first", "corrected"):
                standing = label
        winners.add(standing)
    assert len(winners) == 1
    assert winners.pop() in arrived


@given(labels, labels)
def test_of_two_labels_one_wins_in_either_order(one: Label, two: Label) -> None:
    verdicts = {judge_label(one, two), judge_label(two, one)}
    assert verdicts == ({"duplicate"} if one == two else {"corrected", "stale"})


@pytest.mark.parametrize("outcome", [None, "1", "positive", 0.5, 2.0, -1.0, 1.0000000000000002])
def test_what_is_neither_0_nor_1_evaluates_nothing(outcome: Outcome) -> None:
    assert evaluate(stored(), Label(5, outcome)) is None


def test_a_prediction_without_a_label_waits() -> None:
    assert evaluate(stored(), None) is None


@pytest.mark.parametrize(
    ("predicted_at", "observed_at", "evaluated_at", "delay_seconds"),
    [
        (1_000_000, 3_500_000, 3_500_000, 2.5),
        (1_000_000, 1_000_001, 1_000_001, 1e-6),
        (1_000_000, 1_000_000, 1_000_000, 0.0),
        # A label that was known before: the evaluation is the prediction's, without delay.
        (1_000_000, 999_999, 1_000_000, 0.0),
        (1_000_000, -5, 1_000_000, 0.0),
    ],
)
def test_an_evaluation_belongs_to_the_later_of_the_two(
    predicted_at: int, observed_at: int, evaluated_at: int, delay_seconds: float
) -> None:
    found = evaluate(stored(predicted_at=predicted_at), Label(observed_at, 1.0))
    assert found is not None
    assert (found.evaluated_at, found.delay_seconds) == (evaluated_at, delay_seconds)


@pytest.mark.parametrize(
    ("outcome", "decided", "contributes"),
    [
        (1.0, True, Evaluation(2_000_000, 1.0, True, True, 90_000_000_000, 356_674_944)),
        (1.0, False, Evaluation(2_000_000, 1.0, True, False, 90_000_000_000, 356_674_944)),
        (0.0, True, Evaluation(2_000_000, 1.0, False, False, 490_000_000_000, 1_203_972_804)),
        (0.0, False, Evaluation(2_000_000, 1.0, False, True, 490_000_000_000, 1_203_972_804)),
    ],
)
def test_what_an_evaluation_contributes(outcome: float, decided: bool, contributes: Evaluation) -> None:
    """The decision counts in ``correct`` alone; squared error and log loss are the probability's (0.7 here)."""
    assert evaluate(stored(0.7, positive=decided), Label(2_000_000, outcome)) == contributes


@pytest.mark.parametrize(
    ("observed_at", "limit", "new"), [(5, None, True), (5, 4, True), (5, 5, False), (5, 6, False)]
)
def test_a_label_is_new_when_it_is_later_than_the_limit(observed_at: int, limit: int | None, new: bool) -> None:
    assert is_new(Label(observed_at, 1.0), limit) is new
