"""Sums of a batch made in columns: what :class:`sums.Changes` adds up one event after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.metrics.domain import histogram
from services.metrics.domain.buckets import MICROSECONDS
from services.metrics.domain.hot.states import States, chosen, strung_together
from services.metrics.domain.sums import FIGURES, BucketRows

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Table = npt.NDArray[np.int64]

_LARGEST = 1 << 62
_DELAY_EDGES = np.array(histogram.DELAY_EDGES, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Predictions that met their labels, each put in (``sign`` 1) or taken out (-1).

    ``states`` holds both. Figures in the units of :mod:`contributions`, times in microseconds since 1970.
    """

    states: States
    sign: Integers

    @classmethod
    def of(cls, states: States, within: Mask, sign: int) -> Evaluations:
        """The evaluations of entities, where ``within`` says that the label is known and within the horizon."""
        met = chosen(states, within & states["predicted"])
        return cls(met, np.full(len(met), sign, dtype=np.int64))

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(strung_together([self.states, other.states]), np.concatenate([self.sign, other.sign]))


def differing(before: States, after: States) -> Mask:
    """Which entities' evaluations a change of the label makes others: of its outcome, or of its moment.

    A label that moves but stays before the prediction leaves the evaluation as it is.
    """
    at_before = np.maximum(before["predicted_at"], before["observed_at"])
    at_after = np.maximum(after["predicted_at"], after["observed_at"])
    different: Mask = (at_before != at_after) | (before["positive"] != after["positive"])
    return different


