"""How long a prediction waits for its label, and how long a label may be corrected.

Both compare event times of what belongs together, never the time of receipt or the host's clock: so they say the
same of a set of events in whatever order it came. Times are in microseconds since 1970, horizons in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from services.metrics.domain.joining import Label, judge_label

LabelVerdict = Literal["first", "corrected", "duplicate", "stale", "too_late"]
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Horizons:
    """How far an entity's first label may lie from a prediction, and how long after it another still counts."""

    label: int
    correction: int

    @classmethod
    def of(cls, label: timedelta, correction: timedelta) -> Horizons:
        """From durations."""
        return cls(label // _MICROSECOND, correction // _MICROSECOND)


DEFAULT_HORIZONS = Horizons.of(timedelta(days=90), timedelta(days=30))


@dataclass(frozen=True, slots=True)
class Standing:
    """The label that counts for an entity, and when the first of all its labels was observed."""

    label: Label
    first_observed_at: int

    def label_for(self, predicted_at: int, horizons: Horizons) -> Label | None:
        """The label, as far as a prediction made at ``predicted_at`` is concerned.

        None where it waited in vain: the first label lies further than the label horizon behind it, or before it.
        """
        within = abs(self.first_observed_at - predicted_at) <= horizons.label
        return self.label if within else None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an arriving label did.

    ``standing`` counts from now on. ``superseded`` is the label to be remembered, since it would count again if an
    earlier first label came.
    """

    verdict: LabelVerdict
    standing: Standing
    superseded: Label | None = None


def reaches_back(standing: Standing | None, arrived: Iterable[Label], horizons: Horizons) -> bool:
    """Whether a label so early is among the arrived that the standing one no longer counts as its correction.

    Then the superseded labels decide what counts, and :func:`rule` must be given them.
    """
    earliest = min((label.observed_at for label in arrived), default=None)
    return (
        standing is not None
        and earliest is not None
        and standing.label.observed_at > earliest + horizons.correction
    )


def rule(standing: Standing | None, arrived: Label, superseded: Iterable[Label], horizons: Horizons) -> Ruling:
    """Judge an arriving label of an entity.

    Of all labels of an entity those count that were observed within the correction horizon after its first; the
    greatest of them stands. A label beyond can never count again, since the first only ever moves back in time.
    ``superseded`` are the labels that stood or were stale before, at least where :func:`reaches_back`.
    """
    if standing is None:
        return Ruling("first", Standing(arrived, arrived.observed_at))
    if arrived.observed_at > standing.first_observed_at + horizons.correction:
        return Ruling("too_late", standing)
    first = min(standing.first_observed_at, arrived.observed_at)
    if standing.label.observed_at > first + horizons.correction:
        counting = [label for label in (*superseded, arrived) if label.observed_at <= first + horizons.correction]
        winner = max(counting, key=Label.rank)
        return Ruling("corrected", Standing(winner, first), arrived if arrived != winner else None)
    verdict = judge_label(standing.label, arrived)
    match verdict:
        case "corrected":
            return Ruling(verdict, Standing(arrived, first), standing.label)
        case "stale":
            return Ruling(verdict, Standing(standing.label, first), arrived)
        case _:
            return Ruling(verdict, standing)


def why_not_these(begun_with: Horizons, given: Horizons) -> str | None:
    """Why sums begun with some horizons cannot go on with others; None if they can.

    What a correction takes out is computed again from the raw rows: under other horizons it would be another sum.
    """
    if begun_with == given:
        return None
    return (
        f"this database was begun with a label horizon of {_seconds(begun_with.label)} s and a correction horizon "
        f"of {_seconds(begun_with.correction)} s; others need a new database"
    )


def _seconds(horizon: int) -> int:
    return horizon // 1_000_000
