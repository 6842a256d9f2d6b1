"""Sums made in columns are those that are added up one event after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from services.metrics.domain import histogram
from services.metrics.domain.buckets import MICROSECONDS, widths
from services.metrics.domain.contributions import score
from services.metrics.domain.histogram import DELAY_EDGES, PROBABILITY_BINS, VECTOR_LENGTH, BinChanges
from services.metrics.domain.hot.states import States, nothing_known
from services.metrics.domain.hot.summing import Evaluations, _begins, differing, sum_up
from services.metrics.domain.joining import Label, StoredPrediction, evaluate_binary
from services.metrics.domain.sums import FIGURES, BucketKey, BucketRows, Changes, Sums

SERIES = {0: (70, 5), 2: (5,), 3: (5, 70, 9_000_000_000)}
"""Of each combination; the same series stands in several, and one number has none."""
Met = tuple[StoredPrediction, int, Label, int]
"""A prediction, its combination, the label that it met, and whether it is put in or taken out."""

near = st.integers(0, 200_000 * MICROSECONDS)
moments = near | st.integers(-62_135_596_800 * MICROSECONDS, 253_402_300_799 * MICROSECONDS)
delays = near | st.sampled_from([edge * MICROSECONDS + more for edge in (0, *DELAY_EDGES) for more in (-1, 0, 1)])
probabilities = (
    st.floats(0, 1)
    | st.integers(0, PROBABILITY_BINS).map(lambda place: place / PROBABILITY_BINS)
    | st.integers(0, 10**9).map(lambda units: (units + 0.5) / 10**9).filter(lambda one: one <= 1)
)


@st.composite
def predictions(draw: st.DrawFn) -> StoredPrediction:
    probability = draw(probabilities) + 0.0
    scored = score(probability)
    key = UUID(int=draw(st.integers(0, 2**32)))
    return StoredPrediction(
        prediction_key=key,
        entity_key=key,
        version_id=1,
        segment_id=1,
        predicted_at=draw(moments),
        content_hash=0,
        probability=probability,
        predicted_positive=draw(st.booleans()),
        squared_error_if_negative=scored.squared_error_if_negative,
        squared_error_if_positive=scored.squared_error_if_positive,
        log_loss_if_negative=scored.log_loss_if_negative,
        log_loss_if_positive=scored.log_loss_if_positive,
    )


combinations = st.sampled_from(list(SERIES))
signs = st.sampled_from([-1, 1])
outcomes = st.sampled_from([0.0, 1.0])


@st.composite
def evaluated(draw: st.DrawFn) -> Met:
    prediction = draw(predictions())
    at = draw(delays.map(lambda delay: prediction.predicted_at + delay) | moments)
    return prediction, draw(combinations), Label(at, draw(outcomes)), draw(signs)


def states_of(said: Sequence[tuple[StoredPrediction, int, Label | None]]) -> States:
    states = nothing_known(len(said))
    for place, (prediction, combination, label) in enumerate(said):
        state = states[place]
        state["predicted"], state["combination"] = True, combination
        for field in ("predicted_at", "probability", "predicted_positive", "content_hash"):
            state[field] = getattr(prediction, field)
        for scored in ("squared_error", "log_loss"):
            for outcome in ("negative", "positive"):
                state[f"{scored}_if_{outcome}"] = getattr(prediction, f"{scored}_if_{outcome}")
        if label is not None:
            state["labelled"], state["observed_at"] = True, label.observed_at
            state["first_observed_at"], state["positive"] = label.observed_at, label.outcome == 1.0
    return states


def in_columns(new: list[tuple[StoredPrediction, int]], met: list[Met], kept: tuple[int, ...]) -> BucketRows:
    evaluations = Evaluations(
        states_of([(prediction, combination, label) for prediction, combination, label, _ in met]),
        np.array([sign for *_, sign in met], dtype=np.int64),
    )
    return BucketRows.together(list(sum_up(states_of([(*one, None) for one in new]), evaluations, SERIES, kept)))


def one_by_one(
    new: list[tuple[StoredPrediction, int]], met: list[Met], kept: tuple[int, ...]
) -> dict[BucketKey, Sums]:
    changes = Changes(kept[0])
    for prediction, combination in new:
        changes.predicted(SERIES[combination], prediction)
    for prediction, combination, label, sign in met:
        evaluation = evaluate_binary(prediction, label)
        assert evaluation is not None
        changes.evaluated(SERIES[combination], prediction, evaluation, sign)
    return dict(changes.by_bucket(kept))


Told = dict[BucketKey, tuple[list[int], dict[int, int]]]


def told_by(rows: BucketRows) -> Told:
    """Figures and histogram of each bucket; each bucket stands once, and each bin of it."""
    bins: dict[int, dict[int, int]] = defaultdict(dict)
    for row, place, amount in zip(
        rows.bins.vector.tolist(), rows.bins.place.tolist(), rows.bins.amount.tolist(), strict=True
    ):
        assert place not in bins[row]
        bins[row][place] = amount
    keys = list(zip(rows.series_ids, rows.widths, rows.starts, strict=True))
    assert len(set(keys)) == len(keys) == len(rows)
    assert set(bins) <= set(range(len(keys)))
    return {key: ([column[row] for column in rows.figures], bins[row]) for row, key in enumerate(keys)}


def told_of(changes: dict[BucketKey, Sums]) -> Told:
    return {
        key: (
            [getattr(sums, name) for name in FIGURES],
            {place: count for place, count in sums.histogram.items() if count},
        )
        for key, sums in changes.items()
    }


@given(
    st.lists(st.tuples(predictions(), combinations), max_size=8),
    st.lists(evaluated(), max_size=8),
    st.sampled_from([60, 5, 1]),
)
def test_sums_in_columns_are_those_of_one_after_the_other(
    new: list[tuple[StoredPrediction, int]], met: list[Met], narrowest: int
) -> None:
    kept = widths(narrowest)
    assert told_by(in_columns(new, met, kept)) == told_of(one_by_one(new, met, kept))


@given(st.lists(evaluated(), min_size=1, max_size=6), st.integers(0, 6))
def test_what_goes_and_comes_again_is_left_out(met: list[Met], half: int) -> None:
    back = [(prediction, combination, label, -sign) for prediction, combination, label, sign in met]
    kept = widths(5)
    assert len(in_columns([], met + back, kept)) == 0
    assert told_by(in_columns([], met + back[:half], kept)) == told_of(one_by_one([], met + back[:half], kept))


def test_of_nothing_there_are_no_sums() -> None:
    nothing = Evaluations.of(nothing_known(0), np.empty(0, np.bool_), 1)
    for series_of in ({}, SERIES):
        parts = list(sum_up(nothing_known(0), nothing, series_of, widths(60)))
        assert [len(part) for part in parts] == [0, 0, 0]


@given(st.lists(evaluated(), max_size=6), st.lists(st.booleans(), min_size=6, max_size=6), signs)
def test_evaluations_are_of_predictions_whose_label_lies_within(
    met: list[Met], within: list[bool], sign: int
) -> None:
    states = states_of([(prediction, combination, label) for prediction, combination, label, _ in met])
    states["predicted"][::2] = False
    chosen = np.array(within[: len(met)], dtype=np.bool_)
    found = Evaluations.of(states, chosen, sign)
    places = [place for place in range(len(met)) if place % 2 and within[place]]
    assert found.states.tolist() == states[places].tolist()
    assert found.sign.tolist() == [sign] * len(places)
    both = found + Evaluations.of(states, ~chosen, -sign)
    assert both.sign.tolist() == [sign] * len(places) + [-sign] * (len(both.states) - len(places))


@given(st.lists(st.tuples(evaluated(), st.integers(-3, 3), outcomes), max_size=8))
def test_an_evaluation_differs_where_its_moment_or_its_outcome_does(
    changes: list[tuple[Met, int, float]],
) -> None:
    before = [(prediction, combination, label) for (prediction, combination, label, _), _, _ in changes]
    after = [
        (prediction, combination, Label(label.observed_at + moved, outcome))
        for (prediction, combination, label, _), moved, outcome in changes
    ]
    assert differing(states_of(before), states_of(after)).tolist() == [
        evaluate_binary(old, label) != evaluate_binary(old, other)
        for (old, _, label), (_, _, other) in zip(before, after, strict=True)
    ]


SURE = 2**34
"""So near to 64 bits a count may be refused already."""
large = st.integers(-(2**62), 2**62) | st.integers(-3, 3)
places = st.integers(0, VECTOR_LENGTH - 1) | st.sampled_from([0, VECTOR_LENGTH - 1])
vectors = st.dictionaries(places, large.filter(bool), max_size=5)


@given(st.lists(vectors, max_size=5), st.data())
@example([], None)
@example([{}, {}], None)
def test_vectors_changed_at_once_are_those_changed_one_by_one(
    stored: list[dict[int, int]], data: st.DataObject | None
) -> None:
    numbers = st.integers(0, max(len(stored) - 1, 0))
    rows = st.lists(st.tuples(numbers, places, large), max_size=8 if stored else 0)
    changes = [] if data is None else data.draw(rows)
    expected = [dict(one) for one in stored]
    for vector, place, amount in changes:
        expected[vector][place] = expected[vector].get(place, 0) + amount
    encoded = [histogram.encode(one) for one in stored]
    largest = max((abs(count) for one in expected for count in one.values()), default=0)
    if largest >= 2**63:
        with pytest.raises(OverflowError):
            histogram.changed(encoded, BinChanges.of(changes))
        return
    assume(largest < 2**63 - SURE)
    found = histogram.changed(encoded, BinChanges.of(changes))
    assert found == [histogram.encode(one) for one in expected]
    assert [histogram.decode(one) for one in found] == [
        {place: count for place, count in sorted(one.items()) if count} for one in expected
    ]


@pytest.mark.parametrize(("stored", "change"), [(2**63 - 1, 1), (-(2**63), -1), (2**62, 2**62)])
def test_a_count_beyond_64_bits_is_refused_as_when_it_is_encoded(stored: int, change: int) -> None:
    with pytest.raises(OverflowError):
        histogram.encode({3: stored + change})
    with pytest.raises(OverflowError):
        histogram.changed([b"", histogram.encode({3: stored})], BinChanges.of([(1, 3, change)]))


def test_counts_that_overflow_in_different_vectors_alone_do_not_add_up() -> None:
    stored = [histogram.encode({VECTOR_LENGTH - 1: 2**62}), histogram.encode({0: 2**62})]
    changes = BinChanges.of([(0, 0, 2**62), (1, VECTOR_LENGTH - 1, 2**62)])
    assert histogram.changed(stored, changes) == [histogram.encode({0: 2**62, VECTOR_LENGTH - 1: 2**62})] * 2


def test_an_amount_beyond_64_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        BinChanges.of([(0, 0, 2**63)])


wide = st.sampled_from([0, 1, 7, 1 << 20, 1 << 40, -(1 << 40), (1 << 61) - 1, -(1 << 61)])


@given(st.lists(st.tuples(wide, st.integers(0, 2), wide), max_size=12))
def test_equal_keys_are_neighbours_however_far_apart_others_are(rows: list[tuple[int, int, int]]) -> None:
    keys = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    order, begins = _begins(*keys)
    assert sorted(order.tolist()) == list(range(len(rows)))
    ordered = [rows[place][::-1] for place in order.tolist()]
    assert ordered == sorted(ordered)
    assert [ordered[place] for place in begins.tolist()] == sorted(set(ordered))
