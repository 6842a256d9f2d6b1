"""Figures of the gateway: its answers under 64 connections, against the same server with nothing to do."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import time
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import asyncpg
import httpx

from benchmarks import constant_gateway
from benchmarks.dataset import SECOND, events
from benchmarks.draining import metrics_services, until_taken
from benchmarks.parts import Parts, create_topics, flush, keyed_producer, send
from benchmarks.results import Measured, Run, ratio
from benchmarks.session import Session
from deploy.local.processes import LOOPBACK, ManagedProcess, free_port
from shared.errors import UsageError
from shared.settings import Settings

MONITORING, CONSTANT, TREND = "monitoring_vs_constant_body", "constant_body_vs_raw_asgi", "trend_p99_vs_monitoring"
NAMES = (MONITORING, CONSTANT, TREND)
CONNECTIONS = 64
TOOLS = Path(__file__).with_name("tools")
TOOLS_BIN = TOOLS / ".venv" / "bin"
EVENTS, MODEL, BEFORE_NOW = 5_000, "model-00", 3 * 3_600 * SECOND
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


async def measure(session: Session, names: Collection[str]) -> dict[str, Measured]:
    """Serve a model that has been judged; load its answers and the constant ones by turns."""
    missing = _missing(names)
    if missing and not session.scale.quick:
        raise UsageError(missing)
    if missing:
        session.say(f"{CONSTANT} and what needs wrk skipped: {missing}")
    if shutil.which("wrk") is None:
        return {}
    parts = session.parts
    async with parts.database() as database:
        settings = parts.settings(
            prefix=f"bench-{uuid.uuid4().hex[:8]}.", database=database, snapshot_interval="60s"
        )
        await _judged(parts, settings.model_copy(update={"snapshot_interval": _second()}))
        await fill_trend(parts.dsn(database), session.scale.trend_minutes)
        async with _servers(parts, settings, with_raw=not missing) as urls:
            rounds = [
                {name: await _load(url, session.scale.seconds) for name, url in urls.items()}
                for _ in range(session.scale.rounds)
            ]
    return {name: found for name, found in _figures(rounds).items() if name in names}


def _second() -> object:
    return Settings(snapshot_interval="1s").snapshot_interval


def _missing(names: Collection[str]) -> str | None:
    if shutil.which("wrk") is None:
        return "wrk is not installed (apt-get install wrk)"
    if CONSTANT in names and not (TOOLS_BIN / "granian").exists():
        return "granian is not installed (make bench-peers)"
    return None


async def _judged(parts: Parts, settings: Settings) -> None:
    """Have metrics and alerting judge some predictions of the last hours, and stop them."""
    await create_topics(settings)
    producer, records = keyed_producer(settings), 0
    for event in events(EVENTS, 2, start=time.time_ns() // 1_000 - BEFORE_NOW):
        send(producer, settings, event)
        records += 1
    flush(producer)
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    alerting = parts.service("alerting", settings)
    alerting.start()
    try:
        async with metrics_services(parts, settings, 1), asyncio.timeout(120):
            await until_taken(connection, records)
            await _until_alerting_follows(connection)
    finally:
        await asyncio.to_thread(alerting.stop)
        await connection.close()


async def _until_alerting_follows(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Until a snapshot that was cut after everything was taken in has been judged."""
    newest = "SELECT coalesce(max(sequence), 0) FROM metrics.snapshot WHERE model = $1"
    judged = "SELECT coalesce(max(snapshot_sequence), 0) FROM alerting.published_states WHERE model = $1"
    wanted = await connection.fetchval(newest, MODEL) + 1
    while await connection.fetchval(judged, MODEL) < wanted:  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0.1)


