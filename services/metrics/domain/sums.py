"""Sums of contributions: what a bucket holds, and the change that a batch makes to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import assert_never

from services.metrics.domain import histogram
from services.metrics.domain.buckets import start_of
from services.metrics.domain.histogram import BinChanges
from services.metrics.domain.joining import (
    AnyEvaluation,
    ClassEvaluation,
    ErrorEvaluation,
    Evaluation,
    StoredPrediction,
)


@dataclass(slots=True)
class Detail:
    """What multiclass and regression models sum beside the common figures.

    ``support`` and ``hits`` by class that happened; errors in units of 1e-324, their squares in 1e-648.
    """

    support: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    error: int = 0
    absolute_error: int = 0
    squared_error: int = 0

    def add(self, other: Detail) -> None:
        """Add another bucket's figures."""
        for name, count in other.support.items():
            self.support[name] += count
        for name, count in other.hits.items():
            self.hits[name] += count
        self.error += other.error
        self.absolute_error += other.absolute_error
        self.squared_error += other.squared_error

    def is_zero(self) -> bool:
        """Whether adding this would change nothing."""
        return not (
            self.error
            or self.absolute_error
            or self.squared_error
            or any(self.support.values())
            or any(self.hits.values())
        )


@dataclass(slots=True)
class Sums:
    """Additive figures of one bucket; ``histogram`` counts by bin (see :mod:`histogram`).

    ``predictions`` and ``labelled`` belong to the bucket of the prediction, the rest to that of the evaluation.
    ``detail`` is None for binary models.
    """

    predictions: int = 0
    labelled: int = 0
    evaluated: int = 0
    correct: int = 0
    positives: int = 0
    predicted_positives: int = 0
    squared_error: int = 0
    log_loss: int = 0
    histogram: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    detail: Detail | None = None

    def detailed(self) -> Detail:
        """The detail, to be added to."""
        if self.detail is None:
            self.detail = Detail()
        return self.detail

    def add(self, other: Sums) -> None:
        """Add another bucket's figures."""
        self.predictions += other.predictions
        self.labelled += other.labelled
        self.evaluated += other.evaluated
        self.correct += other.correct
        self.positives += other.positives
        self.predicted_positives += other.predicted_positives
        self.squared_error += other.squared_error
        self.log_loss += other.log_loss
        for place, count in other.histogram.items():
            self.histogram[place] += count
        if other.detail is not None:
            self.detailed().add(other.detail)

    def is_zero(self) -> bool:
        """Whether adding this would change nothing."""
        return not (
            self.predictions
            or self.labelled
            or self.evaluated
            or self.correct
            or self.positives
            or self.predicted_positives
            or self.squared_error
            or self.log_loss
            or any(self.histogram.values())
            or not (self.detail is None or self.detail.is_zero())
        )


BucketKey = tuple[int, int, int]
"""Series id, width in seconds, start in seconds since 1970."""

FIGURES = (
    *("predictions", "labelled", "evaluated", "correct", "positives", "predicted_positives"),
    *("squared_error", "log_loss"),
)
"""The figures of a bucket that are one integer each, in the order of a row's columns."""


@dataclass(frozen=True, slots=True)
class BucketRows:
    """Changes of buckets in columns; ``figures`` has one for each of ``FIGURES``, ``bins`` are by row."""

    series_ids: list[int]
    widths: list[int]
    starts: list[int]
    figures: list[list[int]]
    bins: BinChanges

    def __len__(self) -> int:
        return len(self.series_ids)

    @classmethod
    def of(cls, changes: Mapping[BucketKey, Sums]) -> BucketRows:
        """The changes of buckets, by key. Raises ``OverflowError`` for a count beyond 64 bits."""
        keys = sorted(changes)
        sums = [changes[key] for key in keys]
        bins = [(row, place, count) for row, one in enumerate(sums) for place, count in one.histogram.items()]
        return cls(
            [series_id for series_id, _, _ in keys],
            [width for _, width, _ in keys],
            [start for _, _, start in keys],
            [[getattr(one, name) for one in sums] for name in FIGURES],
            BinChanges.of(bins),
        )

    @classmethod
    def together(cls, parts: Sequence[BucketRows]) -> BucketRows:
        """The rows of all parts, one behind the other."""
        starts = list(accumulate(map(len, parts), initial=0))
        bins = [part.bins.moved(start) for part, start in zip(parts, starts, strict=False)]
        return cls(
            [one for part in parts for one in part.series_ids],
            [one for part in parts for one in part.widths],
            [one for part in parts for one in part.starts],
            [[one for part in parts for one in part.figures[place]] for place in range(len(FIGURES))],
            BinChanges.together(bins),
        )


class Changes:
    """The changes of one batch, by series and bucket of the narrowest width."""

    def __init__(self, narrowest: int) -> None:
        self._narrowest = narrowest
        self._sums: dict[tuple[int, int], Sums] = defaultdict(Sums)

    def predicted(self, series_ids: tuple[int, ...], prediction: StoredPrediction) -> None:
        """Count a prediction that was not known before."""
        start = start_of(prediction.predicted_at, self._narrowest)
        for series_id in series_ids:
            self._sums[series_id, start].predictions += 1

    def evaluated(
        self, series_ids: tuple[int, ...], prediction: StoredPrediction, evaluation: AnyEvaluation, sign: int
    ) -> None:
        """Put an evaluation in (``sign`` 1) or take it out, by its stored integers (``sign`` -1)."""
        if isinstance(evaluation, Evaluation):
            entries = histogram.entries(
                prediction.probability, positive=evaluation.positive, delay_seconds=evaluation.delay_seconds
            )
        else:
            entries = (histogram.delay_entry(evaluation.delay_seconds),)
        predicted = start_of(prediction.predicted_at, self._narrowest)
        start = start_of(evaluation.evaluated_at, self._narrowest)
        for series_id in series_ids:
            self._sums[series_id, predicted].labelled += sign
            sums = self._sums[series_id, start]
            sums.evaluated += sign
            if isinstance(evaluation, Evaluation):
                sums.correct += sign * evaluation.correct
                sums.positives += sign * evaluation.positive
                sums.predicted_positives += sign * prediction.predicted_positive
                sums.squared_error += sign * evaluation.squared_error
                sums.log_loss += sign * evaluation.log_loss
            else:
                _add_detailed(sums, evaluation, sign)
            for place, amount in entries:
                sums.histogram[place] += sign * amount

    def by_bucket(self, kept: tuple[int, ...]) -> Mapping[BucketKey, Sums]:
        """The changes at every width that is kept; those that cancel out are left out."""
        result: dict[BucketKey, Sums] = {}
        for (series_id, start), sums in self._sums.items():
            for width in kept:
                key = (series_id, width, start // width * width)
                if key not in result:
                    result[key] = Sums()
                result[key].add(sums)
        return {key: sums for key, sums in result.items() if not sums.is_zero()}


def _add_detailed(sums: Sums, evaluation: ClassEvaluation | ErrorEvaluation, sign: int) -> None:
    detail = sums.detailed()
    match evaluation:
        case ClassEvaluation():
            sums.correct += sign * evaluation.correct
            sums.squared_error += sign * evaluation.squared_error
            sums.log_loss += sign * evaluation.log_loss
            detail.support[evaluation.outcome] += sign
            detail.hits[evaluation.outcome] += sign * evaluation.correct
        case ErrorEvaluation():
            detail.error += sign * evaluation.error
            detail.absolute_error += sign * abs(evaluation.error)
            detail.squared_error += sign * evaluation.error * evaluation.error
        case _:
            assert_never(evaluation)
