"""From sums to figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.metrics.domain import figures, histogram
from services.metrics.domain.figures import NOTHING, Totals
from services.metrics.domain.histogram import DELAY_EDGES, Vector

Scored = tuple[float, bool]
"""A probability, and whether it happened."""

scored: st.SearchStrategy[list[Scored]] = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.58, 0.7, 1.0])), st.booleans()),
    max_size=30,
)


def vector_of(evaluated: Sequence[Scored], delays: Sequence[float] = ()) -> Vector:
    found = []
    for place, (probability, positive) in enumerate(evaluated):
        delay = delays[place] if delays else 0.0
        counts: dict[int, int] = {}
        for index, amount in histogram.entries(probability, positive=positive, delay_seconds=delay):
            counts[index] = counts.get(index, 0) + amount
        found.append(histogram.encode(counts))
    return histogram.total(found)


def vector_of_delays(delays: Sequence[float]) -> Vector:
    return vector_of([(0.5, True)] * len(delays), delays)


def totals(**sums: int) -> Totals:
    return Totals(
        **{name: getattr(NOTHING, name) for name in Totals.__slots__ if name not in sums},
        **sums,  # type: ignore[arg-type]  # every sum is an integer, the vector is never given
    )


@pytest.mark.parametrize(
    ("numerator", "denominator", "share"), [(0, 0, None), (5, 0, None), (0, 5, 0.0), (1, 3, 1 / 3)]
)
def test_a_share_of_nothing_is_unknown(numerator: int, denominator: int, share: float | None) -> None:
    assert figures.ratio(numerator, denominator) == share


def test_means_are_divided_once_and_rounded_right() -> None:
    sums = totals(evaluated=3, squared_error=10**12, log_loss=2 * 10**9)
    assert figures.mean_squared_error(sums) == float(Fraction(1, 3))
    assert figures.mean_log_loss(sums) == float(Fraction(2, 3))


@given(st.integers(1, 10**18), st.integers(0, 10**30))
def test_means_of_sums_beyond_64_bits_are_the_nearest_float(evaluated: int, squared_error: int) -> None:
    sums = totals(evaluated=evaluated, squared_error=squared_error, log_loss=squared_error)
    assert figures.mean_squared_error(sums) == float(Fraction(squared_error, evaluated * 10**12))
    assert figures.mean_log_loss(sums) == float(Fraction(squared_error, evaluated * 10**9))


def test_of_nothing_every_figure_is_unknown() -> None:
    assert figures.mean_squared_error(NOTHING) is None
    assert figures.mean_log_loss(NOTHING) is None
    assert figures.wilson_interval(0, 0) is None
    assert figures.auc(NOTHING.vector) is None
    assert figures.expected_calibration_error(()) is None
    assert figures.reliability(NOTHING.vector) == ()
    assert figures.delay_quantile(NOTHING.vector, 0.5) is None


def test_totals_add_up_field_by_field() -> None:
    one = Totals(1, 2, 3, 4, 5, 6, 7, 8, vector_of([(0.3, True)], [90.0]))
    two = Totals(10, 20, 30, 40, 50, 60, 70, 80, vector_of([(0.3, True), (0.9, False)], [90.0, 0.0]))
    both = one.plus(two)
    assert [getattr(both, name) for name in Totals.__slots__ if name not in ("vector", "detail")] == [
        11,
        22,
        33,
        44,
        55,
        66,
        77,
        88,
    ]
    assert list(both.vector) == list(vector_of([(0.3, True), (0.3, True), (0.9, False)], [90.0, 90.0, 0.0]))


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By symmetry.
        (20, 20, 0.8389, 1.0),
        (28, 29, 0.8282, 0.9939),
    ],
)
def test_wilson_intervals_of_the_literature(successes: int, trials: int, lower: float, upper: float) -> None:
    found = figures.wilson_interval(successes, trials)
    assert found == pytest.approx((lower, upper), abs=5e-5)


@given(st.integers(1, 10**9), st.data())
def test_a_wilson_bound_lies_the_normal_quantile_away_from_the_share(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    interval = figures.wilson_interval(successes, trials)
    assert interval is not None
    lower, upper = interval
    share = successes / trials
    assert 0 <= lower <= upper <= 1
    assert lower <= share + 1e-12
    assert upper >= share - 1e-12
    for bound in interval:
        variance = bound * (1 - bound) / trials
        assert (share - bound) ** 2 == pytest.approx(figures.Z_95**2 * variance, rel=1e-6, abs=1e-12)


def brute_force_auc(evaluated: Sequence[Scored]) -> float | None:
    """How often a positive is scored above a negative, ties a half, over all pairs; scores are bins."""
    binned = [(min(int(probability * 50), 49), positive) for probability, positive in evaluated]
    pairs = [(high, low) for high, positive in binned if positive for low, other in binned if not other]
    if not pairs:
        return None
    return float(sum(Fraction((high > low) * 2 + (high == low), 2) for high, low in pairs) / len(pairs))


@given(scored)
def test_auc_is_that_of_all_pairs_of_binned_scores(evaluated: list[Scored]) -> None:
    assert figures.auc(vector_of(evaluated)) == brute_force_auc(evaluated)


@pytest.mark.parametrize(
    ("evaluated", "area"),
    [
        ([(0.9, True)], None),
        ([(0.9, False)], None),
        ([(0.9, True), (0.1, False)], 1.0),
        ([(0.1, True), (0.9, False)], 0.0),
        ([(0.5, True), (0.5, False)], 0.5),
        # Within one bin of 0.02 the order is not seen.
        ([(0.5, True), (0.519, False)], 0.5),
        ([(0.5, True), (0.521, False)], 0.0),
    ],
)
def test_auc_at_its_edges(evaluated: list[Scored], area: float | None) -> None:
    assert figures.auc(vector_of(evaluated)) == area


def plain_reliability(evaluated: Sequence[Scored]) -> list[tuple[float, float, int, float, float]]:
    rows = []
    for tenth in range(10):
        inside = [one for one in evaluated if min(int(one[0] * 50), 49) // 5 == tenth]
        if inside:
            happened = sum(positive for _, positive in inside)
            total = sum(round(probability * 1e9) for probability, _ in inside)
            mean = float(Fraction(total, len(inside) * 10**9))
            rows.append((tenth / 10, (tenth + 1) / 10, len(inside), mean, happened / len(inside)))
    return rows


@given(scored)
def test_the_reliability_table_counts_everything_once(evaluated: list[Scored]) -> None:
    rows = figures.reliability(vector_of(evaluated))
    found = [(row.lower, row.upper, row.count, row.mean_probability, row.positive_rate) for row in rows]
    assert found == plain_reliability(evaluated)
    assert sum(row.count for row in rows) == len(evaluated)


@given(scored)
def test_the_calibration_error_weighs_every_row_by_its_count(evaluated: list[Scored]) -> None:
    assume(evaluated)
    expected = math.fsum(n * abs(rate - mean) for _, _, n, mean, rate in plain_reliability(evaluated))
    error = figures.expected_calibration_error(figures.reliability(vector_of(evaluated)))
    assert error == pytest.approx(expected / len(evaluated), abs=1e-15)


@pytest.mark.parametrize(
    ("evaluated", "error"),
    [
        ([(1.0, True), (0.0, False)], 0.0),
        ([(1.0, False), (0.0, True)], 1.0),
        ([(0.25, True), (0.25, False), (0.25, False), (0.25, False)], 0.0),
        ([(0.75, True), (0.75, False), (0.15, False), (0.15, False)], (2 * 0.25 + 2 * 0.15) / 4),
    ],
)
def test_calibration_errors_known_by_hand(evaluated: list[Scored], error: float) -> None:
    assert figures.expected_calibration_error(figures.reliability(vector_of(evaluated))) == pytest.approx(
        error, abs=1e-12
    )


@pytest.mark.parametrize(
    ("delays", "share", "seconds"),
    [
        ([90.0], 0.5, 90.0),  # the middle of [60, 120)
        ([90.0] * 10, 0.95, 117.0),
        ([0.5, 90.0], 0.5, 1.0),  # the whole of the first bin
        ([0.5, 90.0], 0.75, 90.0),
        ([0.5] * 19 + [90.0], 0.95, 1.0),
        ([0.5] * 18 + [90.0] * 2, 0.95, 90.0),
        ([7_776_000.0], 0.5, 7_776_000.0),  # the open bin says its lower edge
        ([1e12] * 3, 0.95, 7_776_000.0),
    ],
)
def test_delay_quantiles_known_by_hand(delays: list[float], share: float, seconds: float) -> None:
    assert figures.delay_quantile(vector_of_delays(delays), share) == pytest.approx(seconds)


@given(st.lists(st.floats(0, 1e8), min_size=1, max_size=40), st.sampled_from([0.5, 0.95]))
def test_a_delay_quantile_lies_in_the_bin_of_the_true_one(delays: list[float], share: float) -> None:
    found = figures.delay_quantile(vector_of_delays(delays), share)
    assert found is not None
    true = sorted(delays)[math.ceil(share * len(delays)) - 1]
    edges = (0, *DELAY_EDGES)
    place = max(index for index, edge in enumerate(edges) if edge <= true)
    upper = edges[place + 1] if place + 1 < len(edges) else edges[-1]
    assert edges[place] <= found <= upper


@given(st.lists(st.floats(0, 1e8), min_size=1, max_size=40))
def test_quantiles_ascend(delays: list[float]) -> None:
    vector = vector_of_delays(delays)
    median, high = figures.delay_quantile(vector, 0.5), figures.delay_quantile(vector, 0.95)
    assert median is not None
    assert high is not None
    assert median <= high