async def fill_trend(dsn: str, minutes: int) -> None:
    """Put so many snapshots a minute apart before the newest real one: copies of it, renumbered and redated."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                """
                DELETE FROM metrics.snapshot
                WHERE model = $1 AND sequence < (SELECT max(sequence) FROM metrics.snapshot WHERE model = $1)
                """,
                MODEL,
            )
            await connection.execute(
                """
                UPDATE metrics.snapshot
                SET sequence = $2, document = document || jsonb_build_object('sequence', $2::bigint)
                WHERE model = $1
                """,
                MODEL,
                minutes,
            )
            await connection.execute(
                """
                INSERT INTO metrics.snapshot (model, sequence, snapshot_id, as_of, document)
                SELECT model, number, 'copy-' || number, moment,
                       document || jsonb_build_object('sequence', number, 'snapshot_id', 'copy-' || number,
                                                      'as_of', to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
                FROM metrics.snapshot
                CROSS JOIN generate_series(1, $2 - 1) AS number
                CROSS JOIN LATERAL (SELECT as_of - make_interval(mins => ($2 - number)::integer)) AS at (moment)
                WHERE model = $1 AND sequence = $2
                """,
                MODEL,
                minutes,
            )
            await connection.execute(
                "UPDATE metrics.latest_figures SET sequence = $2 WHERE model = $1", MODEL, minutes
            )
        await connection.execute("VACUUM ANALYZE metrics.snapshot")
    finally:
        await connection.close()


@asynccontextmanager
async def _servers(parts: Parts, settings: Settings, *, with_raw: bool) -> AsyncIterator[dict[str, str]]:
    """URLs by what they answer. All servers run, one at a time is loaded."""
    ports = [free_port() for _ in range(3)]
    gateway, constant, raw = (f"http://{LOOPBACK}:{port}" for port in ports)
    body = parts.folder / "body.json"
    told = {constant_gateway.BODY_FILE: str(body)}
    processes: list[ManagedProcess] = []
    try:
        processes.append(
            parts.process(
                "gateway",
                (sys.executable, "-m", "trueward", "service", "gateway"),
                settings,
                {"TRUEWARD_HTTP_PORT": str(ports[0])},
                ready=f"{gateway}/health/ready",
            )
        )
        await _started(processes[-1])
        asked = urlencode({"model": MODEL})
        monitoring = f"{gateway}/api/v1/mlops/monitoring?{asked}"
        body.write_bytes(await _answer(monitoring))
        processes.append(
            parts.process(
                "constant",
                (sys.executable, "-m", "benchmarks.constant_gateway"),
                settings,
                {"TRUEWARD_HTTP_PORT": str(ports[1]), **told},
                ready=f"{constant}/health/ready",
            )
        )
        urls = {
            "monitoring": monitoring,
            "constant": constant + constant_gateway.PATH,
            "trend": f"{gateway}/api/v1/mlops/monitoring/trend?{asked}&days=90",
        }
        if with_raw:
            argv = (str(TOOLS_BIN / "granian"), "--interface", "asgi", "--host", LOOPBACK, "--port", str(ports[2]))
            processes.append(
                parts.process(
                    "raw",
                    (*argv, "--no-ws", "raw_asgi:app"),
                    settings,
                    {**told, "PYTHONPATH": str(TOOLS)},
                    ready=raw,
                )
            )
            urls["raw"] = raw
        for process in processes[1:]:
            await _started(process)
        yield urls
    finally:
        for process in processes:
            await asyncio.to_thread(process.stop)


async def _started(process: ManagedProcess) -> None:
    process.start()
    await process.wait_ready()


async def _answer(url: str) -> bytes:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
        answer.raise_for_status()
        return answer.content


async def _load(url: str, seconds: int) -> Run:
    """Requests a second, and the 99th percentile of their milliseconds, with wrk. One thread of it is enough."""
    await _answer(url)
    argv = (
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(CONNECTIONS),
        "--duration",
        f"{seconds}s",
        "--timeout",
        "30s",
        "--latency",
        url,
    )
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", output)
    if rate is None or tail is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk could not load {url}: {output}")
    return {"requests_per_second": float(rate[1]), "p99_ms": float(tail[1]) * _UNITS[tail[2]]}


def _figures(rounds: Collection[dict[str, Run]]) -> dict[str, Measured]:
    def runs(*kinds: str) -> tuple[Run, ...]:
        return tuple({f"{kind}_{key}": one[kind][key] for kind in kinds for key in one[kind]} for one in rounds)

    both = runs("monitoring", "constant")
    measured = {
        MONITORING: ratio(
            ({**run, "p99_ratio": run["monitoring_p99_ms"] / run["constant_p99_ms"]} for run in both),
            "monitoring_requests_per_second",
            "constant_requests_per_second",
        ),
        TREND: ratio(runs("trend", "monitoring"), "trend_p99_ms", "monitoring_p99_ms"),
    }
    if all("raw" in one for one in rounds):
        measured[CONSTANT] = ratio(
            runs("constant", "raw"), "constant_requests_per_second", "raw_requests_per_second"
        )
    return measured
