"""The data that everything is measured on, and what they must come to."""

from __future__ import annotations

import json
from collections import Counter

from benchmarks.dataset import Bucket, Event, Expected, Label, Prediction, events, iso
from shared.contracts import observations

COUNT = 2_000
EVENTS = list(events(COUNT, seed=7))
NINE_O_CLOCK = 1_767_258_000_000_000


def expected(*given: Event) -> dict[tuple[str, str], Bucket]:
    found = Expected()
    for event in given:
        found.add(event)
    return found.buckets()


def test_the_same_seed_gives_the_same_data() -> None:
    assert list(events(COUNT, seed=7)) == EVENTS
    assert list(events(COUNT, seed=8)) != EVENTS


def test_every_prediction_has_a_label_and_the_shares_are_as_said() -> None:
    predictions = {event.entity for event in EVENTS if isinstance(event, Prediction)}
    labels = {event.entity for event in EVENTS if isinstance(event, Label)}
    assert predictions == labels
    assert len(predictions) == COUNT
    first_seen: dict[str, type] = {}
    for event in EVENTS:
        first_seen.setdefault(event.entity, type(event))
    assert 0.08 < Counter(first_seen.values())[Label] / COUNT < 0.12
    repeated = len(EVENTS) - len(set(EVENTS))
    assert 0.04 < repeated / (2 * COUNT) < 0.06
    corrected = Counter(event.entity for event in set(EVENTS) if isinstance(event, Label))
    assert 0.01 < sum(count == 2 for count in corrected.values()) / COUNT < 0.03


def test_published_in_the_order_of_event_time_as_far_as_it_is_not_early_or_a_repeat() -> None:
    moments = [event.predicted_at for event in dict.fromkeys(EVENTS) if isinstance(event, Prediction)]
    assert moments == sorted(moments)


def test_records_are_of_the_contracts_and_about_two_hundred_bytes() -> None:
    for event in EVENTS[:50]:
        contract = observations.Prediction if isinstance(event, Prediction) else observations.Label
        contract.model_validate_json(event.value())
        assert 120 < len(event.value()) < 260
        assert json.loads(event.value())


def test_repeats_count_once_and_corrections_move_to_their_own_minute() -> None:
    prediction = Prediction("e", "m", NINE_O_CLOCK, 900)
    label = Label("e", 0, NINE_O_CLOCK + 60_000_000)
    corrected = Label("e", 1, NINE_O_CLOCK + 120_000_000)
    at = [("m", iso(NINE_O_CLOCK + minute * 60_000_000)[:16]) for minute in range(3)]
    wrong = Bucket(evaluated=1, squared_error=810_000 * 10**6, log_loss=2_302_585_093)
    right = Bucket(evaluated=1, correct=1, positives=1, squared_error=10_000 * 10**6, log_loss=105_360_516)
    assert expected(prediction, prediction, label, label) == {at[0]: Bucket(predictions=1), at[1]: wrong}
    for order in ([label, corrected], [corrected, label]):
        assert expected(*order, prediction) == {at[0]: Bucket(predictions=1), at[2]: right}
