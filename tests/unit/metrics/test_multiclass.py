"""What a multiclass prediction contributes for every outcome, and recall."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.identity import id_of
from services.metrics.domain.multiclass import (
    CLASSES_TOLD,
    ClassScores,
    class_recall,
    class_set_of,
    decode_scores,
    encode_counts,
    encode_scores,
    score_classes,
    total_counts,
)

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=8)


@st.composite
def probabilities(draw: st.DrawFn) -> dict[str, float]:
    """Thousandths that sum to 1."""
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 1000), min_size=len(names) - 1, max_size=len(names) - 1)))
    parts = [end - start for start, end in zip([0, *cuts], [*cuts, 1000], strict=True)]
    return {name: part / 1000 for name, part in zip(names, parts, strict=True)}


@pytest.mark.parametrize(
    ("given_to", "squared_errors", "log_losses"),
    [
        # (0.5 - 1)^2 + 0.3^2 + 0.2^2 = 0.38, and so on; for a class not named 0.5^2 + 0.3^2 + 0.2^2 + 1 = 1.38.
        (
            {"a": 0.5, "b": 0.3, "c": 0.2},
            (0.38, 0.78, 0.98, 1.38),
            (693_147_181, 1_203_972_804, 1_609_437_912, 34_538_776_395),
        ),
        ({"a": 1.0, "b": 0.0}, (0.0, 2.0, 2.0), (0, 34_538_776_395, 34_538_776_395)),
    ],
)
def test_scores_by_hand(
    given_to: dict[str, float], squared_errors: tuple[float, ...], log_losses: tuple[int, ...]
) -> None:
    scored = score_classes(given_to, None)
    assert scored.squared_errors == tuple(round(error * 10**12) for error in squared_errors)
    assert scored.log_losses == log_losses


@given(probabilities())
def test_squared_errors_are_exact_to_the_unit(given_to: dict[str, float]) -> None:
    scored = score_classes(given_to, None)
    parts = [Fraction(round(given_to[name] * 1000), 1000) for name in scored.classes]
    for place in range(len(parts) + 1):
        error = sum((part - (other == place)) ** 2 for other, part in enumerate(parts)) + (place == len(parts))
        assert scored.squared_errors[place] == error * 10**12


@given(probabilities(), st.randoms())
def test_the_order_in_which_classes_are_named_plays_no_part(given_to: dict[str, float], chance: object) -> None:
    names = list(given_to)
    chance.shuffle(names)  # type: ignore[attr-defined]
    assert score_classes({name: given_to[name] for name in names}, None) == score_classes(given_to, None)


@pytest.mark.parametrize(
    ("given_to", "predicted", "decided"),
    [
        ({"a": 0.2, "b": 0.8}, None, "b"),
        ({"b": 0.5, "a": 0.5}, None, "a"),
        # By code point, not as UTF-16 would have it.
        ({"\U0001f600": 0.4, "\uffff": 0.4, "z": 0.2}, None, "\uffff"),
        ({"B": 0.5, "a": 0.5}, None, "B"),
        ({"a": 0.2, "b": 0.8}, "a", "a"),
    ],
)
def test_the_most_probable_class_is_decided_unless_another_was(
    given_to: dict[str, float], predicted: str | None, decided: str
) -> None:
    scored = score_classes(given_to, predicted)
    assert scored.classes[scored.decided] == decided


@pytest.mark.parametrize(
    ("outcome", "place"),
    [
        ("1", 0), ("cat", 2), ("dog", 3), ("Cat", 3), ("", 3),
        # A whole number is the class that is spelled so, where there is one.
        (1.0, 0), (3.0, 1), (-0.0, None), (2.0, None), (1.5, None), (1e300, None), (None, None),
    ],
)  # fmt: skip
def test_which_class_an_outcome_names(outcome: float | str | None, place: int | None) -> None:
    assert score_classes({"1": 0.5, "3": 0.25, "cat": 0.25}, None).place_of(outcome) == place


@given(probabilities())
def test_stored_scores_are_read_back(given_to: dict[str, float]) -> None:
    scored = score_classes(given_to, None)
    stored = encode_scores(scored, id_of(*scored.classes))
    assert len(stored) == 16 * (len(scored.classes) + 2)
    assert class_set_of(stored) == id_of(*scored.classes)
    assert decode_scores(stored, scored.classes) == scored


COUNTS = st.dictionaries(
    st.integers(-(2**63), 2**63 - 1), st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=5
)


@given(st.lists(COUNTS, max_size=4))
def test_counts_add_up_whatever_was_stored_apart(several: list[dict[int, tuple[int, int]]]) -> None:
    expected: dict[int, tuple[int, int]] = {}
    for counts in several:
        for class_id, (support, hits) in counts.items():
            before = expected.get(class_id, (0, 0))
            expected[class_id] = (before[0] + support, before[1] + hits)
    found = total_counts(map(encode_counts, several))
    assert found == {class_id: count for class_id, count in expected.items() if any(count)}
    assert total_counts([encode_counts(found)]) == found


def test_recall_is_of_the_most_frequent_classes_first() -> None:
    rows = class_recall({"b": (4, 1), "a": (4, 4), "rare": (1, 0), "often": (10, 5)})
    assert [(row.name, row.support, row.recall) for row in rows] == [
        ("often", 10, 0.5),
        ("a", 4, 1.0),
        ("b", 4, 0.25),
        ("rare", 1, 0.0),
    ]


def test_of_many_classes_a_hundred_are_told() -> None:
    rows = class_recall({f"{number:04}": (number + 1, 0) for number in range(1_000)})
    assert len(rows) == CLASSES_TOLD == 100
    assert (rows[0].name, rows[-1].name) == ("0999", "0900")


def test_log_loss_of_what_was_given_nothing_is_clipped() -> None:
    scored = score_classes({"a": 1e-16, "b": 1 - 1e-16}, None)
    assert scored.log_losses[0] == scored.log_losses[2] == round(-math.log(1e-15) * 1e9)
    assert isinstance(scored, ClassScores)
