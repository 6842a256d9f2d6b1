"""What is wrong with stored sums: how they differ from what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from services.metrics.domain import histogram, multiclass
from services.metrics.domain.sums import Detail, Sums

SCALARS = tuple(field.name for field in fields(Sums) if field.name not in ("histogram", "detail"))
"""The figures of a bucket that are one integer each."""

DETAIL_SCALARS = ("error", "absolute_error", "squared_error")
"""Those of what it has in detail."""


def missing(expected: Sums, stored: Sums) -> Sums:
    """What must be added to the stored sums; zero where they are right."""
    change = Sums(**{name: getattr(expected, name) - getattr(stored, name) for name in SCALARS})
    for place in expected.histogram.keys() | stored.histogram.keys():
        amount = expected.histogram.get(place, 0) - stored.histogram.get(place, 0)
        if amount:
            change.histogram[place] = amount
    detail = _missing_detail(expected.detail or Detail(), stored.detail or Detail())
    if not detail.is_zero():
        change.detail = detail
    return change


def _missing_detail(expected: Detail, stored: Detail) -> Detail:
    change = Detail(**{name: getattr(expected, name) - getattr(stored, name) for name in DETAIL_SCALARS})
    for name in expected.support.keys() | stored.support.keys():
        support = expected.support.get(name, 0) - stored.support.get(name, 0)
        hits = expected.hits.get(name, 0) - stored.hits.get(name, 0)
        if support or hits:
            change.support[name], change.hits[name] = support, hits
    return change


def names_of(change: Sums) -> tuple[str, ...]:
    """The figures that differ."""
    names = [name for name in SCALARS if getattr(change, name)]
    if any(change.histogram.values()):
        names.append("histogram")
    if change.detail is not None:
        names += [f"detail_{name}" for name in DETAIL_SCALARS if getattr(change.detail, name)]
        if any(change.detail.support.values()) or any(change.detail.hits.values()):
            names.append("detail_classes")
    return tuple(names)


def read_histogram(stored: bytes) -> dict[int, int] | None:
    """The counts of a stored vector; None where nothing of this service can have written it."""
    try:
        counts = histogram.decode(stored)
        return counts if histogram.encode(counts) == stored else None
    except (ValueError, OverflowError):
        return None


def read_classes(stored: bytes, names: Mapping[int, str]) -> dict[str, tuple[int, int]] | None:
    """The counts (support, hits) of stored classes by name, ``names`` by class id; None as for a histogram."""
    try:
        counts = multiclass.total_counts([stored])
        if multiclass.encode_counts(counts) != stored:
            return None
        return {names[class_id]: count for class_id, count in counts.items()}
    except (ValueError, OverflowError, KeyError):
        return None
