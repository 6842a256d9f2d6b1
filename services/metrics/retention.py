"""Retention: rows go with age, by themselves, in small transactions, once nothing can need them any more.

Age is counted in the time of boundaries. Any instance may do any part at any time: what goes is looked at again
under the locks that the join takes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from services.metrics import store
from services.metrics.answers import store as answers
from services.metrics.clocks import horizons_of, interval_of, settings_of
from services.metrics.domain.buckets import DAY_SECONDS, MICROSECONDS, bucket_seconds, widths
from services.metrics.domain.horizons import Standing
from services.metrics.domain.joining import Label, StoredPrediction
from services.metrics.domain.retention import SETTLED_WIDTH, kept_until, narrow_before, raw_cutoff
from services.metrics.instruments import REMOVED_ROWS_TOTAL
from services.metrics.joining import Bounds
from services.metrics.store import UPKEEP
from services.metrics.tallying import Tally
from shared.database import Connection
from shared.effects import Effects
from shared.service import Context

PASS_SECONDS = 60.0
"""Wall time between two passes."""
ENTITIES_A_TURN = 500
ROWS_A_TURN = 2_000
"""Rows of one kind that one transaction removes; some ten milliseconds."""
log = structlog.get_logger()


@dataclass(slots=True)
class AgedEntity:
    """An entity's raw rows, each with when it is kept from (microseconds since 1970; None: not told)."""

    predictions: list[tuple[StoredPrediction, int | None]] = field(default_factory=list)
    label: tuple[Standing, int | None] | None = None

    @property
    def moments(self) -> list[int | None]:
        """When the rows are kept from."""
        moments = [kept_from for _, kept_from in self.predictions]
        return moments if self.label is None else [*moments, self.label[1]]


async def keep_within_bounds(context: Context) -> None:
    """Remove what is old, pass after pass; runs until cancelled."""
    while True:
        await remove_old(context)
        await asyncio.sleep(PASS_SECONDS)


async def remove_old(context: Context) -> None:
    """One pass over everything that goes with age."""
    async with context.pool.acquire() as connection:
        row = await connection.fetchrow(UPKEEP.read_boundary)
    # While intake is behind, what belongs to old rows may still be on its way.
    if row is None or row["last_as_of"] is None or row["catching_up"]:
        return
    as_of: int = row["last_as_of"]
    await _tell_ages(context, as_of * MICROSECONDS)
    await _remove_narrow_buckets(context, as_of)
    retention = int(settings_of(context.settings).raw_retention.total_seconds()) * MICROSECONDS
    while await remove_some_entities(context, as_of * MICROSECONDS, raw_cutoff(as_of, retention)):
        pass
    await _remove_rows(
        context,
        "pipeline_runs",
        UPKEEP.remove_pipeline_runs,
        as_of * MICROSECONDS - retention,
        as_of * MICROSECONDS,
        ROWS_A_TURN,
    )
    await _remove_rows(
        context,
        "snapshots",
        UPKEEP.remove_snapshots,
        settings_of(context.settings).snapshot_retention,
        ROWS_A_TURN,
    )


async def _tell_ages(context: Context, boundary: int) -> None:
    for statement in (UPKEEP.tell_predictions, UPKEEP.tell_labels):
        told = ROWS_A_TURN
        while told == ROWS_A_TURN:
            async with context.transaction() as effects:
                told = _count(await effects.connection.execute(statement, boundary, ROWS_A_TURN))


async def _remove_rows(context: Context, kind: str, statement: str, *arguments: object) -> None:
    """Portions of rows that nobody else changes. The statement's last argument is how many at most."""
    removed = ROWS_A_TURN
    while removed == ROWS_A_TURN:
        async with context.transaction() as effects:
            removed = _count(await effects.connection.execute(statement, *arguments))
            effects.count(REMOVED_ROWS_TOTAL, removed, kind=kind)
        if removed:
            log.info("old rows removed", kind=kind, count=removed)


async def _remove_narrow_buckets(context: Context, as_of: int) -> None:
    before = narrow_before(as_of)
    narrow = [width for width in widths(bucket_seconds(interval_of(context.settings))) if width < DAY_SECONDS]
    async with context.transaction() as effects:
        # Said before anything goes: who holds sums against raw rows must not miss what is gone.
        await effects.connection.execute(UPKEEP.move_narrow_before, before)
        rows = await effects.connection.fetch(UPKEEP.read_models_with_narrow_buckets, narrow, before)
    for row in rows:
        removed = ROWS_A_TURN
        while removed == ROWS_A_TURN:
            async with context.transaction() as effects:
                await store.lock_models(effects.connection, [row["model_id"]])
                removed = _count(
                    await effects.connection.execute(
                        UPKEEP.remove_narrow_buckets, narrow, before, row["model_id"], ROWS_A_TURN
                    )
                )
                effects.count(REMOVED_ROWS_TOTAL, removed, kind="buckets")


