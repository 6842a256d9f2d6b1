"""What the faults befall: three brokers, PostgreSQL, two processes of every service, and proxies between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from deploy.local import apache_kafka, postgres
from deploy.local.apache_kafka import Installation, Listener
from deploy.local.postgres import ensure_database
from deploy.local.probes import broker_answers, http_answers_ok
from deploy.local.processes import LOOPBACK, ManagedProcess, ProcessSpec, free_port
from shared.broker import create_missing_topics
from shared.database import migrate
from shared.errors import TruewardError
from shared.records import Place
from shared.settings import Settings
from shared.topics import TOPICS, read_by
from tests.kernel_world import Proxy
from tests.parts import QUICK_POSTGRES

SERVICES = ("metrics", "alerting", "retrain", "gateway")
CONSUMERS = ("metrics", "alerting", "retrain")
INSTANCES = tuple(f"{service}-{number}" for service in SERVICES for number in (1, 2))
INTERVAL_SECONDS = 2
SESSION_SECONDS = 6
DEADLINE_SECONDS = 240.0
"""Far more than anything here takes: what is not so by then is a breach, not a slow machine."""
LOOK_SECONDS = 0.1
DISK_BYTES = 512 * 1024 * 1024

BROKER_PROPERTIES = {
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    "group.min.session.timeout.ms": "1000",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "log.cleaner.dedupe.buffer.size": "4194304",
}
BROKER_JVM = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
POSTGRES_SETTINGS = {
    **QUICK_POSTGRES,
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "wal_recycle": "off",  # so that a full disk is felt by the log too
    "log_min_messages": "error",
}

T = TypeVar("T")


class BreachError(AssertionError):
    """A promise was broken, or nobody can tell any more whether it holds."""


async def until(
    look: Callable[[], Awaitable[T]],
    satisfied: Callable[[T], bool],
    what: str,
    *,
    seconds: float = DEADLINE_SECONDS,
) -> T:
    """Look until what is seen satisfies; a part that is away is asked again. Raises ``BreachError`` at last."""
    deadline = time.monotonic() + seconds
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            seen = await look()
            if satisfied(seen):
                return seen
        except (KafkaError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            seen = repr(error)
        await asyncio.sleep(LOOK_SECONDS)
    raise BreachError(f"not in {seconds:g} s: {what}; last seen: {str(seen)[:600]}")


@dataclass
class Link:
    """A service's way to the brokers or to the database: proxies, all in the same state."""

    proxies: tuple[Proxy, ...]

    async def start(self) -> None:
        for proxy in self.proxies:
            await proxy.start()

    async def cut(self) -> None:
        """Refuse and reset, as a firewall does."""
        for proxy in self.proxies:
            await proxy.stop()

    def fall_silent(self) -> None:
        """Take everything and answer nothing, as a network does that is gone."""
        for proxy in self.proxies:
            proxy.fall_silent()

    def speak(self) -> None:
        for proxy in self.proxies:
            proxy.speak()


