"""What one evaluated prediction adds to the sums, as integers.

Integer sums do not depend on order, so any batching, partitioning or replay gives the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SQUARED_ERROR_UNIT = 1e-12
LOG_LOSS_UNIT = 1e-9
PROBABILITY_UNIT = 1e-9
PROBABILITY_CLIP = 1e-15
"""Log loss takes probabilities clipped to [1e-15, 1 - 1e-15], so that no single one is infinite."""

DECISION_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class BinaryScore:
    """What a binary prediction contributes for either outcome.

    Squared error (Brier 1950) in units of 1e-12, log loss (-ln of the probability given to what happened) in
    units of 1e-9.
    """

    squared_error_if_negative: int
    squared_error_if_positive: int
    log_loss_if_negative: int
    log_loss_if_positive: int


def score(probability: float) -> BinaryScore:
    """Score a probability (0..1) of the positive outcome against both outcomes."""
    missed = 1.0 - probability
    return BinaryScore(
        squared_error_if_negative=round(probability * probability * 1e12),
        squared_error_if_positive=round(missed * missed * 1e12),
        log_loss_if_negative=log_loss_units(missed),
        log_loss_if_positive=log_loss_units(probability),
    )


def log_loss_units(given_to_outcome: float) -> int:
    """-ln of the probability given to what happened, in units of 1e-9.

    Clipped from below alone: what the upper clip leaves, -ln(1 - 1e-15), is none of these units.
    """
    return round(-math.log(max(given_to_outcome, PROBABILITY_CLIP)) * 1e9)


def decides_positive(probability: float, predicted: int | None) -> bool:
    """The decision that counts in accuracy: the one taken, or ``probability >= 0.5``."""
    return probability >= DECISION_THRESHOLD if predicted is None else predicted == 1
