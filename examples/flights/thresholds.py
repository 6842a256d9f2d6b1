"""The policy's thresholds, chosen from January and February alone.

The method:

1. The labels known on 1 March are cut into the weeks of their departure. Each week is predicted by a model that is
   trained on the other weeks, so that every prediction is about a week the model has not seen.
2. That gives, per day, the predictions, the correct ones, and the squared error. From those days 10,000 weeks
   are drawn, as the policy's window sees them: seven days each, in blocks of three consecutive days, because bad
   weather lasts (a moving-block bootstrap).
3. Breached is what fewer than 1 % of those weeks would reach: the accuracy's 1 % quantile, the Brier score's
   99 % quantile. The Brier score is of high severity beyond its 99.9 % quantile.
4. The thresholds speak of a week, so nothing is judged on much less: ``min_evaluated`` is the fewest predictions
   of any seven consecutive days of those two months, rounded down to a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from examples.flights.data import Flights, Matrix
from examples.flights.model import MODEL, fit, positive, recent_labels, rfc_3339

WINDOW_DAYS = 7
BLOCK_DAYS = 3
RESAMPLED_WEEKS = 10_000
BREACHED_SHARE = 0.01
HIGH_SHARE = 0.001
DECIMALS = 4
LEASE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Daily:
    """What held-out predictions came to, day after day: how many, how many correct, the squared error."""

    evaluated: Matrix
    correct: Matrix
    squared_error: Matrix


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers chosen, beside those that they were chosen from."""

    accuracy_below: float
    brier_above: float
    brier_high_above: float
    min_evaluated: int
    days: int
    held_out: int
    accuracy: float
    brier_score: float

    def explanation(self) -> tuple[str, ...]:
        """The method and the numbers, in words, a line each."""
        return (
            f"{self.held_out:,} flights of January and February, each predicted by a model of the other weeks:",
            f"  accuracy {self.accuracy:.4f}, Brier {self.brier_score:.4f}",
            f"{RESAMPLED_WEEKS:,} weeks drawn from those {self.days} days in blocks of {BLOCK_DAYS} days;",
            f"  breached is what fewer than {BREACHED_SHARE:.0%} of them reach ({HIGH_SHARE:.1%}: high severity):",
            f"  accuracy below {self.accuracy_below:.4f}",
            f"  Brier score above {self.brier_above:.4f}, high above {self.brier_high_above:.4f}",
            f"judged from {self.min_evaluated:,} evaluated predictions on: the fewest in any of their seven days",
        )


def choose(flights: Flights, as_of: datetime, seed: int) -> Thresholds:
    """Choose the thresholds from the labels known at ``as_of``."""
    daily = held_out_days(flights, as_of, seed)
    accuracy, brier_score = resampled_weeks(daily, np.random.default_rng(seed))
    total = daily.evaluated.sum()
    return Thresholds(
        accuracy_below=_quantile(accuracy, BREACHED_SHARE),
        brier_above=_quantile(brier_score, 1 - BREACHED_SHARE),
        brier_high_above=_quantile(brier_score, 1 - HIGH_SHARE),
        min_evaluated=int(_sums_of_week(daily.evaluated).min() // 100 * 100),
        days=len(daily.evaluated),
        held_out=int(total),
        accuracy=float(daily.correct.sum() / total),
        brier_score=float(daily.squared_error.sum() / total),
    )


def held_out_days(flights: Flights, as_of: datetime, seed: int) -> Daily:
    """Predict every week by a model of the other weeks, and sum up what came of it by day of departure."""
    rows = np.sort(recent_labels(flights, as_of))
    features, late = flights.features[rows], flights.late[rows]
    day = (
        (flights.scheduled_at[rows] - flights.scheduled_at[rows[0]].astype("datetime64[D]"))
        .astype("timedelta64[D]")
        .astype(int)
    )
    # The days left over after the last whole week belong to it: a model needs a week to be tried on.
    week = np.minimum(day // WINDOW_DAYS, max(day.max() + 1, WINDOW_DAYS) // WINDOW_DAYS - 1)
    probability = np.empty(len(rows))
    for held_out in range(week.max() + 1):
        left_out = week == held_out
        classifier = fit(features[~left_out], late[~left_out], seed)
        probability[left_out] = positive(classifier, features[left_out])
    return sums_by_day(day, probability, late)


def sums_by_day(day: NDArray[np.intp], probability: Matrix, late: Matrix) -> Daily:
    """The days' sums, days without a flight left out."""
    evaluated = np.bincount(day).astype(float)
    correct = np.bincount(day, weights=(probability >= 0.5) == late)  # noqa: PLR2004 (the decision's threshold)
    squared_error = np.bincount(day, weights=(probability - late) ** 2)
    flown = evaluated > 0
    return Daily(evaluated[flown], correct[flown], squared_error[flown])


def resampled_weeks(daily: Daily, random: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Accuracy and Brier score of weeks put together from blocks of consecutive days."""
    blocks = -(-WINDOW_DAYS // BLOCK_DAYS)
    starts = random.integers(0, len(daily.evaluated) - BLOCK_DAYS + 1, size=(RESAMPLED_WEEKS, blocks))
    days = (starts[:, :, None] + np.arange(BLOCK_DAYS)).reshape(RESAMPLED_WEEKS, -1)[:, :WINDOW_DAYS]
    evaluated = daily.evaluated[days].sum(axis=1)
    return daily.correct[days].sum(axis=1) / evaluated, daily.squared_error[days].sum(axis=1) / evaluated


def policy(chosen: Thresholds, flights: Flights, as_of: datetime) -> dict[str, object]:
    """The policy in force from ``as_of``, as it is published.

    The ``new_labels`` trigger is off: some 900 flights land a day, so that a count of labels would call for a
    retraining every night, and say nothing of whether the model is still good.
    """
    known = recent_labels(flights, as_of)
    return {
        "model": MODEL,
        "effective_at": rfc_3339(as_of - timedelta(days=1)),
        "window": f"{WINDOW_DAYS}d",
        "mode": "enforce",
        "min_evaluated": chosen.min_evaluated,
        "rules": {
            "accuracy_breach": {"below": chosen.accuracy_below},
            "brier_breach": {"above": chosen.brier_above, "high_above": chosen.brier_high_above},
        },
        "triggers": {"accuracy_breach": True, "brier_breach": True, "new_labels": None},
        "segments": {
            "carrier": sorted(set(flights.carrier[known])),
            "origin": sorted(set(flights.origin[known])),
        },
        "lease_seconds": LEASE_SECONDS,
    }


def _sums_of_week(daily: Matrix) -> Matrix:
    return np.convolve(daily, np.ones(WINDOW_DAYS), mode="valid")


def _quantile(values: Matrix, share: float) -> float:
    return round(float(np.quantile(values, share)), DECIMALS)
