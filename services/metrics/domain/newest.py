"""The newest label of a bucket, kept exact while labels come and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest moment that labels of a bucket were observed at, and how many of them were."""

    moment: int | None = None
    count: int = 0


def after(standing: Newest, changes: Mapping[int, int]) -> Newest | None:
    """The newest after labels came and went (``changes``: how many more or fewer, by moment).

    None when all that were known as the newest have gone: the next older moment must be looked up.
    """
    moments = [moment for moment, change in changes.items() if change > 0]
    if standing.moment is not None:
        moments.append(standing.moment)
    if not moments:
        return Newest()
    newest = max(moments)
    count = changes.get(newest, 0) + (standing.count if newest == standing.moment else 0)
    return Newest(newest, count) if count else None