def sum_up(
    new: States,
    evaluations: Evaluations,
    series_of: Mapping[int, Sequence[int]],
    widths: Sequence[int],
) -> Iterator[BucketRows]:
    """What new predictions and evaluations add to the buckets of their series, width by width.

    ``series_of`` gives the series ids of each combination. Changes that cancel out are left out.
    """
    names = sorted({one for ids in series_of.values() for one in ids})
    numbers = {one: number for number, one in enumerate(names)}
    spread = _Spread({key: [numbers[one] for one in ids] for key, ids in series_of.items()})
    narrowest = widths[0]
    rows, bins = _narrow_rows(new, evaluations, spread, narrowest)
    yield _bucket_rows(names, narrowest, rows, bins)
    for width in widths[1:]:
        rows = _grouped(rows[0], rows[1] // width * width, rows[2])
        bins = _grouped_bins(bins[0], bins[1] // width * width, bins[2], bins[3])
        yield _bucket_rows(names, width, rows, bins)


class _Spread:
    """From places of combinations to one row for each of its series."""

    def __init__(self, series_of: Mapping[int, Sequence[int]]) -> None:
        size = max(series_of, default=-1) + 1
        counts = np.zeros(size, dtype=np.int64)
        for combination, numbers in series_of.items():
            counts[combination] = len(numbers)
        self._counts = counts
        self._starts = np.cumsum(counts) - counts
        flat = [number for combination in sorted(series_of) for number in series_of[combination]]
        self._numbers = np.array(flat, dtype=np.int64)

    def __call__(self, combinations: Integers) -> tuple[Integers, Integers]:
        """Series of each row, and which row it is of."""
        counts = self._counts[combinations]
        rows = np.repeat(np.arange(len(combinations)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._numbers[self._starts[combinations][rows] + within], rows


Rows = tuple[Integers, Integers, Table]
"""Series number, bucket's start, and figures, of each bucket."""
Bins = tuple[Integers, Integers, Integers, Integers]
"""Series number, bucket's start, bin and amount, each place of a histogram once."""


def _narrow_rows(new: States, evaluations: Evaluations, spread: _Spread, width: int) -> tuple[Rows, Bins]:
    states, sign = evaluations.states, evaluations.sign
    at = np.maximum(states["predicted_at"], states["observed_at"])
    positive = states["positive"]
    correct = states["predicted_positive"] == positive
    squared = np.where(positive, states["squared_error_if_positive"], states["squared_error_if_negative"])
    log_loss = np.where(positive, states["log_loss_if_positive"], states["log_loss_if_negative"])
    evaluated = np.stack(
        [
            sign,
            sign * correct,
            sign * positive,
            sign * states["predicted_positive"],
            sign * squared,
            sign * log_loss,
        ],
        axis=1,
    )
    series, row = spread(states["combination"])
    start = _start(at, width)[row]
    new_series, new_row = spread(new["combination"])
    table = np.zeros((len(new_series) + 2 * len(series), len(FIGURES)), dtype=np.int64)
    table[: len(new_series), 0] = 1
    table[len(new_series) : len(new_series) + len(series), 1] = sign[row]
    table[len(new_series) + len(series) :, 2:] = evaluated[row]
    rows = _grouped(
        np.concatenate([new_series, series, series]),
        np.concatenate(
            [_start(new["predicted_at"], width)[new_row], _start(states["predicted_at"], width)[row], start]
        ),
        table,
    )
    place, amount = _entries(states, sign, at)
    bins = _grouped_bins(
        np.tile(series, 3), np.tile(start, 3), place[:, row].reshape(-1), amount[:, row].reshape(-1)
    )
    return rows, bins


def _entries(states: States, sign: Integers, at: Integers) -> tuple[Table, Table]:
    """The three entries of each evaluation in the histogram: bins and amounts, shape (3, n)."""
    probability = states["probability"]
    bin_ = np.minimum((probability * histogram.PROBABILITY_BINS).astype(np.int64), histogram.PROBABILITY_BINS - 1)
    delay = (at - states["predicted_at"]) / 1e6
    places = np.stack(
        [
            2 * bin_ + states["positive"],
            histogram.SUMS_START + bin_,
            histogram.DELAYS_START + np.searchsorted(_DELAY_EDGES, delay, side="right"),
        ]
    )
    # np.rint rounds halves to even, as round does.
    units = np.rint(probability * 1e9).astype(np.int64)
    return places, np.stack([sign, sign * units, sign])


def _start(moments: Integers, width: int) -> Integers:
    started: Integers = moments // MICROSECONDS // width * width
    return started


def _begins(*keys: Integers) -> tuple[Integers, Integers]:
    """The order of keys, the last one first in rank, and where in it each begins."""
    if not len(keys[0]):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lowest = [int(key.min()) for key in keys]
    spans = [int(key.max()) - low + 1 for key, low in zip(keys, lowest, strict=True)]
    if math.prod(spans) < _LARGEST:
        # One number for all of them: sorted ten times as fast as several.
        one = np.zeros(len(keys[0]), dtype=np.int64)
        for key, low, span in reversed(list(zip(keys, lowest, spans, strict=True))):
            one = one * span + (key - low)
        order = np.argsort(one)
        keys = (one,)
    else:
        order = np.lexsort(keys)
    changes = np.ones(len(order), dtype=np.bool_)
    changes[1:] = np.logical_or.reduce([key[order][1:] != key[order][:-1] for key in keys])
    return order, np.flatnonzero(changes)


def _grouped(series: Integers, start: Integers, table: Table) -> Rows:
    order, begins = _begins(start, series)
    if not len(order):
        return series, start, table
    return series[order][begins], start[order][begins], np.add.reduceat(table[order], begins, axis=0)


def _grouped_bins(series: Integers, start: Integers, place: Integers, amount: Integers) -> Bins:
    order, begins = _begins(place, start, series)
    if not len(order):
        return series, start, place, amount
    kept = order[begins]
    return series[kept], start[kept], place[kept], np.add.reduceat(amount[order], begins)


def _bucket_rows(names: Sequence[int], width: int, rows: Rows, bins: Bins) -> BucketRows:
    row = np.searchsorted(_as_one(rows[0], rows[1]), _as_one(bins[0], bins[1]))
    told = bins[3] != 0
    kept: Mask = np.any(rows[2], axis=1)
    kept[row[told]] = True
    places = np.cumsum(kept) - 1
    return BucketRows(
        series_ids=[names[number] for number in rows[0][kept].tolist()],
        widths=[width] * int(kept.sum()),
        starts=rows[1][kept].tolist(),
        figures=[column.tolist() for column in rows[2][kept].T],
        bins=histogram.BinChanges(places[row[told]], bins[2][told], bins[3][told]),
    )


def _as_one(series: Integers, start: Integers) -> Integers:
    """A number for both, in their order; no start (seconds since 1970) of a four-digit year reaches 2^38."""
    return series << 40 | start + (1 << 39)
