"""The metrics service's state in PostgreSQL: each function is one statement of queries.sql, set-based."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any
from uuid import UUID

from asyncpg import Record

from services.metrics.answers import store as answers
from services.metrics.domain import histogram, newest
from services.metrics.domain.buckets import MICROSECONDS
from services.metrics.domain.horizons import Horizons, Standing
from services.metrics.domain.identity import id_of, shard_of
from services.metrics.domain.joining import Label, StoredPrediction
from services.metrics.domain.kinds import Kind, names_of_version
from services.metrics.domain.newest import Newest
from services.metrics.domain.sums import BucketKey, BucketRows, Sums
from shared.database import Connection, Queries
from shared.records import Place

QUERIES = Queries.load("services.metrics")
UPKEEP = Queries.load("services.metrics", "upkeep.sql")
RAW_ROWS_IN_A_PORTION = 5_000
ENTITY_SHARDS = 64
MODEL_SHARDS = 64
_PREDICTION_COLUMNS = tuple(column.name for column in fields(StoredPrediction) if column.name != "answer")
_as_row = attrgetter(*_PREDICTION_COLUMNS)

Names = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of sums: a version (``segment`` empty), or one declared segment value of it (dimension:value)."""

    model_id: int
    version_id: int
    segment: str

    @property
    def series_id(self) -> int:
        """The id, which every instance computes alike."""
        return id_of(str(self.version_id), self.segment)


@dataclass(slots=True)
class LabelBucketChange:
    """Change of one model's label bucket; moments in microseconds since 1970.

    ``labels``: how many more or fewer winning labels (retractions too) by the moment they were observed at.
    """

    labelled_entities: int = 0
    newest_data_at: int | None = None
    labels: Counter[int] = field(default_factory=Counter)

    def saw_data(self, moment: int) -> None:
        """The model has data of this moment."""
        self.newest_data_at = moment if self.newest_data_at is None else max(self.newest_data_at, moment)


def begun_horizons(row: Record) -> Horizons | None:
    """The horizons that the clock's row says the sums were begun with; None where it does not say yet."""
    if row["label_horizon_seconds"] is None:
        return None
    seconds = row["label_horizon_seconds"], row["correction_horizon_seconds"]
    return Horizons(*(one * MICROSECONDS for one in seconds))


async def lock_entities(connection: Connection, entity_keys: Iterable[UUID]) -> None:
    """Let nobody else join these entities until the transaction ends."""
    await lock_entity_shards(connection, {shard_of(key, ENTITY_SHARDS) for key in entity_keys})


async def lock_entity_shards(connection: Connection, shards: Iterable[int]) -> None:
    """The same by the shards that the entities are in."""
    await connection.execute(QUERIES.lock_entity_shards, sorted(shards))


async def lock_models(connection: Connection, model_ids: Iterable[int]) -> None:
    """Let nobody else change these models' sums until the transaction ends. After the entities, always."""
    shards = sorted({model_id % MODEL_SHARDS for model_id in model_ids})
    await connection.execute(QUERIES.lock_model_shards, shards)


async def content_hashes(connection: Connection, prediction_keys: Collection[UUID]) -> dict[UUID, int]:
    """What the predictions that are known already say, as hashes."""
    rows = await connection.fetch(QUERIES.read_content_hashes, prediction_keys)
    return {row["prediction_key"]: row["content_hash"] for row in rows}


async def labels(connection: Connection, entity_keys: Collection[UUID]) -> dict[UUID, Standing]:
    """The standing labels of entities."""
    rows = await connection.fetch(QUERIES.read_labels, entity_keys)
    return {row["entity_key"]: standing_of(row) for row in rows}


async def superseded_labels(connection: Connection, entity_keys: Collection[UUID]) -> dict[UUID, list[Label]]:
    """The labels of entities that stood or were stale before."""
    found: dict[UUID, list[Label]] = {}
    for row in await connection.fetch(QUERIES.read_superseded_labels, entity_keys):
        found.setdefault(row["entity_key"], []).append(_label(row))
    return found


async def remember_superseded(connection: Connection, labels: Sequence[tuple[UUID, Label]]) -> None:
    """Keep labels that do not stand, but might again. Their entities must be locked."""
    await connection.execute(QUERIES.remember_superseded, [key for key, _ in labels], *_columns_of(labels))


def _columns_of(labels: Iterable[tuple[UUID, Label]]) -> tuple[list[int], list[float | None], list[str | None]]:
    found = [label for _, label in labels]
    return (
        [label.observed_at for label in found],
        [label.outcome if isinstance(label.outcome, float) else None for label in found],
        [label.outcome if isinstance(label.outcome, str) else None for label in found],
    )


