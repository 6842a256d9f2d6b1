"""How long a prediction waits for its label and how long a label may be corrected, in event time alone."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.metrics.domain.buckets import DAY_SECONDS, MICROSECONDS, widths, window_tiles
from services.metrics.domain.horizons import (
    Horizons,
    LabelVerdict,
    Standing,
    reaches_back,
    rule,
    why_not_these,
)
from services.metrics.domain.joining import Label
from services.metrics.domain.retention import kept_until, narrow_before, raw_cutoff
from services.metrics.settings import MetricsSettings

HORIZONS = Horizons(label=90, correction=30)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("predicted_at", "first_observed_at", "counts"),
    [
        (0, 89, True),
        (0, 90, True),
        (0, 91, False),
        # A label may wait as long for its prediction.
        (89, 0, True),
        (90, 0, True),
        (91, 0, False),
    ],
)
def test_a_prediction_and_its_label_wait_for_each_other_as_long_as_the_label_horizon(
    predicted_at: int, first_observed_at: int, counts: bool
) -> None:
    label = Label(first_observed_at, 1.0)
    found = Standing(label, first_observed_at).label_for(predicted_at, HORIZONS)
    assert found == (label if counts else None)


def test_a_correction_counts_for_a_prediction_that_the_first_label_came_in_time_for() -> None:
    standing = Standing(Label(110, 0.0), first_observed_at=90)
    assert standing.label_for(0, HORIZONS) == Label(110, 0.0)
    assert standing.label_for(-1, HORIZONS) is None


@pytest.mark.parametrize(
    ("observed_at", "outcome", "verdict"),
    [
        (129, 0.0, "corrected"),
        (130, 0.0, "corrected"),
        (131, 0.0, "too_late"),
        (131, None, "too_late"),
        (100, 1.0, "duplicate"),
        (100, 0.0, "stale"),
        (99, 0.0, "stale"),
    ],
)
def test_a_label_is_corrected_within_the_correction_horizon(
    observed_at: int, outcome: float | None, verdict: LabelVerdict
) -> None:
    standing = Standing(Label(100, 1.0), 100)
    ruling = rule(standing, Label(observed_at, outcome), [], HORIZONS)
    assert ruling.verdict == verdict
    if verdict in ("too_late", "duplicate"):
        assert (ruling.standing, ruling.superseded) == (standing, None)


def test_the_horizon_runs_from_the_first_label_not_from_the_one_that_is_corrected() -> None:
    corrected = rule(Standing(Label(100, 1.0), 100), Label(125, 0.0), [], HORIZONS).standing
    assert corrected == Standing(Label(125, 0.0), 100)
    assert rule(corrected, Label(131, 1.0), [], HORIZONS).verdict == "too_late"


def test_an_earlier_first_label_puts_a_correction_beyond_the_horizon() -> None:
    """What was superseded counts again: the state is what it would be had the first label come first."""
    standing, superseded = Standing(Label(125, 0.0), 100), [Label(100, 1.0), Label(110, None)]
    earlier = Label(80, 0.0)
    assert reaches_back(standing, [earlier], HORIZONS)
    assert rule(standing, earlier, superseded, HORIZONS).standing == Standing(Label(110, None), 80)
    just_within = Label(95, 0.0)
    assert not reaches_back(standing, [just_within], HORIZONS)
    assert rule(standing, just_within, [], HORIZONS).standing == Standing(Label(125, 0.0), 95)


def settle(order: tuple[Label, ...]) -> Standing:
    standing, superseded = None, list[Label]()
    for label in order:
        back = reaches_back(standing, [label], HORIZONS)
        ruling = rule(standing, label, superseded if back else [], HORIZONS)
        standing = ruling.standing
        if ruling.superseded is not None:
            superseded.append(ruling.superseded)
    assert standing is not None
    return standing


LABELS = st.builds(
    Label, st.sampled_from([0, 1, 29, 30, 31, 59, 60, 61, 90]), st.sampled_from([0.0, 1.0, None, "a"])
)


@given(st.lists(LABELS, min_size=1, max_size=5))
def test_what_stands_does_not_depend_on_the_order_of_arrival(arrived: list[Label]) -> None:
    first = min(label.observed_at for label in arrived)
    winner = max((label for label in arrived if label.observed_at <= first + 30), key=Label.rank)
    assert {settle(order) for order in permutations(arrived)} == {Standing(winner, first)}


def test_sums_go_on_with_the_horizons_they_were_begun_with() -> None:
    begun = Horizons.of(90 * DAY, 30 * DAY)
    assert why_not_these(begun, Horizons.of(90 * DAY, 30 * DAY)) is None
    reason = why_not_these(begun, Horizons.of(91 * DAY, 30 * DAY))
    assert reason is not None
    assert "label horizon of 7776000 s and a correction horizon of 2592000 s" in reason
    assert why_not_these(begun, Horizons.of(90 * DAY, 29 * DAY)) is not None


def test_raw_rows_are_kept_at_least_as_long_as_both_horizons() -> None:
    MetricsSettings(label_horizon="90d", correction_horizon="30d", raw_retention="120d")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="at least label_horizon and correction_horizon"):
        MetricsSettings(label_horizon="90d", correction_horizon="30d", raw_retention="119d")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moments", "until"),
    [
        ([99], None),
        ([100], 100),
        ([99, 98], None),
        ([99, 100], 100),
        ([0, 700], 700),
        ([None], 1_000),
        ([0, None], 1_000),
    ],
)
def test_an_entitys_rows_go_together_once_the_youngest_is_old(
    moments: list[int | None], until: int | None
) -> None:
    assert kept_until(moments, 100, 1_000) == until


@given(st.integers(0, 10**10), st.sampled_from([1, 5, 12, 60]))
def test_no_window_reads_narrow_buckets_that_may_go(as_of: int, narrowest: int) -> None:
    as_of = as_of // narrowest * narrowest
    before = narrow_before(as_of)
    assert before % DAY_SECONDS == 0
    for later in (as_of, as_of + 86_400 - narrowest, as_of + 40 * DAY_SECONDS):
        for window in ("1h", "1d", "7d", "30d", "all"):
            for tile in window_tiles(window, later, widths(narrowest)):
                assert tile.width == DAY_SECONDS or tile.since >= before


def test_raw_rows_wait_for_the_narrow_buckets_of_their_time_to_go() -> None:
    as_of = 400 * DAY_SECONDS + 5
    assert raw_cutoff(as_of, 180 * DAY_SECONDS * MICROSECONDS) == (220 * DAY_SECONDS + 5) * MICROSECONDS
    assert raw_cutoff(as_of, DAY_SECONDS * MICROSECONDS) == narrow_before(as_of) * MICROSECONDS
    assert narrow_before(as_of) == 369 * DAY_SECONDS
