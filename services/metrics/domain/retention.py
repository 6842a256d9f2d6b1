"""What may go with age. Times in microseconds since 1970 unless said; the newest boundary is the present."""

from __future__ import annotations

from collections.abc import Iterable

from services.metrics.domain.buckets import DAY_SECONDS, MICROSECONDS, WINDOW_SECONDS

SETTLED_WIDTH = -DAY_SECONDS
"""The width by which the part of a day's bucket is stored whose raw rows are gone."""

_LONGEST_WINDOW = max(seconds for seconds in WINDOW_SECONDS.values() if seconds is not None)


def narrow_before(as_of: int) -> int:
    """The midnight before which no window that ends at ``as_of`` or later reads buckets below a day's width.

    In seconds since 1970. The longest window that is not for ever begins with narrow buckets; a day more is kept.
    """
    return (as_of - _LONGEST_WINDOW - DAY_SECONDS) // DAY_SECONDS * DAY_SECONDS


def raw_cutoff(as_of: int, retention: int) -> int:
    """Raw rows kept from before this may go; ``as_of`` in seconds, ``retention`` in microseconds.

    Never rows of a time whose narrow buckets are still there: what remains of rows that are gone is kept by day.
    """
    return min(as_of * MICROSECONDS - retention, narrow_before(as_of) * MICROSECONDS)


def kept_until(kept_from: Iterable[int | None], cutoff: int, present: int) -> int | None:
    """Whether an entity's rows go: None, all of them; else the moment that the youngest is kept from.

    Its rows go together, once no label or prediction that may legally come could still touch one of them. A row of
    which it is not told (None) is as young as can be: ``present``.
    """
    youngest = max(present if moment is None else moment for moment in kept_from)
    return None if youngest < cutoff else youngest