async def remove_some_entities(context: Context, present: int, cutoff: int) -> int:
    """Look at the oldest entities; remove those of which every row is old. Returns how many were looked at."""
    async with context.transaction() as effects:
        connection = effects.connection
        rows = await connection.fetch(UPKEEP.read_old_entities, cutoff, ENTITIES_A_TURN)
        entities = await _read_locked(connection, [row["entity_key"] for row in rows])
        goes: dict[UUID, AgedEntity] = {}
        stays: list[tuple[AgedEntity, int]] = []
        for key, entity in entities.items():
            youngest = kept_until(entity.moments, cutoff, present)
            if youngest is None:
                goes[key] = entity
            else:
                stays.append((entity, youngest))
        await _keep_longer(connection, stays)
        if goes:
            bounds = Bounds(bucket_seconds(interval_of(context.settings)), horizons_of(context.settings))
            await _settle(effects, goes, bounds)
            await _remove(effects, goes)
    return len(rows)


async def _read_locked(connection: Connection, keys: Sequence[UUID]) -> dict[UUID, AgedEntity]:
    """The entities' rows, under the locks by which nobody else joins or removes them."""
    await store.lock_entities(connection, keys)
    entities: dict[UUID, AgedEntity] = defaultdict(AgedEntity)
    for row in await connection.fetch(UPKEEP.read_rows_of_entities, keys):
        stored = store.prediction_of(row)
        entities[stored.entity_key].predictions.append((stored, row["kept_from"]))
    for row in await connection.fetch(UPKEEP.read_labels_of_entities, keys):
        entities[row["entity_key"]].label = (store.standing_of(row), row["kept_from"])
    return entities


async def _keep_longer(connection: Connection, entities: Iterable[tuple[AgedEntity, int]]) -> None:
    """Old rows that a younger one still needs are looked at again when that one is old."""
    predictions, labels = [], []
    for entity, youngest in entities:
        predictions += [(stored.prediction_key, youngest) for stored, _ in entity.predictions]
        if entity.label is not None and entity.predictions:
            labels.append((entity.predictions[0][0].entity_key, youngest))
    for statement, moved in ((UPKEEP.keep_predictions_longer, predictions), (UPKEEP.keep_labels_longer, labels)):
        if moved:
            await connection.execute(statement, [key for key, _ in moved], [moment for _, moment in moved])


async def _settle(effects: Effects, goes: dict[UUID, AgedEntity], bounds: Bounds) -> None:
    """Remember what the rows have contributed, as the buckets hold it, before they go."""
    connection = effects.connection
    rows = [stored for entity in goes.values() for stored, _ in entity.predictions]
    models, kinds = await store.models_and_kinds_of_versions(connection, {stored.version_id for stored in rows})
    model_ids = set(models.values())
    await store.lock_models(connection, model_ids)
    declared = await store.declared_segments(connection, model_ids)
    limits = await store.new_label_limits(connection, model_ids)
    tallies = {
        model_id: Tally(model_id, declared.get(model_id, {}), bounds, DAY_SECONDS) for model_id in model_ids
    }
    for tally in tallies.values():
        await tally.know_segments(connection, {stored.segment_id for stored in rows})
    labelled: dict[tuple[int, UUID], Label] = {}
    for stored in await answers.with_answers(connection, rows, kinds):
        model_id, found = models[stored.version_id], goes[stored.entity_key].label
        label = tallies[model_id].add(stored, None if found is None else found[0])
        if label is not None:
            labelled[model_id, stored.entity_key] = label
    for (model_id, _), label in labelled.items():
        tallies[model_id].add_label(label, limits.get(model_id))
    sums = {
        (series_id, SETTLED_WIDTH, start): found
        for tally in tallies.values()
        for (series_id, _, start), found in tally.changes.by_bucket((DAY_SECONDS,)).items()
    }
    if sums:
        await store.add_to_buckets(connection, sums)
    await _settle_counts(connection, tallies)


async def _settle_counts(connection: Connection, tallies: Mapping[int, Tally]) -> None:
    """Of what label buckets and models count, so much is of rows that go."""
    buckets = [
        (model_id, start, found.entities, max(found.moments), found.moments[max(found.moments)])
        for model_id, tally in sorted(tallies.items())
        for start, found in sorted(tally.labels.items())
    ]
    if buckets:
        columns = [list(column) for column in zip(*buckets, strict=True)]
        await connection.execute(UPKEEP.settle_label_buckets, *columns)
    models = sorted(tallies)
    if models:
        await connection.execute(
            UPKEEP.settle_models,
            models,
            [tallies[model_id].newest_prediction for model_id in models],
            [tallies[model_id].new_labels for model_id in models],
        )


async def _remove(effects: Effects, goes: dict[UUID, AgedEntity]) -> None:
    predictions = [stored.prediction_key for entity in goes.values() for stored, _ in entity.predictions]
    labels = [key for key, entity in goes.items() if entity.label is not None]
    await effects.connection.execute(UPKEEP.remove_predictions, predictions)
    await effects.connection.execute(UPKEEP.remove_labels, labels)
    counts = {
        "predictions": len(predictions),
        "unlabelled_predictions": sum(len(one.predictions) for one in goes.values() if one.label is None),
        "labels": len(labels),
        "unmatched_labels": sum(not goes[key].predictions for key in labels),
    }
    for kind, count in counts.items():
        effects.count(REMOVED_ROWS_TOTAL, count, kind=kind)
    effects.after_commit(lambda: log.info("old predictions and labels removed", **counts))


def _count(status: str) -> int:
    """How many rows a statement's status tells of."""
    return int(status.rsplit(maxsplit=1)[-1])
