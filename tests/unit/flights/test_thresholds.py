import json
from datetime import UTC, datetime

import numpy as np
import pytest

from examples.flights import thresholds
from examples.flights.data import Flights, to_numpy
from examples.flights.thresholds import Daily, Thresholds
from shared.contracts.models import Policy

MARCH = datetime(2013, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def chosen(flights: Flights) -> Thresholds:
    return thresholds.choose(flights, MARCH, seed=1)


def test_days_are_summed_up() -> None:
    daily = thresholds.sums_by_day(
        np.array([0, 0, 0, 2]), np.array([0.5, 0.2, 0.4, 0.9]), np.array([1.0, 0.0, 1.0, 0.0])
    )
    assert daily.evaluated.tolist() == [3, 1]
    assert daily.correct.tolist() == [2, 0]
    assert daily.squared_error == pytest.approx([0.25 + 0.04 + 0.36, 0.81])


def test_weeks_are_made_of_seven_days() -> None:
    # Day n has 10**n of everything but correct predictions, so that a week's sum tells its days.
    powers = 10.0 ** np.arange(10)
    _, brier = thresholds.resampled_weeks(Daily(np.ones(10), np.zeros(10), powers), np.random.default_rng(0))
    digits = f"{round(float(brier[0] * 7)):d}"
    assert sum(int(digit) for digit in digits) == 7
    assert len(brier) == thresholds.RESAMPLED_WEEKS


def test_constant_days_leave_no_room() -> None:
    same = Daily(np.full(20, 100.0), np.full(20, 80.0), np.full(20, 15.0))
    accuracy, brier = thresholds.resampled_weeks(same, np.random.default_rng(0))
    assert set(accuracy) == {0.8}
    assert set(np.round(brier, 12)) == {0.15}


def test_thresholds_lie_beyond_the_ordinary(chosen: Thresholds) -> None:
    assert chosen.accuracy_below < chosen.accuracy
    assert chosen.brier_score < chosen.brier_above < chosen.brier_high_above
    assert chosen.min_evaluated % 100 == 0
    assert chosen.days == 59


def test_thresholds_know_nothing_of_what_came_later(chosen: Thresholds, flights: Flights) -> None:
    known = flights.landed_at < to_numpy(MARCH)
    blind = Flights(
        entity_id=flights.entity_id,
        carrier=flights.carrier,
        origin=flights.origin,
        scheduled_at=flights.scheduled_at,
        landed_at=np.where(known, flights.landed_at, np.datetime64("NaT")),
        late=np.where(known, flights.late, np.nan),
        weather_at=flights.weather_at,
        features=np.where(known[:, None], flights.features, np.nan),
    )
    assert thresholds.choose(blind, MARCH, seed=1) == chosen


def test_the_policy_is_what_the_contract_asks_for(chosen: Thresholds, flights: Flights) -> None:
    policy = Policy.model_validate_json(json.dumps(thresholds.policy(chosen, flights, MARCH)))
    assert policy.mode == "enforce"
    assert policy.window == "7d"
    assert policy.effective_at is not None
    assert policy.effective_at < MARCH
    assert policy.rules.accuracy_breach is not None
    assert policy.rules.accuracy_breach.below == chosen.accuracy_below
    assert policy.rules.brier_breach is not None
    assert policy.rules.brier_breach.high_above == chosen.brier_high_above
    assert policy.rules.data_stale is not None
    assert policy.triggers.new_labels is None
    assert policy.min_evaluated == chosen.min_evaluated
    assert policy.segments["origin"] == ["EWR", "JFK", "LGA"]
    assert len(policy.segments["carrier"]) == 16


def test_the_explanation_tells_the_numbers(chosen: Thresholds) -> None:
    words = " ".join(chosen.explanation())
    for number in (chosen.accuracy_below, chosen.brier_above, chosen.brier_high_above):
        assert f"{number:.4f}" in words
    assert f"{chosen.min_evaluated:,}" in words