class World:
    """All parts of one deployment. ``disk`` is the folder of PostgreSQL's own small disk, if there is one.

    The second process of every service reaches Kafka and PostgreSQL through proxies of its own.
    """

    def __init__(self, found: Installation, folder: Path, disk: Path) -> None:
        self.folder = folder
        self.disk = disk
        ports = [free_port() for _ in range(3)]
        behind = {(service, node): free_port() for service in SERVICES for node in range(3)}
        self.kafka_links = {
            service: Link(tuple(_proxy(behind[service, node]) for node in range(3))) for service in SERVICES
        }
        self.cluster = apache_kafka.Cluster.of(
            found,
            folder / "kafka",
            ports,
            replication=3,
            min_insync=2,
            overrides=BROKER_PROPERTIES,
            jvm_flags=BROKER_JVM,
            listeners=[
                [
                    Listener(
                        name=service.upper(),
                        port=behind[service, node],
                        advertised_port=self.kafka_links[service].proxies[node].port,
                    )
                    for service in SERVICES
                ]
                for node in range(3)
            ],
        )
        self.plan = postgres.choose(data_dir=disk, settings=POSTGRES_SETTINGS)
        self.dsn = self.plan.dsn
        self._postgres_port = int(psycopg.conninfo.conninfo_to_dict(self.dsn)["port"])
        self.database_links = {service: Link((_proxy(self._postgres_port),)) for service in SERVICES}
        self.http_ports = {instance: free_port() for instance in INSTANCES}
        self.brokers = [self._managed(spec) for spec in self.cluster.processes()]
        self.postgres = self._managed(self.plan.processes[0])
        self.services: dict[str, ManagedProcess] = {}
        self.settings = Settings(
            kafka_bootstrap_servers=self.cluster.bootstrap_servers, postgres_dsn=SecretStr(self.dsn)
        )
        self.prefix = self.settings.topic_prefix

    def _managed(self, spec: ProcessSpec) -> ManagedProcess:
        return ManagedProcess(spec, self.folder / f"{spec.name}.log")

    async def start(self) -> None:
        """Start everything, and return when it is whole."""
        await asyncio.to_thread(self.plan.prepare)
        self.postgres.start()
        await asyncio.to_thread(self.cluster.prepare)
        for broker in self.brokers:
            broker.start()
        await self.postgres.wait_ready(DEADLINE_SECONDS)
        await ensure_database(self.dsn)
        await asyncio.to_thread(migrate, self.dsn)
        for link in (*self.kafka_links.values(), *self.database_links.values()):
            await link.start()
        await self.brokers_whole()
        await create_missing_topics(self.settings)
        self.services = {instance: self._managed(self._service(instance)) for instance in INSTANCES}
        for service in self.services.values():
            service.start()
        await self.whole()

    async def stop(self) -> None:
        """End everything, without ceremony."""
        for process in (*self.services.values(), *self.brokers, self.postgres):
            process.kill()
        for link in (*self.kafka_links.values(), *self.database_links.values()):
            for proxy in link.proxies:
                with contextlib.suppress(AssertionError):
                    await proxy.stop()

    def _service(self, instance: str) -> ProcessSpec:
        service, _, number = instance.partition("-")
        bootstrap, dsn = self.cluster.bootstrap_servers, self.dsn
        if number == "2":
            proxies = self.kafka_links[service].proxies
            bootstrap = ",".join(f"{LOOPBACK}:{proxy.port}" for proxy in proxies)
            dsn = dsn.replace(f":{self._postgres_port}/", f":{self.database_links[service].proxies[0].port}/")
        url = f"http://{LOOPBACK}:{self.http_ports[instance]}"
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "POSTGRES_DSN": dsn,
            "CLOCK": "wall",
            "SNAPSHOT_INTERVAL": f"{INTERVAL_SECONDS}s",
            "SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "GRACEFUL_TIMEOUT_SECONDS": "5",
            "MAX_BATCH_RECORDS": "50",  # small batches: many transactions to be hit
            "HTTP_PORT": str(self.http_ports[instance]),
            "LOG_FORMAT": "json",
        }
        return ProcessSpec(
            name=instance,
            argv=(sys.executable, "-m", "trueward", "service", service),
            env={f"TRUEWARD_{name}": value for name, value in environment.items()},
            ready=partial(http_answers_ok, f"{url}/health/ready"),
        )

    # What can be asked of it.

    def url(self, instance: str) -> str:
        return f"http://{LOOPBACK}:{self.http_ports[instance]}"

    async def is_ready(self, instance: str) -> bool:
        return await self.services[instance].spec.ready()

    async def publishes(self, instance: str) -> bool:
        """Whether the process holds the lease of its service's outbox."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            try:
                answer = await client.get(f"{self.url(instance)}/metrics")
            except httpx.TransportError as error:
                raise TimeoutError(f"{instance} does not answer: {error}") from error
        return "\ntrueward_relay_leader 1.0\n" in answer.text

    async def publisher(self, service: str) -> str:
        """The process of the service that holds the lease of its outbox."""

        async def look() -> list[str]:
            instances = [instance for instance in INSTANCES if instance.startswith(f"{service}-")]
            return [instance for instance in instances if await self.publishes(instance)]

        (found,) = await until(look, lambda found: len(found) == 1, f"who publishes for {service}")
        return found

    async def whole(self) -> None:
        """Wait until every broker has every replica, and every process is ready and in its group."""
        await self.brokers_whole()
        for instance in INSTANCES:
            await until(partial(self.is_ready, instance), bool, f"{instance} ready: {self.words(instance)}")
        for service in CONSUMERS:
            await until(partial(self.members, service), lambda count: count == 2, f"two members of {service}")

    def words(self, instance: str) -> str:
        return self.services[instance].last_words()

    async def brokers_whole(self) -> None:
        """Wait until three brokers answer and no partition lacks a replica."""
        for node in self.cluster.nodes:
            await until(
                partial(broker_answers, f"{LOOPBACK}:{node.port}", nodes=3), bool, f"broker {node.node_id} of 3"
            )

        async def lagging() -> list[str]:
            async with self.admin() as admin:
                return [
                    f"{topic['topic']}-{partition['partition']}"
                    for topic in await admin.describe_topics()
                    for partition in topic["partitions"]
                    if len(partition["isr"]) < 3
                ]

        await until(lagging, lambda found: not found, "every replica in sync")

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap_servers, request_timeout_ms=5_000)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def members(self, service: str) -> int:
        """How many consumers the broker counts in the service's group."""
        async with self.admin() as admin:
            (answer,) = await admin.describe_consumer_groups([self.prefix + service])
        (group,) = answer.to_object()["groups"]
        return len(group["members"])

    def controller(self) -> int:
        """The index of the broker that is the active controller, as the nodes noted at the last election."""
        votes = []
        for node in self.cluster.nodes:
            state = json.loads((node.log_dir / "__cluster_metadata-0" / "quorum-state").read_text())
            votes.append((state["leaderEpoch"], state["leaderId"]))
        leader: int = max(votes)[1]
        if leader < 1:
            raise TimeoutError("the controllers are electing")
        return leader - 1

    async def query(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Look into the database with an administrator's rights."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            return await connection.fetch(statement, *arguments, timeout=30)  # type: ignore[no-any-return]
        finally:
            await connection.close(timeout=5)

    async def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each of the topics (registry names) has."""
        names = {self.prefix + topic: topic for topic in topics}
        async with self.admin() as admin:
            found = await admin.describe_topics(list(names))
        return {names[topic["topic"]]: len(topic["partitions"]) for topic in found}

    async def log_ends(self, topics: Iterable[str]) -> dict[Place, int]:
        """Where every partition of the topics (registry names) ends."""
        places = {
            TopicPartition(self.prefix + topic, number): (topic, number)
            for topic, count in (await self.partitions(topics)).items()
            for number in range(count)
        }
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.cluster.bootstrap_servers, request_timeout_ms=5_000, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return {places[place]: end for place, end in (await consumer.end_offsets(list(places))).items()}
        finally:
            await consumer.stop()

    async def behind(self, service: str, ends: dict[Place, int]) -> dict[Place, tuple[int, int]]:
        """Of the places, those where the service has not come as far: where it is, and where it should be."""
        rows = await self.query(f"SELECT topic, partition, next_offset FROM {service}.inbox")
        taken = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        return {place: (taken.get(place, 0), end) for place, end in ends.items() if taken.get(place, 0) < end}

    async def fresh(self) -> None:
        """Wait until what is in the topics now was taken in, and a later snapshot was judged by both who judge."""
        topics = [topic.name for topic in read_by("metrics")]
        ends = await until(partial(self.log_ends, topics), bool, "the logs' ends")
        await until(partial(self.behind, "metrics", ends), lambda left: not left, "all input taken in")
        latest = await until(partial(self.query, LATEST_SEQUENCES), bool, "a snapshot of every model")
        for view in ("alerting.published_states", "retrain.published_models"):
            statement = f"SELECT model, snapshot_sequence FROM {view}"

            async def judged(statement: str = statement) -> dict[str, int]:
                return {row["model"]: row["snapshot_sequence"] for row in await self.query(statement)}

            await until(
                judged,
                lambda found: all(found.get(row["model"], 0) > row["sequence"] for row in latest),
                f"{view} beyond {[tuple(row) for row in latest]}",
            )

    async def start_postgres(self) -> None:
        """Start it again, as often as it takes: its memory may still be held by what has not quite died."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            self.postgres.start()
            try:
                await self.postgres.wait_ready(DEADLINE_SECONDS)
            except TruewardError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return

    def topics(self) -> list[str]:
        return [topic.name for topic in TOPICS]

    def complaints(self) -> list[str]:
        """What no service may ever say: that it crashed, that it stopped for good, or that records are lost."""
        wrong = re.compile(r"^Traceback|records lost|a call after the commit failed|\"level\": ?\"critical\"")
        return [
            f"{instance}: {line[:300]}"
            for instance, process in self.services.items()
            for line in process.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            if wrong.search(line)
        ]


def _proxy(port: int) -> Proxy:
    """Its own port is one that no client is given while it refuses."""
    proxy = Proxy(LOOPBACK, port)
    proxy.port = free_port()
    return proxy


LATEST_SEQUENCES = "SELECT model, sequence FROM metrics.published_latest_snapshots"
