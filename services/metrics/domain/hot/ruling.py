"""Labels judged in columns: what :func:`horizons.rule` says of one label, for many of many entities at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from services.metrics.domain.horizons import LabelVerdict
from services.metrics.domain.hot.keys import Places
from services.metrics.domain.hot.states import States, chosen

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

VERDICTS: Final[tuple[LabelVerdict, ...]] = get_args(LabelVerdict)
_FIRST, _CORRECTED, _DUPLICATE, _STALE, _TOO_LATE = (
    VERDICTS.index(verdict) for verdict in ("first", "corrected", "duplicate", "stale", "too_late")
)
MOST_LABELS = 8
"""Labels of one entity in a batch; of one that has more every event is judged by itself."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """Labels in the order of their arrival: whose (a place among the states), what, and when."""

    entity: Places
    observed_at: Integers
    positive: Mask

    def __len__(self) -> int:
        return len(self.entity)


@dataclass(frozen=True, slots=True)
class Ruled:
    """What the labels did: a verdict each (its number in ``VERDICTS``), and what is to be remembered of them.

    ``superseded`` are labels that stood or were stale, of entities by place. ``difficult`` are the places of
    entities that must be judged by themselves: nothing that is said of them here counts.
    """

    verdicts: npt.NDArray[np.int8]
    superseded: Arrived
    difficult: Places


def rule_all(states: States, arrived: Arrived, correction_horizon: int) -> Ruled:
    """Judge labels one after the other and change ``states`` accordingly; the horizon in microseconds."""
    verdicts = np.zeros(len(arrived), dtype=np.int8)
    turns = _turns(arrived.entity)
    superseded: list[tuple[Places, Integers, Mask]] = []
    difficult = [np.unique(arrived.entity[turns >= MOST_LABELS])]
    for turn in range(min(int(turns.max(initial=-1)) + 1, MOST_LABELS)):
        now = np.flatnonzero(turns == turn)
        entity, observed_at, positive = arrived.entity[now], arrived.observed_at[now], arrived.positive[now]
        stands = chosen(states, entity)
        stood_at, stood = stands["observed_at"], stands["positive"]
        unknown = ~stands["labelled"]
        first_observed_at = np.where(unknown, observed_at, np.minimum(stands["first_observed_at"], observed_at))
        too_late = ~unknown & (observed_at > stands["first_observed_at"] + correction_horizon)
        # One so early that the standing label no longer is its correction: superseded ones decide.
        difficult.append(entity[~unknown & ~too_late & (stood_at > first_observed_at + correction_horizon)])
        same = ~unknown & (observed_at == stood_at) & (positive == stood)
        greater = (observed_at > stood_at) | ((observed_at == stood_at) & positive & ~stood)
        corrected = ~unknown & ~too_late & ~same & greater
        stale = ~unknown & ~too_late & ~same & ~greater
        verdicts[now] = np.select(
            [unknown, too_late, same, corrected], [_FIRST, _TOO_LATE, _DUPLICATE, _CORRECTED], _STALE
        )
        superseded.append((entity[corrected], stood_at[corrected], stood[corrected]))
        superseded.append((entity[stale], observed_at[stale], positive[stale]))
        _stand(states, entity, unknown | corrected, observed_at, positive)
        moved = unknown | corrected | stale
        states["first_observed_at"][entity[moved]] = first_observed_at[moved]
    places = np.unique(np.concatenate(difficult))
    return Ruled(verdicts, _without(superseded, places), places)


def _stand(states: States, entity: Places, wins: Mask, observed_at: Integers, positive: Mask) -> None:
    winners = entity[wins]
    states["labelled"][winners] = True
    states["observed_at"][winners] = observed_at[wins]
    states["positive"][winners] = positive[wins]


def _without(superseded: list[tuple[Places, Integers, Mask]], difficult: Places) -> Arrived:
    columns = zip(*superseded, strict=True) if superseded else ((), (), ())
    entity, observed_at, positive = (
        np.concatenate([*column, np.empty(0, dtype)])
        for column, dtype in zip(columns, (np.int64, np.int64, np.bool_), strict=True)
    )
    kept = ~np.isin(entity, difficult)
    return Arrived(entity[kept], observed_at[kept], positive[kept])


def counts(verdicts: npt.NDArray[np.int8]) -> Mapping[LabelVerdict, int]:
    """How many labels had each verdict; those that none had are left out."""
    found = np.bincount(verdicts, minlength=len(VERDICTS)).tolist()
    return {verdict: count for verdict, count in zip(VERDICTS, found, strict=True) if count}


def _turns(entity: Places) -> Places:
    """For each label how many of its entity came before it."""
    order = np.argsort(entity, kind="stable")
    ordered = entity[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[begins, len(ordered)])
    turns = np.empty(len(entity), dtype=np.int64)
    turns[order] = np.arange(len(entity)) - np.repeat(begins, sizes)
    return turns
