import itertools
import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from examples.flights import stream
from examples.flights.data import Flights
from shared.contracts.base import unknown_fields
from shared.contracts.observations import Label, PipelineRun, Prediction, Tick
from shared.topics import topic_named

CONTRACTS = {"predictions": Prediction, "labels": Label, "pipeline-runs": PipelineRun}
MARCH = datetime(2013, 3, 1, tzinfo=UTC)


def published(flights: Flights, day: stream.Day) -> list[stream.Message]:
    return stream.messages(flights, day, np.full(len(day.departing), 0.123456), "v1")


@pytest.mark.parametrize(("months", "days"), [(1, 31), (2, 61), (10, 306)])
def test_months_have_their_days(months: int, days: int) -> None:
    assert stream.days_of(months) == days


def test_every_record_is_what_its_contract_asks_for(flights: Flights) -> None:
    (day,) = stream.days(flights, 1)
    messages = published(flights, day)
    assert {message.topic for message in messages} == set(CONTRACTS)
    for message in messages:
        event = CONTRACTS[message.topic].model_validate_json(message.value)
        assert unknown_fields(event) == ()
        assert day.start <= event.occurred_at < day.end
        key = topic_named(message.topic).key
        assert message.key.decode() == getattr(event, key)


def test_a_day_is_in_the_order_of_event_time_within_each_topic(flights: Flights) -> None:
    (_, day) = stream.days(flights, 2)
    for topic, contract in CONTRACTS.items():
        moments = [
            contract.model_validate_json(message.value).occurred_at
            for message in published(flights, day)
            if message.topic == topic
        ]
        assert moments == sorted(moments)


def test_every_flight_is_predicted_once_and_labelled_at_most_once_after_it(flights: Flights) -> None:
    count = 40
    predicted: dict[str, int] = {}
    labelled: dict[str, int] = {}
    for number, day in enumerate(stream.days(flights, count)):
        for row in day.departing:
            assert flights.entity_id[row] not in predicted
            predicted[flights.entity_id[row]] = number
        for row in day.landing:
            assert flights.entity_id[row] not in labelled
            assert predicted[flights.entity_id[row]] <= number
            labelled[flights.entity_id[row]] = number
    end = MARCH + timedelta(days=count)
    assert len(predicted) == len(flights.scheduled_within(MARCH, end))
    never = [row for row in flights.scheduled_within(MARCH, end) if np.isnat(flights.landed_at[row])]
    assert never
    assert not {flights.entity_id[row] for row in never} & set(labelled)


def test_days_follow_one_another_without_a_gap(flights: Flights) -> None:
    days = list(stream.days(flights, 306))
    assert days[0].start == MARCH
    assert all(day.end == following.start for day, following in itertools.pairwise(days))
    assert days[-1].end == datetime(2014, 1, 1, tzinfo=UTC)
    assert sum(len(day.departing) for day in days) == 284_887


def test_labels_tell_what_happened(flights: Flights) -> None:
    (day,) = stream.days(flights, 1)
    labels = {
        label["entity_id"]: label["outcome"]
        for label in (json.loads(each.value) for each in published(flights, day) if each.topic == "labels")
    }
    for row in day.landing:
        assert labels[flights.entity_id[row]] == flights.late[row]


def test_unknown_weather_leaves_data_as_of_out(flights: Flights) -> None:
    day = next(day for day in stream.days(flights, 306) if np.isnat(flights.weather_at[day.departing]).any())
    messages = [json.loads(each.value) for each in published(flights, day) if each.topic == "predictions"]
    for row, said in zip(day.departing, messages, strict=True):
        assert ("data_as_of" in said) == (not np.isnat(flights.weather_at[row]))


def test_a_tick_is_what_its_contract_asks_for() -> None:
    assert Tick.model_validate_json(stream.tick(MARCH)).tick == MARCH


def test_midnight_is_utc() -> None:
    assert stream.midnight(date(2013, 3, 1)) == MARCH
