"""What state costs: draining with millions of predictions in the store that still wait for their labels."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from benchmarks.dataset import START
from benchmarks.draining import service_drain
from benchmarks.results import Measured, ratio
from benchmarks.session import Session
from services.metrics import store
from services.metrics.domain.contributions import score
from services.metrics.domain.identity import id_of
from services.metrics.domain.joining import StoredPrediction
from shared.database import connect

NAMES = ("pending_10m_vs_empty",)
PORTION = 100_000
ROUNDS = 2
BETWEEN_MICROSECONDS = 1_000


async def measure(session: Session) -> dict[str, Measured]:
    """Fill a database once; drain by turns into copies of it and into empty ones."""
    parts, data, quick = session.parts, await session.data(), session.scale.quick
    runs = []
    async with parts.database() as filled:
        await fill(parts.dsn(filled), session.scale.pending)
        # As a store is that has grown for days, not within this minute.
        await parts.execute("VACUUM (FREEZE, ANALYZE)", filled)
        await parts.execute("CHECKPOINT", filled)
        session.say(f"{session.scale.pending:,} predictions wait in the store")
        for _ in range(1 if quick else ROUNDS):
            empty = await service_drain(parts, data, meet_boundary=False)
            full = await service_drain(parts, data, template=filled, meet_boundary=False)
            runs.append(
                {
                    "pending_events_per_second": full.events_per_second,
                    "empty_events_per_second": empty.events_per_second,
                }
            )
    return {NAMES[0]: ratio(runs, "pending_events_per_second", "empty_events_per_second")}


async def fill(dsn: str, count: int) -> None:
    """Store predictions of a model of their own by the service's own function, as a drain would have."""
    connection = await connect(dsn, role="metrics", application_name="bench-fill")
    try:
        for first in range(0, count, PORTION):
            waiting = _waiting(range(first, min(first + PORTION, count)))
            await store.add_predictions(connection, waiting, kept_from=lambda predicted_at: predicted_at)
    finally:
        await connection.close()


def _waiting(numbers: range) -> Iterator[StoredPrediction]:
    version, segment, scored = id_of("waiting", "1"), id_of(), score(0.25)
    for number in numbers:
        # Keys are hashes, spread over all of their range: random ones stand in their place.
        key = uuid.uuid4()
        yield StoredPrediction(
            prediction_key=key,
            entity_key=key,
            version_id=version,
            segment_id=segment,
            predicted_at=START + number * BETWEEN_MICROSECONDS,
            content_hash=number,
            probability=0.25,
            predicted_positive=False,
            squared_error_if_negative=scored.squared_error_if_negative,
            squared_error_if_positive=scored.squared_error_if_positive,
            log_loss_if_negative=scored.log_loss_if_negative,
            log_loss_if_positive=scored.log_loss_if_positive,
        )
