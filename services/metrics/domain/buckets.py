"""Buckets of time and how they tile a window."""

from __future__ import annotations

import math
from dataclasses import dataclass

MINUTE_SECONDS = 60
HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
MICROSECONDS = 1_000_000

WINDOW_SECONDS: dict[str, int | None] = {
    "1h": HOUR_SECONDS,
    "1d": DAY_SECONDS,
    "7d": 7 * DAY_SECONDS,
    "30d": 30 * DAY_SECONDS,
    "all": None,
}
"""Window lengths; None reaches back for ever."""

BEGINNING = -(1 << 62)
"""Before every bucket."""


def bucket_seconds(interval_seconds: int) -> int:
    """The narrowest bucket that every boundary of the interval falls between: 60 s, or narrower."""
    return math.gcd(MINUTE_SECONDS, interval_seconds)


def widths(narrowest: int) -> tuple[int, ...]:
    """The widths that are kept, narrowest first; each divides the next."""
    return tuple(sorted({narrowest, MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS}))


def start_of(moment: int, width: int) -> int:
    """Start (seconds since 1970) of the bucket that holds a moment (microseconds since 1970)."""
    return moment // MICROSECONDS // width * width


@dataclass(frozen=True, slots=True)
class Tile:
    """Buckets of one width that start in [since, until), in seconds since 1970."""

    width: int
    since: int
    until: int


def tiles(since: int, until: int, kept: tuple[int, ...]) -> tuple[Tile, ...]:
    """Cover [since, until) with whole buckets, as wide as they fit: narrow at the edges, days in the middle.

    Both ends must be boundaries of the narrowest width.
    """
    narrowest, *wider = kept
    if since >= until:
        return ()
    if not wider:
        return (Tile(narrowest, since, until),)
    width = wider[0]
    inner_since = since if since <= BEGINNING else -(-since // width) * width
    inner_until = until // width * width
    if inner_since >= inner_until:
        return (Tile(narrowest, since, until),)
    edges = [Tile(narrowest, since, inner_since), Tile(narrowest, inner_until, until)]
    return (*[edge for edge in edges if edge.since < edge.until], *tiles(inner_since, inner_until, kept[1:]))


def window_tiles(window: str, as_of: int, kept: tuple[int, ...]) -> tuple[Tile, ...]:
    """The tiles of [as_of - window, as_of); ``as_of`` in seconds since 1970."""
    seconds = WINDOW_SECONDS[window]
    return tiles(BEGINNING if seconds is None else as_of - seconds, as_of, kept)
