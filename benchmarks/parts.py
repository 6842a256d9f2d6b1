"""The parts that everything is measured on: a broker and a PostgreSQL of the local stack, started for the run."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import asyncpg
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from benchmarks.dataset import Bucket, BucketKey, Event, Expected, events
from deploy.local import broker, postgres
from deploy.local.broker import Broker
from deploy.local.probes import http_answers_ok
from deploy.local.processes import LOOPBACK, ManagedProcess, ProcessSpec, free_port
from shared.broker import create_missing_topics
from shared.database import migrate
from shared.settings import Settings
from shared.topics import LABELS, PREDICTIONS, TOPICS

PARTITIONS = 16
GROUP_PATIENCE_SECONDS = 60.0
PASSING = frozenset(
    {
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
"""Why a group cannot be removed yet: a member is left, or a broker that has just started has no groups so far."""
LEFT_IN_THE_QUEUE = 50_000
"""Records that may wait in the producer before the generator waits for it."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The running parts. ``postgres_dsn`` has the right to create databases."""

    folder: Path
    broker: Broker
    broker_process: ManagedProcess
    postgres_dsn: str
    postgres_line: str
    postgres_process: ManagedProcess

    def settings(self, *, prefix: str, database: str, snapshot_interval: str = "60s") -> Settings:
        """A deployment on these parts. ``database`` is the name of a database."""
        return Settings(
            kafka_bootstrap_servers=self.broker.bootstrap_servers,
            kafka_idempotent_producer=self.broker.idempotent_producer,
            kafka_true_end_offsets=self.broker.true_end_offsets,
            topic_prefix=prefix,
            postgres_dsn=self.dsn(database),
            snapshot_interval=snapshot_interval,
        )

    def dsn(self, database: str) -> str:
        return self.postgres_dsn.rpartition("/")[0] + "/" + database

    def service(self, name: str, settings: Settings, label: str = "") -> ManagedProcess:
        """One service as a process of its own, as ``trueward service NAME`` runs it; not started yet."""
        port = free_port()
        return self.process(
            f"{name}{label}",
            (sys.executable, "-m", "trueward", "service", name),
            settings,
            {"TRUEWARD_HTTP_PORT": str(port)},
            ready=f"http://{LOOPBACK}:{port}/health/ready",
        )

    def process(
        self, name: str, argv: tuple[str, ...], settings: Settings, more: Mapping[str, str], *, ready: str
    ) -> ManagedProcess:
        """A process that is told of the deployment by its environment, and answers at ``ready`` when it works."""
        environment = {
            **self.broker.service_environment(),
            "TRUEWARD_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
            "TRUEWARD_TOPIC_PREFIX": settings.topic_prefix,
            "TRUEWARD_SNAPSHOT_INTERVAL": f"{settings.snapshot_interval.total_seconds():.0f}s",
            "TRUEWARD_LOG_LEVEL": "WARNING",
            **more,
        }
        spec = ProcessSpec(name=name, argv=argv, env=environment, ready=partial(http_answers_ok, ready))
        return ManagedProcess(spec, self.folder / f"{name}.log")

    @asynccontextmanager
    async def database(self, template: str | None = None) -> AsyncIterator[str]:
        """The name of a migrated database, or of a copy of ``template``; dropped afterwards."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        await self.execute(
            f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else "")
        )
        try:
            if template is None:
                await asyncio.to_thread(migrate, self.dsn(name))
            yield name
        finally:
            await self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def execute(self, statement: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def forget_group(self, group: str) -> None:
        """Remove what a consumer group has committed, so that the next one starts at the beginning.

        Waits for its last member to be given up, which one that was killed is only after its session's timeout.
        """
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers})
        deadline = time.monotonic() + GROUP_PATIENCE_SECONDS
        while True:
            try:
                admin.delete_consumer_groups([group], request_timeout=10)[group].result()
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.GROUP_ID_NOT_FOUND:
                    return
                if code not in PASSING or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return


def _scratch_folder() -> Path:
    """A new folder, open to the user that PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="trueward-bench-"))
    folder.chmod(0o755)
    return folder


@asynccontextmanager
async def running_parts() -> AsyncIterator[Parts]:
    """Kafka itself and PostgreSQL, on a folder that goes afterwards. Raises ``UsageError`` without Kafka."""
    folder = await asyncio.to_thread(_scratch_folder)
    kafka, server = broker.choose(data_dir=folder, broker="kafka"), postgres.choose(data_dir=folder)
    processes: list[ManagedProcess] = []
    try:
        for plan in (server, kafka):
            await asyncio.to_thread(plan.prepare)
            (spec,) = plan.processes
            processes.append(ManagedProcess(spec, folder / f"{spec.name}.log"))
            processes[-1].start()
            await processes[-1].wait_ready()
        yield Parts(
            folder=folder,
            broker=kafka.broker,
            broker_process=processes[1],
            postgres_dsn=server.dsn.rpartition("/")[0] + "/postgres",
            postgres_line=server.line,
            postgres_process=processes[0],
        )
    finally:
        for process in reversed(processes):
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class DataSet:
    """Preloaded topics: their prefix, how many records they hold, and what these must come to."""

    prefix: str
    records: int
    buckets: Mapping[BucketKey, Bucket]

    @property
    def evaluated(self) -> int:
        return sum(bucket.evaluated for bucket in self.buckets.values())


async def create_topics(settings: Settings) -> None:
    """Every topic, predictions and labels with 16 partitions."""
    wide = {PREDICTIONS.name, LABELS.name}
    await create_missing_topics(
        settings, [replace(topic, partitions=PARTITIONS) if topic.name in wide else topic for topic in TOPICS]
    )


async def preload(parts: Parts, count: int, seed: int = 1) -> DataSet:
    """Publish ``count`` predictions, as many labels, and what comes again or corrects, to topics of their own."""
    return await publish(parts.settings(prefix=f"bench-{uuid.uuid4().hex[:8]}.", database="postgres"), count, seed)


async def publish(settings: Settings, count: int, seed: int = 1) -> DataSet:
    """The same, to the topics of a deployment."""
    await create_topics(settings)
    return await asyncio.to_thread(_publish, settings, count, seed)


def _publish(settings: Settings, count: int, seed: int) -> DataSet:
    expected = Expected()
    producer = keyed_producer(settings)
    for event in events(count, seed):
        expected.add(event)
        send(producer, settings, event)
    flush(producer)
    return DataSet(settings.topic_prefix, expected.records, expected.buckets())


def keyed_producer(settings: Settings) -> Producer:
    """librdkafka's, because it is the fastest; it partitions by key as Kafka's own clients do."""
    return Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "acks": "all",
        }
    )


def send(producer: Producer, settings: Settings, event: Event) -> None:
    producer.produce(
        settings.topic_prefix + event.topic, event.value(), key=event.entity.encode(), on_delivery=_check
    )
    producer.poll(0)
    while len(producer) > LEFT_IN_THE_QUEUE:
        producer.poll(0.1)


def flush(producer: Producer) -> None:
    """Wait until everything is acknowledged. Raises ``TimeoutError`` where that takes more than a minute."""
    if producer.flush(60):
        raise TimeoutError("the broker has not acknowledged everything")


def _check(error: object, _message: object) -> None:
    if error is not None:
        raise KafkaException(error)
