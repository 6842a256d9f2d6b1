"""A lag, and a database that stands still: the real service as a process, and the memory it takes.

``make pressure`` is the long form of it, with a million records.
"""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from benchmarks.parts import publish
from benchmarks.pressure import MIB, TAKEN, metrics_service, resident
from deploy.local.broker import Broker
from services.metrics.rebuilding import models_to_rebuild, rebuild_model
from shared.database import connect
from shared.settings import Settings
from tests.kernel_world import eventually

PREDICTIONS = 30_000
"""And as many labels, with repeats and corrections: some 62,000 records."""
BOUND = 300 * MIB
"""As docs/decisions/metrics-retention.md says."""
STANDSTILL = "batch failed late"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's memory is read from Linux's /proc")
@pytest.mark.timeout(600)
async def test_a_lag_drains_in_bounded_memory_and_waits_outside_while_the_database_stands_still(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, tmp_path: Path
) -> None:
    settings = Settings(
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        topic_prefix=topic_prefix,
        postgres_dsn=database_dsn,
    )
    total = (await publish(settings, PREDICTIONS)).records
    assert total > 2 * PREDICTIONS
    admin = await asyncpg.connect(database_dsn)
    holder = await asyncpg.connect(database_dsn)
    log = tmp_path / "service.log"

    async def taken() -> int:
        found: int = await admin.fetchval(TAKEN)
        return found

    async def standstills() -> int:
        return log.read_text(encoding="utf-8").count(STANDSTILL)

    with log.open("wb") as output:
        async with metrics_service(settings, output.fileno()) as service:
            async with holder.transaction():
                # Predictions can be read and not written: a batch that has one waits, fails, and is tried again.
                await holder.execute("LOCK TABLE metrics.prediction IN EXCLUSIVE MODE")
                await eventually(standstills, lambda found: found >= 2, "two standstills", seconds=200)
                waiting = await taken()
                assert waiting < total - PREDICTIONS, "predictions were taken that could not be stored"
                assert resident(service.pid)[1] < BOUND
            await eventually(taken, lambda found: found == total, "the lag is drained", seconds=300)
            assert resident(service.pid)[1] < BOUND
    assert await admin.fetchval("SELECT count(*) FROM metrics.prediction") == PREDICTIONS
    await admin.close()
    await holder.close()
    reader = await connect(database_dsn, role="metrics", application_name="test")
    for model in await models_to_rebuild(reader):
        assert (await rebuild_model(reader, model.model_id, check=True)).differences == []
    await reader.close()
