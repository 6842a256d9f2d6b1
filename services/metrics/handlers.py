"""What a batch of records does: join, runs, versions, policies, and how far event time has come."""

from __future__ import annotations

import json
from collections.abc import Sequence

from services.metrics import store
from services.metrics.domain.buckets import bucket_seconds
from services.metrics.domain.clock import ClockName, Gate, why_not_this_clock
from services.metrics.domain.identity import id_of
from services.metrics.domain.joining import evaluate
from services.metrics.domain.sums import Changes
from services.metrics.intake import Batch, microseconds, read
from services.metrics.joining import join, save_sums, series_of
from services.metrics.store import QUERIES, Series
from shared.contracts.models import ModelVersion, Policy
from shared.effects import Effects, Handler
from shared.errors import UsageError
from shared.records import Record

CLOCK_CHANNEL = "trueward_metrics_clock"
"""NOTIFY channel: a partition has come to wait, or a boundary was cut."""


def make_handler(clock: ClockName, interval_seconds: int) -> Handler:
    """The handler of a deployment with this clock and snapshot interval."""
    width = bucket_seconds(interval_seconds)

    async def handle(records: Sequence[Record], effects: Effects) -> None:
        gate = await _gate(effects, clock, width)
        batch = read(records, effects, gate)
        given_policies = {id_of(policy.model) for _, policy in batch.policies}
        await join(effects, batch.predictions, batch.labels, width, also_lock=given_policies)
        await _take_runs(effects, batch)
        await _take_versions(effects, batch.versions)
        await _take_policies(effects, batch.policies, width)
        if batch.reached and await store.reach(effects.connection, batch.reached):
            await effects.connection.execute("SELECT pg_notify($1, '')", CLOCK_CHANNEL)

    return handle


async def _gate(effects: Effects, clock: ClockName, width: int) -> Gate | None:
    """The event clock's gate, none on the wall. Raises ``UsageError`` where this is not the deployment's clock."""
    row = await effects.connection.fetchrow(QUERIES.read_clock)
    if row is not None:
        reason = why_not_this_clock((row["clock"], row["bucket_seconds"]), clock, width)
        if reason is not None:
            raise UsageError(reason)
    return Gate(None if row is None else row["next_boundary"]) if clock == "event" else None


async def _take_runs(effects: Effects, batch: Batch) -> None:
    if batch.runs:
        await effects.connection.execute(
            QUERIES.add_pipeline_runs,
            [run.pipeline for run in batch.runs],
            [run.model or "" for run in batch.runs],
            [microseconds(run.completed_at) for run in batch.runs],
            [run.status for run in batch.runs],
        )


async def _take_versions(effects: Effects, events: Sequence[ModelVersion]) -> None:
    if not events:
        return
    await store.add_names(effects.connection, models=[event.model for event in events])
    await effects.connection.execute(
        QUERIES.add_version_events,
        [event.model for event in events],
        [event.version for event in events],
        [event.stage for event in events],
        [microseconds(event.stage_since) for event in events],
        [json.dumps(event.known()) for event in events],
    )


async def _take_policies(effects: Effects, policies: Sequence[tuple[Record, Policy]], width: int) -> None:
    if not policies:
        return
    connection = effects.connection
    models = sorted({policy.model for _, policy in policies})
    await store.add_names(connection, models=models)
    await store.lock_models(connection, map(id_of, models))
    before = await store.declared_segments(connection, [id_of(model) for model in models])
    await connection.execute(
        QUERIES.add_policies,
        [policy.model for _, policy in policies],
        [record.partition for record, _ in policies],
        [record.offset for record, _ in policies],
        [record.received_at for record, _ in policies],
        [None if policy.effective_at is None else microseconds(policy.effective_at) for _, policy in policies],
        [policy.sha256() for _, policy in policies],
        [json.dumps(policy.known()) for _, policy in policies],
    )
    after = await store.declared_segments(connection, [id_of(model) for model in models])
    for model_id, declared in after.items():
        if declared != before.get(model_id, {}):
            await _sum_segments_anew(effects, model_id, declared, width)


async def _sum_segments_anew(
    effects: Effects, model_id: int, declared: dict[str, frozenset[str]], width: int
) -> None:
    """Declared segments changed: sum the model's raw rows again, so that the order of events does not matter."""
    connection = effects.connection
    await connection.execute(QUERIES.remove_segment_buckets, model_id)
    changes, touched = Changes(width), set[Series]()
    names: dict[int, store.Names] = {}
    async for stored, label in store.raw_rows_of(connection, model_id):
        if stored.segment_id not in names:
            names.update(await store.segment_names(connection, [stored.segment_id]))
        series = series_of(model_id, stored.version_id, names[stored.segment_id], declared)[1:]
        ids = tuple(one.series_id for one in series)
        touched.update(series)
        changes.predicted(ids, stored)
        evaluation = evaluate(stored, label)
        if evaluation is not None:
            changes.evaluated(ids, stored, evaluation, 1)
    await save_sums(connection, changes, touched, width)
