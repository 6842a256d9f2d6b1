"""What is known of entities: remembered, certainly nothing, or looked up in the store."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from services.metrics import store
from services.metrics.domain.hot.keys import Keys, one_by_one
from services.metrics.domain.hot.states import PREDICTION_FIELDS, States, nothing_known, put
from services.metrics.hot.combinations import Combination, Combinations
from services.metrics.hot.memory import QUERIES, Memory
from shared.database import Connection

_STORED_FIELDS = tuple(field for field in PREDICTION_FIELDS if field not in ("predicted", "combination"))


async def states_of(connection: Connection, keys: Keys, memory: Memory, combinations: Combinations) -> States:
    """The states of entities, which must be locked; the memory must have looked since, and number as they do."""
    states, unknown = memory.recent.find(keys)
    if len(unknown):
        asked = unknown[memory.may_be_stored(keys[unknown])]
        if len(asked):
            put(states, asked, await _look_up(connection, keys[asked], combinations))
    return states


async def _look_up(connection: Connection, keys: Keys, combinations: Combinations) -> States:
    states = nothing_known(len(keys))
    place_of = {key: place for place, key in enumerate(one_by_one(keys))}
    uuids = [UUID(bytes=key) for key in place_of]
    rows = await connection.fetch(QUERIES.read_predictions, uuids)
    if rows:
        await _know(connection, rows, combinations)
    for row in rows:
        key, entity = row["prediction_key"].bytes, row["entity_key"].bytes
        number = combinations.with_ids(row["version_id"], row["segment_id"])
        if key != entity or number is None:
            for concerned in {key, entity} & place_of.keys():
                states["plain"][place_of[concerned]] = False
            continue
        place = place_of[key]
        states["predicted"][place] = True
        states["combination"][place] = number
        for field in _STORED_FIELDS:
            states[field][place] = row[field]
    for key, standing in (await store.labels(connection, uuids)).items():
        place = place_of[key.bytes]
        states["labelled"][place] = True
        states["observed_at"][place] = standing.label.observed_at
        states["first_observed_at"][place] = standing.first_observed_at
        if standing.label.outcome in (0.0, 1.0):
            states["positive"][place] = standing.label.outcome == 1.0
        else:
            states["plain"][place] = False
    return states


async def _know(connection: Connection, rows: Sequence[asyncpg.Record], combinations: Combinations) -> None:
    """Number the versions and segments of rows; those of other kinds than binary have no numbers."""
    pairs = {(row["version_id"], row["segment_id"]) for row in rows}
    unknown = {pair for pair in pairs if combinations.with_ids(*pair) is None}
    if not unknown or combinations.is_full:
        return
    models, kinds = await store.models_and_kinds_of_versions(connection, {version for version, _ in unknown})
    names = await store.segment_names(connection, {segment for _, segment in unknown})
    for version_id, segment_id in sorted(unknown):
        if kinds[version_id] == "binary":
            segments = tuple(names[segment_id])
            combinations.add(Combination(models[version_id], version_id, segment_id, segments))
