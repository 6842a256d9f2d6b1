"""Boundaries of the snapshot interval, on the wall and in event time, in seconds since 1970 unless said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.metrics.domain.buckets import MICROSECONDS

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class WallCut:
    """The boundary to cut, and how many were let pass since the last one."""

    as_of: int
    missed: int


def wall_cut(now_microseconds: int, interval: int, last_as_of: int | None) -> WallCut | None:
    """The newest boundary that has passed, unless it was cut already; older ones are not made up."""
    as_of = now_microseconds // MICROSECONDS // interval * interval
    if last_as_of is None:
        return WallCut(as_of, 0)
    if as_of <= last_as_of:
        return None
    return WallCut(as_of, (as_of - last_as_of) // interval - 1)


def first_boundary(reached: Iterable[int], interval: int) -> int:
    """The event clock's first boundary: the first one after the earliest record (microseconds since 1970)."""
    return (min(reached) // MICROSECONDS // interval + 1) * interval


def first_to_hold(times: Iterable[int | None], boundary: int | None) -> int | None:
    """Which of a partition's records it must wait at: the first whose event time has reached the boundary.

    ``times`` are event times in microseconds since 1970, None for records that have none; while the clock has
    not started (``boundary`` None) the first record with a time holds. Returns its index, or None.
    """
    for index, moment in enumerate(times):
        if moment is not None and (boundary is None or moment >= boundary * MICROSECONDS):
            return index
    return None


def holder(places: Iterable[Place], reached: Mapping[Place, int], boundary: int | None) -> Place | None:
    """The partition that keeps the clock from its next boundary; None when all have reached it."""
    lagging = [
        (reached.get(place, -(1 << 62)), place)
        for place in places
        if place not in reached or (boundary is not None and reached[place] < boundary * MICROSECONDS)
    ]
    return min(lagging)[1] if lagging else None
