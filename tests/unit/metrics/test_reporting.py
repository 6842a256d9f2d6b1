"""Of what kind a model is, and which figures are told of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.figures import NO_DETAIL, DetailTotals, Totals
from services.metrics.domain.histogram import total
from services.metrics.domain.kinds import KINDS, Kind, kind_of, names_of_version
from services.metrics.domain.regression import in_units
from services.metrics.domain.reporting import FigureKey, figures_of

FACTS = {"new_labels": 0, "data_freshness_seconds": None, "pipeline_freshness_seconds": None}


def sums(predictions: int = 1, evaluated: int = 0, detail: DetailTotals = NO_DETAIL, correct: int = 0) -> Totals:
    return Totals(predictions, evaluated, evaluated, correct, 0, 0, 0, 0, total(()), detail)


def errors(*values: float) -> DetailTotals:
    units = [in_units(value) for value in values]
    return DetailTotals(sum(units), sum(map(abs, units)), sum(unit * unit for unit in units))


def told(
    totals: dict[FigureKey, dict[Kind, Totals]], champion: str | None = None
) -> dict[FigureKey, dict[str, object]]:
    return figures_of(totals, champion, FACTS)


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ({}, "binary"),
        ({"regression": 1}, "regression"),
        ({"binary": 2, "multiclass": 3}, "multiclass"),
        ({"regression": 3, "multiclass": 3, "binary": 2}, "multiclass"),
        ({"regression": 3, "binary": 3}, "binary"),
    ],
)
def test_a_set_of_predictions_is_of_the_kind_of_most(counts: dict[Kind, int], kind: Kind) -> None:
    for order in permutations(counts.items()):
        assert kind_of(dict(order)) == kind


def test_a_version_that_says_another_thing_is_summed_apart() -> None:
    assert names_of_version("m", "1", "binary") == ("m", "1")
    assert len({names_of_version("m", "1", kind) for kind in KINDS}) == 3


def test_the_minority_is_counted_and_not_judged() -> None:
    ever: dict[Kind, Totals] = {"binary": sums(2, 2), "regression": sums(3, 3, errors(1, -1, 4))}
    found = told({("1", "", "all"): ever, ("1", "", "1h"): {"binary": sums(2, 2)}})
    judged = found["1", "", "all"]
    assert (judged["kind"], judged["predictions"], judged["predictions_of_other_kinds"]) == ("regression", 3, 2)
    assert (judged["mae"], judged["bias"], judged["accuracy"]) == (2.0, 4 / 3, None)
    # The kind is that of the whole life, not of the window: here, nothing of it happened in the last hour.
    last = found["1", "", "1h"]
    assert (last["kind"], last["predictions"], last["predictions_of_other_kinds"]) == ("regression", 0, 2)


def test_versions_may_be_of_different_kinds() -> None:
    found = told(
        {
            ("1", "", "all"): {"binary": sums(2, 2, correct=1)},
            ("2", "", "all"): {"multiclass": sums(5, 2, DetailTotals(classes={"a": (2, 1)}), correct=1)},
        },
        champion="1",
    )
    assert {version: found[version, "", "all"]["kind"] for version in ("", "1", "2")} == {
        "": "multiclass",
        "1": "binary",
        "2": "multiclass",
    }
    assert (found["", "", "all"]["predictions"], found["", "", "all"]["predictions_of_other_kinds"]) == (5, 2)
    assert found["2", "", "all"]["class_recall"] == ({"name": "a", "support": 2, "recall": 0.5},)


def test_a_champion_that_predicted_nothing_is_of_the_models_kind() -> None:
    found = told({("1", "", "all"): {"regression": sums(1)}}, champion="2")
    assert (found["2", "", "7d"]["kind"], found["2", "", "7d"]["predictions"]) == ("regression", 0)
    assert told({}, champion="2")["2", "", "7d"]["kind"] == "binary"


def test_the_baseline_is_what_was_evaluated_before_the_window() -> None:
    ever, lately = errors(1, 3, 10, 20), errors(10, 20)
    found = told(
        {
            ("1", "", "all"): {"regression": sums(4, 4, ever)},
            ("1", "", "7d"): {"regression": sums(2, 2, lately)},
        }
    )
    week, always = found["1", "", "7d"], found["1", "", "all"]
    assert (week["mae"], week["baseline_mae"], week["baseline_evaluated_predictions"]) == (15.0, 2.0, 2)
    assert (always["mae"], always["baseline_mae"], always["baseline_evaluated_predictions"]) == (8.5, None, 0)


def test_all_versions_together_add_their_details() -> None:
    found = told(
        {
            ("1", "", "all"): {"multiclass": sums(2, 2, DetailTotals(classes={"a": (1, 1), "b": (1, 0)}))},
            ("2", "", "all"): {"multiclass": sums(1, 1, DetailTotals(classes={"a": (1, 0)}))},
        }
    )
    assert found["", "", "all"]["class_recall"] == (
        {"name": "a", "support": 2, "recall": 0.5},
        {"name": "b", "support": 1, "recall": 0.0},
    )


SOME_SUMS = [sums(2, 2, correct=1), sums(3, 3, errors(1, -1, 4)), sums(5, 4, errors(0.5, 2, 2, 1)), sums(7)]
PLACES = st.tuples(st.sampled_from("12"), st.sampled_from(["", "a:b"]), st.sampled_from(["1h", "7d", "all"]))


@given(
    st.dictionaries(
        PLACES,
        st.dictionaries(st.sampled_from(KINDS), st.integers(0, len(SOME_SUMS) - 1), min_size=1),
        max_size=8,
    )
)
def test_sums_that_are_one_object_are_told_as_those_that_are_equal(
    places: dict[FigureKey, dict[Kind, int]],
) -> None:
    one = {key: {kind: SOME_SUMS[place] for kind, place in found.items()} for key, found in places.items()}
    apart = {
        key: {kind: replace(SOME_SUMS[place]) for kind, place in found.items()} for key, found in places.items()
    }
    assert told(one, "1") == told(apart, "1")
