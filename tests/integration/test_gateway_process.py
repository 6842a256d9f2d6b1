"""The gateway as a process: what it does while its parts are away, and how it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from deploy.local.broker import Broker
from shared.broker import create_missing_topics
from shared.settings import Settings
from tests.integration.conftest import NOBODY, Start, free_port
from tests.parts import RestartableBroker

PATIENCE_SECONDS = 40


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=20, trust_env=False)


async def until_ok(url: str, status: int = 200) -> httpx.Response:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await asyncio.to_thread(get, url)).status_code != status:  # noqa: ASYNC110 (only asking tells)
            await asyncio.sleep(0.1)
    return answer


async def test_a_database_that_is_not_there_yet_is_waited_for(
    start: Start, postgres_server: str, template_database: str
) -> None:
    name = f"{template_database}_late"
    dsn = f"{postgres_server.rpartition('/')[0]}/{name}"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(url)
    waiting = get(f"{url}/health/ready")
    assert waiting.status_code == 503
    assert waiting.headers["content-type"] == "application/problem+json"
    assert f'database "{name}" does not exist' in waiting.json()["detail"]
    assert get(f"{url}/api/v1/models").status_code == 503
    with psycopg.connect(postgres_server, autocommit=True) as administrator:
        administrator.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            unmigrated = await until_ok(f"{url}/api/v1/models", 503)
            assert unmigrated.json()["type"].startswith("urn:trueward:problem:database-")
            administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
            administrator.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"'.encode())
            assert (await until_ok(f"{url}/health/ready")).json()["status"] == "ready"
            assert get(f"{url}/api/v1/models").json() == {"models": [], "next_cursor": None}
            assert gateway.stop() == 0
        finally:
            administrator.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
    assert "trying again" in gateway.said()
    assert "Traceback" not in gateway.said()


def test_a_database_that_is_not_migrated_is_said(start: Start, postgres_server: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start(
        "service", "gateway", "--http-port", str(port), "--postgres", postgres_server, "--kafka", NOBODY
    )
    gateway.wait_until_answers(url)
    for path in ("/api/v1/models", "/health/ready"):
        answer = get(f"{url}{path}")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:trueward:problem:database-not-migrated"
        assert "trueward migrate" in answer.json()["detail"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told(start: Start, database_dsn: str, number: signal.Signals) -> None:
    port = free_port()
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", database_dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(f"http://127.0.0.1:{port}")
    assert gateway.stop(number) == 0
    assert "Traceback" not in gateway.said()
    assert "Unclosed" not in gateway.said()


def test_a_stream_that_is_open_ends_whole_when_it_is_told_to_stop(start: Start, database_dsn: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", database_dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(url)
    with httpx.stream("GET", f"{url}/api/v1/events", timeout=20, trust_env=False) as stream:
        parts = stream.iter_text()
        assert next(parts).startswith("retry: ")
        gateway.process.send_signal(signal.SIGTERM)
        # A connection that is cut would raise here: the answer has no end then.
        assert all(part == ": still here\n\n" for part in parts)
    assert gateway.process.wait(timeout=PATIENCE_SECONDS) == 0
    assert "Traceback" not in gateway.said()


def test_a_client_that_leaves_a_stream_is_let_go(start: Start, database_dsn: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", database_dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(url)

    def clients() -> float:
        lines = get(f"{url}/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("trueward_event_stream_clients ")).split()[1])

    with httpx.stream("GET", f"{url}/api/v1/events", timeout=20, trust_env=False) as stream:
        parts = stream.iter_text()
        assert next(parts).startswith("retry: ")
        assert clients() == 1
    deadline = time.monotonic() + PATIENCE_SECONDS
    while clients() != 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.said()


def test_open_streams_keep_nobody_else_from_being_answered(start: Start, database_dsn: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", database_dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(url)
    with ExitStack() as stack:
        for _ in range(300):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            stream.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.1 200"
        assert "trueward_event_stream_clients 300.0" in get(f"{url}/metrics").text
    assert gateway.stop() == 0


def test_what_is_asked_when_it_is_told_to_stop_is_answered(start: Start, database_dsn: str) -> None:
    """A request that waits for the database, which holds it up until the gateway has been told."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", database_dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(url)
    with psycopg.connect(database_dsn) as holder, ThreadPoolExecutor() as threads:
        holder.execute("LOCK TABLE metrics.model IN ACCESS EXCLUSIVE MODE")
        asked = threads.submit(get, f"{url}/api/v1/models")
        with psycopg.connect(database_dsn, autocommit=True) as watcher:
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'metrics.model'::regclass"
            deadline = time.monotonic() + PATIENCE_SECONDS
            while watcher.execute(waits).fetchone() == (0,):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        holder.rollback()
        assert asked.result(timeout=PATIENCE_SECONDS).json() == {"models": [], "next_cursor": None}
    assert gateway.process.wait(timeout=PATIENCE_SECONDS) == 0


def test_a_port_in_use_is_one_clear_line(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = start(
            "service", "gateway", "--http-port", str(port), "--postgres", "postgresql://x", "--kafka", NOBODY
        )
        assert gateway.process.wait(timeout=PATIENCE_SECONDS) == 2
    assert gateway.said() == f"trueward: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_wrong_setting_is_one_clear_line(start: Start) -> None:
    gateway = start("service", "gateway", TRUEWARD_DECISION_WAIT_SECONDS="soon")
    assert gateway.process.wait(timeout=PATIENCE_SECONDS) == 2
    assert gateway.said().startswith("trueward: TRUEWARD_DECISION_WAIT_SECONDS: ")
    assert gateway.said().count("\n") == 1


def test_only_the_loopback_is_served_unless_told_otherwise(start: Start, database_dsn: str) -> None:
    port = free_port()
    gateway = start("service", "gateway", "--http-port", str(port), "--postgres", database_dsn, "--kafka", NOBODY)
    gateway.wait_until_answers(f"http://127.0.0.1:{port}")
    # All of 127.0.0.0/8 is this machine; a server on every address would answer here too.
    with pytest.raises(httpx.ConnectError):
        get(f"http://127.0.0.2:{port}/health/live")


async def test_a_broker_that_goes_and_comes_back_is_found_again(
    start: Start, database_dsn: str, restartable_broker: RestartableBroker, topic_prefix: str
) -> None:
    broker: Broker = restartable_broker.broker
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **broker.service_environment(),
        "TRUEWARD_POSTGRES_DSN": database_dsn,
        "TRUEWARD_TOPIC_PREFIX": topic_prefix,
    }
    gateway = start("service", "gateway", "--http-port", str(port), **environment)
    gateway.wait_until_answers(url)

    def kafka() -> bool:
        found: bool = get(f"{url}/api/v1/system/status").json()["dependencies"]["kafka"]["ok"]
        return found

    async def until(wanted: bool) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await asyncio.to_thread(kafka) is not wanted:  # noqa: ASYNC110 (only asking tells)
                await asyncio.sleep(0.1)

    assert not kafka()
    await restartable_broker.start()
    await create_missing_topics(
        Settings(kafka_bootstrap_servers=broker.bootstrap_servers, topic_prefix=topic_prefix)
    )
    await until(wanted=True)
    restartable_broker.kill()
    await until(wanted=False)
    await restartable_broker.start()
    await until(wanted=True)
    assert gateway.stop() == 0