def standing_of(row: Mapping[str, object]) -> Standing:
    """The standing label that a row of the table says."""
    label, first = _label(row), row["first_observed_at"]
    return Standing(label, first if isinstance(first, int) else label.observed_at)


def _label(row: Mapping[str, object]) -> Label:
    number, text = row["outcome_number"], row["outcome_text"]
    outcome = number if isinstance(number, float) else text
    return Label(row["observed_at"], outcome)  # type: ignore[arg-type]  # the columns' types fix these


async def predictions_of(connection: Connection, entity_keys: Collection[UUID]) -> list[StoredPrediction]:
    """Every stored prediction about the entities."""
    rows = await connection.fetch(QUERIES.read_predictions_of_entities, entity_keys)
    return [StoredPrediction(**row) for row in rows]


KeptFrom = Callable[[int], int | None]
"""From the time of an event to when the time that its row is kept begins."""


def prediction_of(row: Mapping[str, Any]) -> StoredPrediction:
    """The prediction that a row of the table says."""
    return StoredPrediction(**{name: row[name] for name in _PREDICTION_COLUMNS})


async def add_predictions(
    connection: Connection, predictions: Iterable[StoredPrediction], kept_from: KeptFrom
) -> None:
    """Append predictions by binary COPY.

    A prediction id that another transaction stored meanwhile raises a unique violation: the batch is tried
    again and finds it.
    """
    stored = list(predictions)
    await connection.copy_records_to_table(
        "prediction",
        records=((*_as_row(one), kept_from(one.predicted_at)) for one in stored),
        columns=(*_PREDICTION_COLUMNS, "kept_from"),
    )
    await answers.save(connection, stored)


async def save_labels(connection: Connection, winners: Mapping[UUID, Standing], kept_from: KeptFrom) -> None:
    """Store the labels that stand."""
    found = list(winners.values())
    await connection.execute(
        QUERIES.save_labels,
        list(winners),
        *_columns_of([(key, standing.label) for key, standing in winners.items()]),
        [standing.first_observed_at for standing in found],
        [kept_from(standing.label.observed_at) for standing in found],
    )


@dataclass(frozen=True, slots=True)
class Removed:
    """The newest ``predicted_at`` of raw rows that were removed: of some models, and of all (None: of none)."""

    by_model: Mapping[int, int]
    newest: int | None


async def removed_through(connection: Connection, model_ids: Collection[int]) -> Removed:
    """What retention has removed of some models, and of all together."""
    rows = await connection.fetch(QUERIES.read_removed_through, model_ids)
    found = {row["model_id"]: row["removed_through"] for row in rows}
    newest = found.pop(None)
    return Removed(found, newest)


async def models_and_kinds_of_versions(
    connection: Connection, version_ids: Collection[int]
) -> tuple[dict[int, int], dict[int, Kind]]:
    """Model id and kind of each version id."""
    rows = await connection.fetch(QUERIES.read_versions, version_ids)
    models = {row["version_id"]: row["model_id"] for row in rows}
    return models, {row["version_id"]: row["kind"] for row in rows}


async def segment_names(connection: Connection, segment_ids: Collection[int]) -> dict[int, Names]:
    """Names and values of each segment id."""
    rows = await connection.fetch(QUERIES.read_segments, segment_ids)
    return {row["segment_id"]: [(name, value) for name, value in row["names"]] for row in rows}


async def declared_segments(
    connection: Connection, model_ids: Collection[int]
) -> dict[int, dict[str, frozenset[str]]]:
    """Per model the dimensions and values that its newest policy declares."""
    rows = await connection.fetch(QUERIES.read_segment_policies, model_ids)
    return {
        row["model_id"]: {dimension: frozenset(values) for dimension, values in row["segments"].items()}
        for row in rows
    }


async def add_names(
    connection: Connection,
    *,
    models: Iterable[str],
    versions: Iterable[tuple[str, str, Kind]] = (),
    segments: Iterable[Names] = (),
) -> None:
    """Make names known: models, versions with what they say, segment combinations.

    Each in one order for everyone, so that two batches with new names never wait for each other in a circle.
    """
    names = sorted(set(models))
    await connection.execute(QUERIES.add_models, [id_of(model) for model in names], names)
    said = sorted(set(versions))
    if said:
        await connection.execute(
            QUERIES.add_versions,
            [id_of(*names_of_version(*one)) for one in said],
            [id_of(model) for model, _, _ in said],
            [version for _, version, _ in said],
            [kind for _, _, kind in said],
        )
    combinations = sorted(set(map(tuple, segments)))
    if combinations:
        ids = [id_of(*(part for pair in combination for part in pair)) for combination in combinations]
        await connection.execute(QUERIES.add_segments, ids, list(map(json.dumps, combinations)))


