"""What one evaluated prediction adds: integers in stated units."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.contributions import decides_positive, score


def exact_log_loss(given_to_outcome: Fraction) -> int:
    """-ln of a probability in units of 1e-9, from 40 digits; probabilities are clipped as the rule says."""
    clipped = min(max(given_to_outcome, Fraction(1, 10**15)), 1 - Fraction(1, 10**15))
    with localcontext(prec=40):
        return round(-(Decimal(clipped.numerator) / Decimal(clipped.denominator)).ln() * 10**9)


def test_every_thousandth_scores_as_exact_arithmetic_says() -> None:
    for thousandths in range(1001):
        scored = score(thousandths / 1000)
        happened, not_happened = Fraction(thousandths, 1000), Fraction(1000 - thousandths, 1000)
        assert scored.squared_error_if_negative == happened**2 * 10**12
        assert scored.squared_error_if_positive == not_happened**2 * 10**12
        assert scored.log_loss_if_positive == exact_log_loss(happened)
        assert scored.log_loss_if_negative == exact_log_loss(not_happened)


@pytest.mark.parametrize(
    ("probability", "if_negative", "if_positive"),
    [
        # -ln(1e-15) = 34.538776394910684...
        (0.0, 0, 34_538_776_395),
        (1e-300, 0, 34_538_776_395),
        (1e-15, 0, 34_538_776_395),
        (2e-15, 0, 33_845_629_214),
        (0.5, 693_147_181, 693_147_181),
        (1.0, 34_538_776_395, 0),
    ],
)
def test_log_loss_is_clipped_alike_on_both_sides(probability: float, if_negative: int, if_positive: int) -> None:
    scored = score(probability)
    assert (scored.log_loss_if_negative, scored.log_loss_if_positive) == (if_negative, if_positive)


@given(st.floats(0, 1))
def test_scores_are_whole_and_within_their_bounds(probability: float) -> None:
    scored = score(probability)
    for squared in (scored.squared_error_if_negative, scored.squared_error_if_positive):
        assert isinstance(squared, int)
        assert 0 <= squared <= 10**12
    for loss in (scored.log_loss_if_negative, scored.log_loss_if_positive):
        assert isinstance(loss, int)
        assert 0 <= loss <= 34_538_776_395


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_bolder_forecast_gains_when_right_and_loses_when_wrong(one: float, two: float) -> None:
    low, high = score(min(one, two)), score(max(one, two))
    assert low.squared_error_if_negative <= high.squared_error_if_negative
    assert low.squared_error_if_positive >= high.squared_error_if_positive
    assert low.log_loss_if_negative <= high.log_loss_if_negative
    assert low.log_loss_if_positive >= high.log_loss_if_positive


@pytest.mark.parametrize(
    ("probability", "predicted", "positive"),
    [
        (0.49999999999999994, None, False),
        (0.5, None, True),
        (0.5000000000000001, None, True),
        (0.0, None, False),
        (1.0, None, True),
        (0.9, 0, False),
        (0.1, 1, True),
        (0.5, 0, False),
    ],
)
def test_the_decision_taken_counts_else_a_half(probability: float, predicted: int | None, positive: bool) -> None:
    assert decides_positive(probability, predicted) is positive
