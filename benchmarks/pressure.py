"""How much memory the metrics service takes to drain a lag, however long, sampled while it does.

``make pressure`` preloads a million records into parts of the local stack, runs the real service as a process of
its own, and prints its resident memory as it goes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import typer

from benchmarks.parts import publish, running_parts
from shared.settings import Settings

MIB = 1_048_576
TAKEN = "SELECT coalesce(sum(next_offset), 0)::bigint FROM metrics.inbox"
RECORDS_A_PREDICTION = 2.07
"""A prediction, its label, and the repeats and corrections among them."""


def resident(pid: int) -> tuple[int, int]:
    """Resident memory of a process in bytes: now, and at its highest (Linux: ``/proc``)."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    )
    now, highest = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, highest


@asynccontextmanager
async def metrics_service(settings: Settings, log: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """The real service as a process of its own; ``log`` is a file's descriptor."""
    environment = {
        **os.environ,
        "TRUEWARD_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER": str(settings.kafka_idempotent_producer),
        "TRUEWARD_KAFKA_TRUE_END_OFFSETS": str(settings.kafka_true_end_offsets),
        "TRUEWARD_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "TRUEWARD_TOPIC_PREFIX": settings.topic_prefix,
        "TRUEWARD_HTTP_PORT": "0",
        "TRUEWARD_LOG_LEVEL": "WARNING",
    }
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trueward", "service", "metrics", env=environment, stdout=log, stderr=log
    )
    try:
        yield service
    finally:
        if service.returncode is None:
            service.terminate()
        await service.wait()


async def measure(records: int) -> None:
    """Preload, then watch the service drain it."""
    async with running_parts() as parts, parts.database() as database:
        settings = parts.settings(prefix=f"pressure-{uuid.uuid4().hex[:8]}.", database=database)
        started = time.perf_counter()
        total = (await publish(settings, int(records / RECORDS_A_PREDICTION) + 1)).records
        print(f"{total:,} records preloaded in {time.perf_counter() - started:.0f} s", flush=True)
        connection = await asyncpg.connect(parts.dsn(database))
        started = time.perf_counter()
        async with metrics_service(settings) as service:
            await watch(connection, service, total)
            elapsed = time.perf_counter() - started
            print(f"drained in {elapsed:.0f} s with the start ({total / elapsed:,.0f}/s)")
            print(f"highest resident memory: {resident(service.pid)[1] / MIB:.0f} MiB")
        await connection.close()


async def watch(connection: asyncpg.Connection[Any], service: asyncio.subprocess.Process, total: int) -> None:
    taken, said = 0, -1
    while taken < total:
        if service.returncode is not None:
            raise RuntimeError(f"the service ended with {service.returncode}")
        taken = await connection.fetchval(TAKEN)
        if taken * 10 // total > said:
            said = taken * 10 // total
            print(f"{taken:>10,} taken, {resident(service.pid)[0] / MIB:.0f} MiB resident", flush=True)
        await asyncio.sleep(0.2)


def main(records: Annotated[int, typer.Option(help="The lag, roughly.")] = 1_000_000) -> None:
    """Preload a lag, then watch the service drain it."""
    asyncio.run(measure(records))


if __name__ == "__main__":
    typer.run(main)
