"""What a batch of records does: join, runs, versions, policies, and how far event time has come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import asyncpg
import numpy as np

from services.metrics import joining, store
from services.metrics.domain.buckets import MICROSECONDS, bucket_seconds
from services.metrics.domain.clock import ClockName, Gate, why_not_this_clock
from services.metrics.domain.horizons import DEFAULT_HORIZONS, Horizons, why_not_these
from services.metrics.domain.hot.keys import KEY_BYTES, Keys
from services.metrics.domain.identity import id_of
from services.metrics.hot import joining as hot
from services.metrics.hot.decoding import Decoded, decode
from services.metrics.hot.gathering import OneByOne, gather
from services.metrics.hot.memory import Memory
from services.metrics.intake import Batch, microseconds, sort_in
from services.metrics.joining import Bounds
from services.metrics.store import QUERIES, begun_horizons
from services.metrics.tallying import sum_segments_anew
from shared.contracts.models import ModelVersion, Policy
from shared.effects import Effects, Handler
from shared.errors import UsageError
from shared.records import Record, Records

CLOCK_CHANNEL = "trueward_metrics_clock"
"""NOTIFY channel: a partition has come to wait, or a boundary was cut."""


def make_handler(
    clock: ClockName,
    interval_seconds: int,
    horizons: Horizons = DEFAULT_HORIZONS,
    memory: Memory | None = None,
) -> Handler:
    """The handler of a deployment with this clock, snapshot interval and horizons, and the instance's memory."""
    width = bucket_seconds(interval_seconds)
    remembered = Memory() if memory is None else memory

    async def handle(records: Sequence[Record], effects: Effects) -> None:
        taken = records if isinstance(records, Records) else Records.of(records)
        row = await effects.connection.fetchrow(QUERIES.read_clock)
        _check_deployment(row, clock, Bounds(width, horizons))
        gate = _gate(row, clock)
        cut = None if row is None or row["last_as_of"] is None else row["last_as_of"] * MICROSECONDS
        bounds = Bounds(width, horizons, cut)
        batch = await _join(effects, taken, gate, bounds, remembered)
        await _take_runs(effects, batch)
        await _take_versions(effects, batch.versions)
        await _take_policies(effects, batch.policies, bounds)
        if batch.reached and await store.reach(effects.connection, batch.reached):
            await effects.connection.execute("SELECT pg_notify($1, '')", CLOCK_CHANNEL)

    return handle


async def _join(effects: Effects, records: Records, gate: Gate | None, bounds: Bounds, memory: Memory) -> Batch:
    """Join predictions and labels: what is plain in columns, the rest one by one. Returns the rest, sorted.

    Whatever the batch locks, it locks in one order: all entities, then all models.
    """
    decoded = _plain(records, gate, memory)
    one_by_one = OneByOne(records.runs)
    one_by_one.add(decoded.others(records.runs))
    gathered, apart = gather(decoded), one_by_one.keys()
    met = look = None
    if len(gathered.keys):
        with effects.at_leisure_if_long():
            await store.lock_entity_shards(effects.connection, _shards(gathered.keys, apart))
        look = await memory.look(effects.connection)
        if gathered.combinations is not memory.combinations:
            # There were too many, and they are numbered anew.
            gathered = gather(_plain(records, gate, memory))
        met, difficult = await hot.find(effects, gathered, apart, bounds, memory)
        one_by_one.add(gathered.origins_of(difficult))
    batch = sort_in(one_by_one.in_order(), effects, gate)
    work = await joining.find(effects, batch.predictions, batch.labels, bounds)
    await joining.make_names_known(effects.connection, [part.named() for part in (met, work) if part is not None])
    concerned = {id_of(policy.model) for _, policy in batch.policies}
    concerned |= set() if met is None else met.model_ids()
    concerned |= set() if work is None else set(work.model_ids.values())
    if concerned:
        with effects.at_leisure_if_long():
            await store.lock_models(effects.connection, concerned)
    if met is not None and look is not None:
        await hot.settle(effects, met, memory, look)
        effects.after_commit(partial(memory.committed, look, met.keys, one_by_one.keys()))
    if work is not None:
        await joining.settle(effects, work)
    return batch


def _shards(*keys: Keys) -> set[int]:
    last_bytes = np.concatenate(keys).view(np.uint8).reshape(-1, KEY_BYTES)[:, -1]
    return set(np.unique(last_bytes % store.ENTITY_SHARDS).tolist())


def prepared(records: Records, memory: Memory) -> Decoded:
    """The plain events of records, decoded once."""
    if not isinstance(records.memo, Decoded) or records.memo.combinations is not memory.combinations:
        records.memo = decode(records.runs, memory.combinations)
    found: Decoded = records.memo
    return found


def _plain(records: Records, gate: Gate | None, memory: Memory) -> Decoded:
    """The plain events of a batch; where the event clock may hold a partition, all of it is taken one by one."""
    parts = records.parts or (records,)
    found = Decoded.together([prepared(part, memory) for part in parts], [len(part.runs) for part in parts])
    if gate is None:
        return found
    if gate.boundary is None:
        return found.without(range(len(records.runs)))
    apart = found.reaching(gate.boundary * MICROSECONDS) | {number for number, _ in found.others(records.runs)}
    # Whatever is behind a record that is held waits with it, in whichever run of its partition.
    places = {records.runs[number].place for number in apart}
    return found.without([number for number, run in enumerate(records.runs) if run.place in places])


def _gate(row: asyncpg.Record | None, clock: ClockName) -> Gate | None:
    """The event clock's gate, none on the wall."""
    return Gate(None if row is None else row["next_boundary"]) if clock == "event" else None


def _check_deployment(row: asyncpg.Record | None, clock: ClockName, bounds: Bounds) -> None:
    """Raises ``UsageError`` where the database was begun with another clock, other buckets or other horizons."""
    if row is None:
        return
    reason = why_not_this_clock((row["clock"], row["bucket_seconds"]), clock, bounds.bucket_seconds)
    begun_with = begun_horizons(row)
    if reason is None and begun_with is not None:
        reason = why_not_these(begun_with, bounds.horizons)
    if reason is not None:
        raise UsageError(reason)


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


async def _take_policies(effects: Effects, policies: Sequence[tuple[Record, Policy]], bounds: Bounds) -> None:
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
            await sum_segments_anew(connection, model_id, declared, bounds)
