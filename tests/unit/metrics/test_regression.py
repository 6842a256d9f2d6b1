"""Errors are exact whatever their size, and divided once."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.metrics.domain.regression import (
    ERROR_UNITS,
    SQUARED_ERROR_UNITS,
    in_units,
    mean,
    root_mean,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LARGEST = 1.7976931348623157e308


@given(FINITE)
@example(5e-324)
@example(2.2250738585072014e-308)
@example(-LARGEST)
@example(-0.0)
def test_every_float_is_a_whole_number_of_units(value: float) -> None:
    assert Fraction(in_units(value), ERROR_UNITS) == Fraction(repr(value))


@pytest.mark.parametrize(
    ("predicted", "happened", "error"),
    [
        (0.8, 0.77, Fraction(3, 100)),
        (0.1, 0.3, Fraction(-2, 10)),
        (1e300, 1e-300, Fraction(10**300) - Fraction(1, 10**300)),
    ],
)
def test_a_number_counts_as_it_is_written(predicted: float, happened: float, error: Fraction) -> None:
    assert Fraction(in_units(predicted) - in_units(happened), ERROR_UNITS) == error


@given(st.lists(FINITE, min_size=1, max_size=6), st.randoms())
def test_sums_do_not_depend_on_order_and_leave_nothing_when_taken_out(values: list[float], chance: object) -> None:
    shuffled = values.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    total = sum(map(in_units, values))
    assert sum(map(in_units, shuffled)) == total
    assert total - sum(map(in_units, shuffled)) == 0


@given(st.lists(FINITE, min_size=1, max_size=5))
def test_the_mean_is_the_nearest_float(values: list[float]) -> None:
    exact = sum(map(Fraction, map(repr, values)), Fraction(0)) / len(values)
    assert mean(sum(map(in_units, values)), ERROR_UNITS, len(values)) == float(exact)


@given(st.lists(FINITE, min_size=1, max_size=4))
@example([5e-324])
@example([LARGEST, LARGEST])
@example([1e-200, 1e200])
def test_the_root_of_the_mean_square_is_the_nearest_float(values: list[float]) -> None:
    square = sum((Fraction(repr(value)) ** 2 for value in values), Fraction(0)) / len(values)
    with localcontext(prec=2_500):
        expected = float((Decimal(square.numerator) / Decimal(square.denominator)).sqrt())
    found = root_mean(sum(in_units(value) ** 2 for value in values), SQUARED_ERROR_UNITS, len(values))
    assert found == expected


@given(st.integers(0, 10**30), st.integers(1, 10**20))
def test_the_root_of_a_square_is_the_number(root: int, count: int) -> None:
    assert root_mean(root * root * count, 1, count) == float(root)


def test_without_predictions_there_is_no_figure() -> None:
    assert mean(0, ERROR_UNITS, 0) is None
    assert root_mean(0, SQUARED_ERROR_UNITS, 0) is None
    assert (mean(0, ERROR_UNITS, 3), root_mean(0, SQUARED_ERROR_UNITS, 3)) == (0.0, 0.0)


def test_what_no_float_can_say_is_unknown() -> None:
    error = in_units(LARGEST) - in_units(-LARGEST)
    assert mean(error, ERROR_UNITS, 1) is None
    assert root_mean(error * error, SQUARED_ERROR_UNITS, 1) is None
    # But it counts: with enough small errors beside it, the mean is a float again.
    assert mean(error, ERROR_UNITS, 2) == LARGEST
    assert math.isfinite(root_mean(error * error, SQUARED_ERROR_UNITS, 8) or math.inf)