async def add_series(connection: Connection, series: Iterable[Series]) -> None:
    """Make series known."""
    found = list(series)
    await connection.execute(
        QUERIES.add_series,
        [one.series_id for one in found],
        [one.model_id for one in found],
        [one.version_id for one in found],
        [one.segment for one in found],
    )


async def add_to_buckets(connection: Connection, changes: Mapping[BucketKey, Sums]) -> None:
    """Add changes to buckets, and to what they have in detail. The models of their series must be locked."""
    await add_bucket_rows(connection, BucketRows.of(changes))
    details = {key: one.detail for key, one in changes.items() if one.detail is not None}
    if details:
        await answers.add_to_details(connection, details)


async def add_bucket_rows(connection: Connection, rows: BucketRows) -> None:
    """Add changes to buckets. The models of their series must be locked."""
    columns = rows.series_ids, rows.widths, rows.starts
    found = await connection.fetch(QUERIES.read_histograms, *columns)
    known = {(row["series_id"], row["width"], row["start"]): row["histogram"] for row in found}
    stored = [known.get(key, b"") for key in zip(*columns, strict=True)]
    histograms = histogram.changed(stored, rows.bins)
    await connection.execute(QUERIES.add_to_buckets, *columns, *rows.figures, histograms)


async def add_to_label_buckets(
    connection: Connection,
    changes: Mapping[tuple[int, int], LabelBucketChange],
    bucket_seconds: int,
    horizons: Horizons,
) -> None:
    """Add changes to label buckets, by model id and start. The models must be locked, labels stored."""
    keys = sorted(changes)
    columns = [list(column) for column in zip(*keys, strict=True)]
    rows = await connection.fetch(QUERIES.read_newest_labels, *columns)
    standing = {
        (row["model_id"], row["start"]): Newest(row["newest_label_at"], row["newest_labels"] or 0) for row in rows
    }
    found = {key: newest.after(standing.get(key, Newest()), changes[key].labels) for key in keys}
    await connection.execute(
        QUERIES.add_to_label_buckets,
        *columns,
        [changes[key].labelled_entities for key in keys],
        [changes[key].newest_data_at for key in keys],
        [one.moment if one else None for one in found.values()],
        [one.count if one else None for one in found.values()],
    )
    lost = [key for key, one in found.items() if one is None]
    if lost:
        columns = [list(column) for column in zip(*lost, strict=True)]
        await connection.execute(QUERIES.look_up_newest_labels, *columns, bucket_seconds, horizons.label)


async def new_label_limits(connection: Connection, model_ids: Collection[int]) -> dict[int, int | None]:
    """Per model the moment that a label must be later than to be new (microseconds since 1970; None: ever)."""
    rows = await connection.fetch(QUERIES.read_new_label_limits, model_ids)
    return {row["model_id"]: row["new_labels_after"] for row in rows}


async def add_new_labels(connection: Connection, changes: Mapping[int, int]) -> None:
    """Change the counts of new labels. The models must be locked."""
    kept = {model_id: change for model_id, change in sorted(changes.items()) if change}
    await connection.execute(QUERIES.add_new_labels, list(kept), list(kept.values()))


async def reach(connection: Connection, reached: Mapping[Place, int]) -> bool:
    """Note the event time that partitions wait at; returns whether any is new."""
    moved = await connection.fetch(
        QUERIES.reach,
        [topic for topic, _ in reached],
        [partition for _, partition in reached],
        list(reached.values()),
    )
    return bool(moved)


def raw_rows_of(connection: Connection, model_id: int) -> AsyncIterator[tuple[StoredPrediction, Standing | None]]:
    """Every stored prediction of a model with its entity's standing label, read in portions."""
    return _raw_rows(connection, QUERIES.read_predictions_of_model, model_id)


def raw_rows_by_entity(
    connection: Connection, model_id: int
) -> AsyncIterator[tuple[StoredPrediction, Standing | None]]:
    """The same, those of an entity one after the other."""
    return _raw_rows(connection, UPKEEP.read_raw_rows, model_id)


async def _raw_rows(
    connection: Connection, statement: str, model_id: int
) -> AsyncIterator[tuple[StoredPrediction, Standing | None]]:
    kinds: dict[int, Kind] = {
        row["version_id"]: row["kind"] for row in await connection.fetch(QUERIES.read_versions_of_model, model_id)
    }
    cursor = await connection.cursor(statement, model_id)
    while rows := await cursor.fetch(RAW_ROWS_IN_A_PORTION):
        stored = await answers.with_answers(connection, list(map(prediction_of, rows)), kinds)
        for row, one in zip(rows, stored, strict=True):
            yield one, (standing_of(row) if row["labelled"] else None)
