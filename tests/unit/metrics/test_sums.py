"""Contributions in buckets: what a batch adds, at every width, and what it takes out again."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.contributions import score
from services.metrics.domain.joining import Label, StoredPrediction, evaluate
from services.metrics.domain.sums import BucketKey, Changes, Sums

SECOND = 1_000_000
KEPT = (15, 60, 3_600, 86_400)


def stored(thousandths: int = 700, predicted_at: int = 0) -> StoredPrediction:
    scored = score(thousandths / 1000)
    return StoredPrediction(
        prediction_key=UUID(int=1),
        entity_key=UUID(int=1),
        version_id=1,
        segment_id=1,
        predicted_at=predicted_at,
        content_hash=0,
        probability=thousandths / 1000,
        predicted_positive=thousandths >= 500,
        squared_error_if_negative=scored.squared_error_if_negative,
        squared_error_if_positive=scored.squared_error_if_positive,
        log_loss_if_negative=scored.log_loss_if_negative,
        log_loss_if_positive=scored.log_loss_if_positive,
    )


def put(changes: Changes, series: tuple[int, ...], prediction: StoredPrediction, label: Label, sign: int) -> None:
    evaluation = evaluate(prediction, label)
    assert evaluation is not None
    changes.evaluated(series, prediction, evaluation, sign)


def plain(found: dict[BucketKey, Sums]) -> dict[BucketKey, tuple[int, ...]]:
    return {
        key: (
            sums.predictions,
            sums.labelled,
            sums.evaluated,
            sums.correct,
            sums.positives,
            sums.predicted_positives,
            sums.squared_error,
            sums.log_loss,
        )
        for key, sums in found.items()
    }


def test_a_prediction_counts_where_it_was_made_and_its_evaluation_where_it_was_settled() -> None:
    changes = Changes(60)
    prediction = stored(700, predicted_at=59 * SECOND)
    changes.predicted((7,), prediction)
    put(changes, (7,), prediction, Label(3_700 * SECOND, 0.0), 1)
    made, settled = (1, 1, 0, 0, 0, 0, 0, 0), (0, 0, 1, 0, 0, 1, 490_000_000_000, 1_203_972_804)
    both = tuple(map(sum, zip(made, settled, strict=True)))
    assert plain(dict(changes.by_bucket((60, 3_600, 86_400)))) == {
        (7, 60, 0): made,
        (7, 60, 3_660): settled,
        (7, 3_600, 0): made,
        (7, 3_600, 3_600): settled,
        (7, 86_400, 0): both,
    }


def test_every_series_gets_the_same() -> None:
    changes = Changes(60)
    prediction = stored()
    changes.predicted((1, 2, 3), prediction)
    put(changes, (1, 2, 3), prediction, Label(0, 1.0), 1)
    found = changes.by_bucket((60,))
    assert sorted(key[0] for key in found) == [1, 2, 3]
    assert len(set(plain(dict(found)).values())) == 1
    assert {tuple(sorted(sums.histogram.items())) for sums in found.values()} == {
        ((71, 1), (135, 700_000_000), (150, 1))
    }


def test_a_correction_within_one_bucket_leaves_only_what_changed() -> None:
    changes = Changes(60)
    prediction = stored(700)
    put(changes, (1,), prediction, Label(1 * SECOND, 0.0), -1)
    put(changes, (1,), prediction, Label(1 * SECOND, 1.0), 1)
    (found,) = changes.by_bucket((60,)).values()
    assert plain({(1, 60, 0): found}) == {(1, 60, 0): (0, 0, 0, 1, 1, 0, -400_000_000_000, -847_297_860)}
    assert {place: count for place, count in found.histogram.items() if count} == {70: -1, 71: 1}


def test_a_batch_that_changes_nothing_touches_no_bucket() -> None:
    changes = Changes(60)
    put(changes, (1,), stored(), Label(5, 1.0), 1)
    put(changes, (1,), stored(), Label(5, 1.0), -1)
    assert changes.by_bucket(KEPT) == {}


def test_what_moves_between_minutes_of_an_hour_does_not_touch_the_hour() -> None:
    changes = Changes(60)
    put(changes, (1,), stored(), Label(100 * SECOND, 1.0), -1)
    put(changes, (1,), stored(), Label(100 * SECOND + 5, 1.0), 1)
    put(changes, (1,), stored(), Label(300 * SECOND, 1.0), 1)
    put(changes, (1,), stored(), Label(400 * SECOND, 1.0), -1)
    # The delays differ (5 min or more, 10 min or less), so the histogram of the hour does not change either.
    assert sorted(key[1:] for key in changes.by_bucket((60, 3_600))) == [(60, 300), (60, 360)]


def test_a_histogram_alone_is_not_nothing() -> None:
    sums = Sums()
    assert sums.is_zero()
    sums.histogram[3] += 0
    assert sums.is_zero()
    sums.histogram[3] += 1
    assert not sums.is_zero()
    for name in ("predictions", "labelled", "evaluated", "correct", "positives", "predicted_positives"):
        changed = Sums()
        setattr(changed, name, -1)
        assert not changed.is_zero()
    assert not Sums(squared_error=1).is_zero()
    assert not Sums(log_loss=1).is_zero()


@st.composite
def contributions(draw: st.DrawFn) -> tuple[StoredPrediction, Label]:
    moments = st.integers(-2 * 86_400, 2 * 86_400)
    prediction = stored(draw(st.integers(0, 1000)), draw(moments) * SECOND)
    return prediction, Label(draw(moments) * SECOND, draw(st.sampled_from([0.0, 1.0])))


@given(st.lists(contributions(), max_size=12))
def test_the_order_of_contributions_does_not_matter_and_widths_agree(
    found: list[tuple[StoredPrediction, Label]],
) -> None:
    one, two = Changes(15), Changes(15)
    for prediction, label in found:
        one.predicted((1,), prediction)
        put(one, (1,), prediction, label, 1)
    for prediction, label in reversed(found):
        put(two, (1,), prediction, label, 1)
        two.predicted((1,), prediction)
    assert one.by_bucket(KEPT) == two.by_bucket(KEPT)
    for width in KEPT:
        total: dict[str, int] = defaultdict(int)
        for (_, bucket_width, start), sums in one.by_bucket(KEPT).items():
            if bucket_width == width:
                assert start % width == 0
                total["predictions"] += sums.predictions
                total["evaluated"] += sums.evaluated
                total["squared_error"] += sums.squared_error
        assert total["predictions"] == total["evaluated"] == len(found)
        assert total["squared_error"] == sum(
            evaluation.squared_error for prediction, label in found if (evaluation := evaluate(prediction, label))
        )


@given(st.lists(contributions(), max_size=8))
def test_what_is_put_in_and_taken_out_leaves_nothing(found: list[tuple[StoredPrediction, Label]]) -> None:
    changes = Changes(15)
    for sign in (1, -1):
        for prediction, label in found:
            put(changes, (1, 2), prediction, label, sign)
    assert changes.by_bucket(KEPT) == {}
