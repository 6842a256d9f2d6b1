"""Boundaries of the snapshot interval, on the wall and in event time, in seconds since 1970 unless said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from services.metrics.domain.buckets import MICROSECONDS

Place = tuple[str, int]
ClockName = Literal["wall", "event"]

_NOT_STARTED = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Gate:
    """The event clock's next boundary; None while the clock has not started: then every record waits."""

    boundary: int | None

    @property
    def tag(self) -> int:
        """What a held record waits for: a later boundary than this."""
        return _NOT_STARTED if self.boundary is None else self.boundary

    def holds(self, occurred_at: int) -> bool:
        """Whether a record of this event time (microseconds since 1970) waits for the boundary to be cut."""
        return self.boundary is None or occurred_at >= self.boundary * MICROSECONDS


def newest_boundary(now_microseconds: int, interval: int) -> int:
    """The newest boundary of the wall clock that has passed, in seconds since 1970; older ones are not made up."""
    return now_microseconds // MICROSECONDS // interval * interval


def missed_boundaries(as_of: int, interval: int, last_as_of: int | None) -> int:
    """How many boundaries were let pass between the last cut and this one.

    The last may have been cut on another interval, so it need not be a boundary of this one.
    """
    return 0 if last_as_of is None else as_of // interval - last_as_of // interval - 1


def first_boundary(reached: Iterable[int], interval: int) -> int:
    """The event clock's first boundary: the first one after the earliest record (microseconds since 1970)."""
    return (min(reached) // MICROSECONDS // interval + 1) * interval


def holder(places: Iterable[Place], reached: Mapping[Place, int], boundary: int | None) -> Place | None:
    """The partition that keeps the clock from its next boundary; None when all have reached it."""
    lagging = [
        (reached.get(place, _NOT_STARTED), place)
        for place in places
        if place not in reached or (boundary is not None and reached[place] < boundary * MICROSECONDS)
    ]
    return min(lagging)[1] if lagging else None


def why_not_this_clock(begun_with: tuple[str, int], clock: ClockName, bucket_seconds: int) -> str | None:
    """Why a database begun with another clock, or other buckets, cannot go on with these; None if it can.

    Records that were read past a boundary cannot be held any more, and sums of wider buckets not be split.
    """
    begun_clock, begun_seconds = begun_with
    if begun_clock != clock:
        return f"this database was begun with the {begun_clock} clock; the {clock} clock needs a new one"
    if begun_seconds != bucket_seconds:
        return (
            f"this database was begun with buckets of {begun_seconds} s; this snapshot interval needs "
            f"{bucket_seconds} s and so a new database"
        )
    return None
