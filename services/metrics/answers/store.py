"""Answers and their sums in PostgreSQL: each function is one statement of queries.sql, set-based, or two.

A batch, or a model, that is binary alone asks nothing here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from services.metrics.domain import multiclass
from services.metrics.domain.buckets import Tile
from services.metrics.domain.figures import DetailTotals
from services.metrics.domain.identity import id_of, id_of_all
from services.metrics.domain.joining import StoredPrediction
from services.metrics.domain.kinds import Kind
from services.metrics.domain.multiclass import ClassScores
from services.metrics.domain.sums import BucketKey, Detail
from shared.database import Connection, Queries

QUERIES = Queries.load("services.metrics.answers")
_VALUE = struct.Struct("<d")


def encoded(answer: ClassScores | float) -> bytes:
    """An answer's stored form."""
    if isinstance(answer, float):
        return _VALUE.pack(answer)
    return multiclass.encode_scores(answer, id_of_all(answer.classes))


async def save(connection: Connection, predictions: Iterable[StoredPrediction]) -> None:
    """Store the answers of predictions that are not binary, and make their classes known."""
    answers = {one.prediction_key: one.answer for one in predictions if one.answer is not None}
    if not answers:
        return
    sets = {answer.classes for answer in answers.values() if isinstance(answer, ClassScores)}
    if sets:
        # In one order for everyone, as all names are made known.
        ordered = sorted(sets)
        ids = list(map(id_of_all, ordered))
        await connection.execute(QUERIES.add_class_sets, ids, list(map(json.dumps, ordered)))
    await connection.execute(QUERIES.save_answers, list(answers), list(map(encoded, answers.values())))


async def with_answers(
    connection: Connection, predictions: Sequence[StoredPrediction], kinds: Mapping[int, Kind]
) -> list[StoredPrediction]:
    """The predictions with what those that are not binary said; ``kinds`` by version id."""
    wanted = [one.prediction_key for one in predictions if kinds[one.version_id] != "binary"]
    if not wanted:
        return list(predictions)
    rows = await connection.fetch(QUERIES.read_answers, wanted)
    found = {row["prediction_key"]: row["answer"] for row in rows}
    sets = {
        multiclass.class_set_of(found[one.prediction_key])
        for one in predictions
        if kinds[one.version_id] == "multiclass"
    }
    classes = await _class_sets(connection, sets) if sets else {}

    def answered(one: StoredPrediction) -> StoredPrediction:
        match kinds[one.version_id]:
            case "binary":
                return one
            case "regression":
                return replace(one, answer=_VALUE.unpack(found[one.prediction_key])[0])
            case "multiclass":
                stored = found[one.prediction_key]
                names = classes[multiclass.class_set_of(stored)]
                return replace(one, answer=multiclass.decode_scores(stored, names))

    return [answered(one) for one in predictions]


async def _class_sets(connection: Connection, class_set_ids: Collection[int]) -> dict[int, tuple[str, ...]]:
    rows = await connection.fetch(QUERIES.read_class_sets, class_set_ids)
    return {row["class_set_id"]: tuple(row["names"]) for row in rows}


async def add_classes(connection: Connection, names: Collection[str]) -> None:
    """Make classes known that happened."""
    ordered = sorted(names)
    await connection.execute(QUERIES.add_classes, list(map(id_of, ordered)), ordered)


async def class_names(connection: Connection) -> dict[int, str]:
    """Every class that ever happened, by id."""
    return {row["class_id"]: row["name"] for row in await connection.fetch(QUERIES.read_every_class)}


async def add_to_details(connection: Connection, changes: Mapping[BucketKey, Detail]) -> None:
    """Add changes to what buckets have in detail. The models of their series must be locked."""
    keys = sorted(changes)
    columns = [list(column) for column in zip(*keys, strict=True)]
    names = {name for change in changes.values() for name in change.support}
    if names:
        await add_classes(connection, names)
    rows = await connection.fetch(QUERIES.read_class_counts, *columns)
    standing = {(row["series_id"], row["width"], row["start"]): row["classes"] for row in rows}
    details = [changes[key] for key in keys]
    await connection.execute(
        QUERIES.add_to_details,
        *columns,
        [detail.error for detail in details],
        [detail.absolute_error for detail in details],
        [detail.squared_error for detail in details],
        [_counts_after(standing.get(key, b""), changes[key]) for key in keys],
    )


def _counts_after(stored: bytes, change: Detail) -> bytes:
    counts = multiclass.total_counts([stored])
    for name in change.support:
        class_id = id_of(name)
        support, hits = counts.get(class_id, (0, 0))
        counts[class_id] = (support + change.support[name], hits + change.hits[name])
    return multiclass.encode_counts(counts)


DetailKey = tuple[int, str, str]
"""Version id, segment, window."""


async def detail_totals(
    connection: Connection, tiles: Sequence[tuple[str, Tile]], model_ids: Sequence[int]
) -> dict[DetailKey, DetailTotals]:
    """What multiclass and regression series of models have in detail, summed over the tiles of each window."""
    rows = await connection.fetch(
        QUERIES.read_detail_totals,
        [window for window, _ in tiles],
        [tile.width for _, tile in tiles],
        [tile.since for _, tile in tiles],
        [tile.until for _, tile in tiles],
        model_ids,
    )
    if not rows:
        return {}
    counted = [multiclass.total_counts([row["classes"]]) for row in rows]
    ids = {class_id for counts in counted for class_id in counts}
    found = await connection.fetch(QUERIES.read_classes, ids)
    names: dict[int, str] = {row["class_id"]: row["name"] for row in found}
    return {
        (row["version_id"], row["segment"], row["time_window"]): DetailTotals(
            error=int(row["error"]),
            absolute_error=int(row["absolute_error"]),
            squared_error=int(row["squared_error"]),
            classes={names[class_id]: count for class_id, count in counts.items()},
        )
        for row, counts in zip(rows, counted, strict=True)
    }
