"""The series that a prediction counts in."""

from __future__ import annotations

import pytest

from services.metrics.joining import Declared, series_of

DECLARED: Declared = {"region": frozenset({"eu", "us"}), "tier": frozenset({"gold"})}


@pytest.mark.parametrize(
    ("names", "segments"),
    [
        ([], ["region:other", "tier:other"]),
        ([("region", "eu"), ("tier", "gold")], ["region:eu", "tier:gold"]),
        ([("region", "mars"), ("unknown", "eu")], ["region:other", "tier:other"]),
    ],
)
def test_each_declared_dimension_has_one(names: list[tuple[str, str]], segments: list[str]) -> None:
    assert [one.segment for one in series_of(1, 2, names, DECLARED)] == ["", *segments]


def test_a_prediction_counts_once_in_a_series_whatever_the_dimensions_are_named() -> None:
    """Such policies are refused; one may stand that was taken before they were."""
    declared = {"a": frozenset({"b:c"}), "a:b": frozenset({"c"})}
    found = series_of(1, 2, [("a", "b:c"), ("a:b", "c")], declared)
    assert [one.segment for one in found] == ["", "a:b:c"]
