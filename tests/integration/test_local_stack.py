"""The local stack on its real parts; the services are stand-ins, since here only their lives matter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import apache_kafka, broker
from deploy.local.endpoints import FILE_NAME
from deploy.local.probes import postgres_answers
from deploy.local.processes import ManagedProcess, free_port
from tests import parts

PROGRAM = Path(__file__).with_name("stack_with_stand_ins.py")
PROCESSES = {"metrics", "alerting", "retrain", "gateway", "broker", "postgres"}


@dataclass
class Stack:
    """A running ``up``, and what it says."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    log: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data_dir / FILE_NAME).read_text())
        return found

    @property
    def pids(self) -> dict[str, int]:
        found: dict[str, int] = self.endpoints["processes"]
        return found

    def said(self) -> str:
        return self.log.read_text()

    def kill(self, name: str) -> int:
        """Kill one of its processes; returns the new one's pid when ``endpoints.json`` has it."""
        old = self.pids[name]
        os.kill(old, signal.SIGKILL)
        until(lambda: self.pids[name] != old)
        return self.pids[name]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def running(data_dir: Path, **options: object) -> Iterator[Stack]:
    chosen = {"data_dir": str(data_dir), "http_port": 0, "kafka_port": 0, "postgres_port": 0, **options}
    chosen.setdefault("broker", parts.broker_choice())
    log = data_dir.parent / f"{data_dir.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(chosen)],
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
        )
    stack = Stack(process, data_dir, log)
    try:
        until(lambda: (data_dir / FILE_NAME).exists() or process.poll() is not None, 90)
        assert process.poll() is None, stack.said()
        yield stack
    finally:
        if process.poll() is None:
            stack.stop()


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with parts.scratch_folder() as folder:
        yield folder / "data"


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def trueward_up(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trueward", "up", "--data-dir", str(data_dir), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_what_dies_is_started_again_and_the_end_leaves_nothing(data_dir: Path) -> None:
    with running(data_dir) as stack:
        first = stack.endpoints
        assert set(first["processes"]) == PROCESSES
        assert first["http"].startswith("http://127.0.0.1:")
        assert first["kafka"].startswith("127.0.0.1:")
        for name in ("metrics", "postgres", "gateway"):
            stack.kill(name)
            assert f"{name} ended (killed by SIGKILL); starting it again in 0.25 s" in stack.said()
        stack.kill("broker")
        until(lambda: all(psutil.pid_exists(pid) for pid in stack.pids.values()))
        last = stack.endpoints
        assert {**last, "processes": None} == {**first, "processes": None}
        until(lambda: asyncio.run(postgres_answers(last["postgres"])))
        assert stack.stop() == 0
        assert not (data_dir / FILE_NAME).exists()
        assert not any(psutil.pid_exists(pid) for pid in last["processes"].values())
        assert "stopping" in stack.said()


def test_children_die_with_an_up_that_is_killed_and_a_new_one_starts_over(data_dir: Path) -> None:
    with running(data_dir) as stack:
        children = [psutil.Process(pid) for pid in stack.pids.values()]
        stack.process.kill()
        stack.process.wait()
        until(lambda: not any(alive(child) for child in children), 10)
    (data_dir / FILE_NAME).unlink()
    with running(data_dir) as stack:
        assert set(stack.pids) == PROCESSES


@pytest.mark.needs_restartable_broker
def test_data_survive_a_restart_with_the_same_folder(data_dir: Path) -> None:
    with running(data_dir) as stack:
        asyncio.run(leave_data(stack.endpoints))
        stack.stop()
    with running(data_dir) as stack:
        assert asyncio.run(find_data(stack.endpoints)) == (b"kept", 7)
        assert "offsets of the old one forgotten" not in stack.said()


def test_a_service_that_cannot_run_with_what_it_is_told_ends_up_with_its_reason(
    data_dir: Path, kafka_broker: broker.Broker, database_dsn: str, topic_prefix: str
) -> None:
    with psycopg.connect(database_dsn) as connection:
        connection.execute(
            "INSERT INTO metrics.clock (clock, interval_seconds, bucket_seconds) VALUES ('wall', 60, 60)"
        )
    # The sums that exist are by the minute: boundaries ten seconds apart cannot be cut from them.
    given = ["--kafka", kafka_broker.bootstrap_servers, "--postgres", database_dsn, "--topic-prefix", topic_prefix]
    ended = trueward_up(data_dir, *given, "--http-port", "0", "--snapshot-interval", "10s")
    assert ended.returncode == 2
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("trueward: metrics cannot run like this: ")
    assert "begun with buckets of 60 s" in last
    assert "starting it again" not in ended.stdout


@pytest.mark.needs_restartable_broker
def test_another_log_than_before_has_the_inboxes_read_it_from_the_start(data_dir: Path) -> None:
    with running(data_dir, broker="tansu") as stack:
        assert "topics do not survive a restart" in stack.said()
        asyncio.run(set_watermark(stack.endpoints["postgres"], 1000))
        stack.stop()
    with running(data_dir, broker="kafka") as stack:
        assert asyncio.run(watermark(stack.endpoints["postgres"])) is None
        asyncio.run(set_watermark(stack.endpoints["postgres"], 2000))
        stack.stop()
    with running(data_dir, broker="kafka") as stack:
        assert asyncio.run(watermark(stack.endpoints["postgres"])) == 2000


def test_a_broker_in_memory_that_dies_takes_inboxes_and_services_along(data_dir: Path) -> None:
    with running(data_dir, broker="tansu") as stack:
        before = stack.pids
        asyncio.run(set_watermark(stack.endpoints["postgres"], 1000))
        stack.kill("broker")
        until(
            lambda: all(stack.pids[name] != before[name] for name in ("metrics", "alerting", "retrain", "gateway"))
        )
        assert stack.pids["postgres"] == before["postgres"]
        assert asyncio.run(watermark(stack.endpoints["postgres"])) is None
        assert "1 offsets of the old one forgotten" in stack.said()


def test_services_are_told_where_everything_is(data_dir: Path) -> None:
    with running(data_dir, broker="tansu", clock="event", snapshot_interval="1d", topic_prefix="mine.") as stack:
        lines = [line.partition("serving with ") for line in stack.said().splitlines() if "serving with" in line]
        told = {speaker.split()[0]: json.loads(environment) for speaker, _, environment in lines}
        for name in ("metrics", "alerting", "retrain"):
            assert told["gateway"][f"TRUEWARD_{name.upper()}_URL"].endswith(f":{told[name]['TRUEWARD_HTTP_PORT']}")
        gateway = told["gateway"]
        assert stack.endpoints["http"].endswith(f":{gateway['TRUEWARD_HTTP_PORT']}")
        assert gateway["TRUEWARD_POSTGRES_DSN"] == stack.endpoints["postgres"]
        assert gateway["TRUEWARD_KAFKA_BOOTSTRAP_SERVERS"] == stack.endpoints["kafka"]
        assert (gateway["TRUEWARD_CLOCK"], gateway["TRUEWARD_SNAPSHOT_INTERVAL"]) == ("event", "1d")
        assert gateway["TRUEWARD_TOPIC_PREFIX"] == "mine."


def test_what_runs_already_is_used(data_dir: Path, kafka_broker: broker.Broker, database_dsn: str) -> None:
    with running(data_dir, kafka=kafka_broker.bootstrap_servers, postgres=database_dsn) as stack:
        assert set(stack.pids) == PROCESSES - {"broker", "postgres"}
        assert stack.endpoints["postgres"] == database_dsn


def test_a_second_up_on_the_folder_is_refused(data_dir: Path) -> None:
    with running(data_dir, broker="tansu") as stack:
        refused = trueward_up(data_dir)
        assert refused.returncode == 2
        said = f"trueward: {data_dir} is in use by another `trueward up` (pid {stack.process.pid})\n"
        assert refused.stderr == said
        assert (data_dir / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("option", "what"),
    [("--http-port", "HTTP"), ("--kafka-port", "the broker"), ("--postgres-port", "PostgreSQL")],
)
def test_a_port_in_use_is_one_clear_line(data_dir: Path, option: str, what: str) -> None:
    ports = {"--http-port": "0", "--kafka-port": "0", "--postgres-port": "0"}
    with taken_port() as port:
        ports[option] = str(port)
        refused = trueward_up(data_dir, *(word for pair in ports.items() for word in pair))
    assert refused.returncode == 2
    assert refused.stderr == f"trueward: port {port} for {what} is in use: choose another with {option}\n"


def test_missing_java_is_one_clear_line(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    refused = trueward_up(data_dir, "--broker", "kafka", "--http-port", "0", "--kafka-port", "0")
    assert refused.returncode == 2
    assert refused.stderr == "trueward: --broker kafka cannot be had here, because Java 17 or newer is missing\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--snapshot-interval", "7s"),
            (
                "--snapshot-interval 7s: must be whole seconds that divide a day, or whole days: "
                "1s, 60s, 5m, 1h, 1d, ..."
            ),
        ),
        (("--kafka", "nonsense"), "--kafka nonsense: must be HOST:PORT, or several with commas between them"),
        (("--kafka", "127.0.0.1:1", "--broker", "tansu"), "no broker answers at 127.0.0.1:1, given with --kafka"),
        (
            ("--postgres", "postgresql://postgres@127.0.0.1:1/none", "--broker", "tansu"),
            "PostgreSQL does not answer at the address given with --postgres",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_line(data_dir: Path, arguments: tuple[str, ...], line: str) -> None:
    refused = trueward_up(data_dir, "--http-port", "0", "--kafka-port", "0", "--postgres-port", "0", *arguments)
    assert refused.returncode == 2
    assert refused.stderr == f"trueward: {line}\n"


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = trueward_up(tmp_path / "file" / "data")
    assert refused.returncode == 2
    assert refused.stderr == f"trueward: {tmp_path / 'file' / 'data'} cannot be written: Not a directory\n"


@pytest.mark.needs_restartable_broker
async def test_kafka_keeps_records_when_it_is_killed(restartable_broker: parts.RestartableBroker) -> None:
    await restartable_broker.start()
    await create_topic(restartable_broker.bootstrap_servers, "kept")
    await produce(restartable_broker.bootstrap_servers, "kept", b"before")
    restartable_broker.kill()
    await restartable_broker.start()
    await produce(restartable_broker.bootstrap_servers, "kept", b"after")
    assert await records(restartable_broker.bootstrap_servers, "kept") == [b"before", b"after"]


@pytest.mark.needs_restartable_broker
@pytest.mark.slow
async def test_three_nodes_go_on_without_one() -> None:
    """For tests of faults: a cluster whose records outlive any one of its nodes."""
    found = apache_kafka.find()
    assert isinstance(found, apache_kafka.Installation)
    with parts.scratch_folder() as folder:
        ports = [free_port() for _ in range(3)]
        cluster = apache_kafka.Cluster.of(found, folder, ports, replication=3, min_insync=2)
        await asyncio.to_thread(cluster.prepare)
        nodes = [ManagedProcess(spec, folder / f"{spec.name}.log") for spec in cluster.processes()]
        try:
            for node in nodes:
                node.start()
            for node in nodes:
                await node.wait_ready()
            await create_topic(cluster.bootstrap_servers, "kept", replication=3)
            await produce(cluster.bootstrap_servers, "kept", b"before")
            nodes[0].kill()
            await produce(cluster.bootstrap_servers, "kept", b"after")
            assert await records(cluster.bootstrap_servers, "kept") == [b"before", b"after"]
        finally:
            for node in nodes:
                node.kill()


def alive(process: psutil.Process) -> bool:
    """Whether it runs; an orphan that nobody has reaped yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def execute(dsn: str, statement: str, *arguments: object) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


async def set_watermark(dsn: str, offset: int) -> None:
    insert = "INSERT INTO metrics.inbox (topic, partition, next_offset) VALUES ('labels', 0, $1)"
    await execute(dsn, insert, offset)


async def watermark(dsn: str) -> object:
    return await execute(dsn, "SELECT next_offset FROM metrics.inbox WHERE topic = 'labels' AND partition = 0")


async def leave_data(endpoints: dict[str, Any]) -> None:
    await create_topic(endpoints["kafka"], "kept")
    await produce(endpoints["kafka"], "kept", b"kept")
    await execute(endpoints["postgres"], "CREATE TABLE public.kept AS SELECT 7 AS number")


async def find_data(endpoints: dict[str, Any]) -> tuple[bytes, object]:
    [record] = await records(endpoints["kafka"], "kept")
    return record, await execute(endpoints["postgres"], "SELECT number FROM public.kept")


async def create_topic(bootstrap_servers: str, name: str, replication: int = 1) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    try:
        answer = await client.create_topics([NewTopic(name, 1, replication)])
        assert answer.topic_errors[0][1] == 0, answer
    finally:
        await client.close()


async def produce(bootstrap_servers: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def records(bootstrap_servers: str, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        return [(await consumer.getone()).value for _ in range(end)]
    finally:
        await consumer.stop()
