"""From sums to figures: the one place where anything is divided."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul

from services.metrics.domain import histogram
from services.metrics.domain.histogram import DELAY_EDGES, PROBABILITY_BINS, Vector

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""

RELIABILITY_BINS = 10


@dataclass(frozen=True, slots=True)
class DetailTotals:
    """What multiclass and regression models sum beside the common figures.

    Errors in units of 1e-324, their squares in 1e-648; ``classes``: support and hits by class that happened.
    """

    error: int = 0
    absolute_error: int = 0
    squared_error: int = 0
    classes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def plus(self, other: DetailTotals) -> DetailTotals:
        """The sums of two sets of predictions together."""
        classes = dict(self.classes)
        for name, (support, hits) in other.classes.items():
            happened, decided = classes.get(name, (0, 0))
            classes[name] = (happened + support, decided + hits)
        return DetailTotals(
            self.error + other.error,
            self.absolute_error + other.absolute_error,
            self.squared_error + other.squared_error,
            classes,
        )


NO_DETAIL = DetailTotals()


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a window. ``vector`` as in :mod:`histogram`."""

    predictions: int
    labelled: int
    evaluated: int
    correct: int
    positives: int
    predicted_positives: int
    squared_error: int
    log_loss: int
    vector: Vector
    detail: DetailTotals = NO_DETAIL

    def plus(self, other: Totals) -> Totals:
        """The sums of two sets of predictions together."""
        return Totals(
            self.predictions + other.predictions,
            self.labelled + other.labelled,
            self.evaluated + other.evaluated,
            self.correct + other.correct,
            self.positives + other.positives,
            self.predicted_positives + other.predicted_positives,
            self.squared_error + other.squared_error,
            self.log_loss + other.log_loss,
            histogram.plus(self.vector, other.vector),
            self.detail if other.detail is NO_DETAIL else self.detail.plus(other.detail),
        )


NOTHING = Totals(0, 0, 0, 0, 0, 0, 0, 0, histogram.total(()))


@dataclass(frozen=True, slots=True)
class ReliabilityRow:
    """Predictions with ``lower`` <= probability < ``upper``: how many, their mean, and how often it happened."""

    lower: float
    upper: float
    count: int
    mean_probability: float
    positive_rate: float

    def known(self) -> dict[str, float]:
        """The fields by name."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "count": self.count,
            "mean_probability": self.mean_probability,
            "positive_rate": self.positive_rate,
        }


def ratio(numerator: int, denominator: int) -> float | None:
    """A share, or None where there is nothing to share."""
    return numerator / denominator if denominator else None


def mean_squared_error(totals: Totals) -> float | None:
    """Brier score: the mean squared error of probabilities (Brier 1950), of many classes summed over them."""
    return totals.squared_error / (totals.evaluated * 10**12) if totals.evaluated else None


def mean_log_loss(totals: Totals) -> float | None:
    """Mean of -ln(probability given to what happened)."""
    return totals.log_loss / (totals.evaluated * 10**9) if totals.evaluated else None


def wilson_interval(successes: int, trials: int) -> tuple[float, float] | None:
    """The 95 % score interval of a proportion (Wilson 1927), within [0, 1]; None without trials."""
    if trials == 0:
        return None
    share = successes / trials
    z2 = Z_95 * Z_95
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def auc(vector: Vector) -> float | None:
    """Area under the ROC curve from the 50 bins, ties within a bin counting half (Hanley and McNeil 1982)."""
    negatives, positives = histogram.negatives(vector), histogram.positives(vector)
    pairs = sum(negatives) * sum(positives)
    if pairs == 0:
        return None
    # A pair counts twice where the negative lies in a lower bin, once where it lies in the same one.
    through: int = sum(map(mul, positives, accumulate(negatives)))
    same: int = sum(map(mul, positives, negatives))
    return (2 * through - same) / (2 * pairs)


def expected_calibration_error(rows: Sequence[ReliabilityRow]) -> float | None:
    """ECE over the rows of the reliability table, weighted by their counts (Naeini et al. 2015)."""
    count = sum(row.count for row in rows)
    if count == 0:
        return None
    return math.fsum(row.count * abs(row.positive_rate - row.mean_probability) for row in rows) / count


def reliability(vector: Vector) -> tuple[ReliabilityRow, ...]:
    """The reliability table: 10 bins of width 0.1, those without predictions left out."""
    negatives, positives = histogram.negatives(vector), histogram.positives(vector)
    if not any(negatives) and not any(positives):
        return ()
    sums = histogram.probability_sums(vector)
    merged = PROBABILITY_BINS // RELIABILITY_BINS
    rows = []
    for place, start in enumerate(range(0, PROBABILITY_BINS, merged)):
        happened = sum(positives[start : start + merged])
        count = happened + sum(negatives[start : start + merged])
        if count:
            mean = sum(sums[start : start + merged]) / (count * 10**9)
            rows.append(ReliabilityRow(place / 10, (place + 1) / 10, count, mean, happened / count))
    return tuple(rows)


def delay_quantile(vector: Vector, share: float) -> float | None:
    """A quantile of the label delay in seconds, linear within its bin; the open last bin says its lower edge."""
    counts = histogram.delays(vector)
    reached = list(accumulate(counts))
    wanted = share * reached[-1]
    if wanted == 0:
        return None
    place = bisect_left(reached, wanted)
    if place >= len(DELAY_EDGES):
        return float(DELAY_EDGES[-1])
    lower = DELAY_EDGES[place - 1] if place else 0
    before = reached[place] - counts[place]
    return lower + (DELAY_EDGES[place] - lower) * (wanted - before) / counts[place]
