"""The real parts that tests run on: a broker and a PostgreSQL, found as the local stack finds them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiokafka.admin import AIOKafkaAdminClient

from deploy.local import apache_kafka, broker, postgres
from deploy.local.broker import Broker, BrokerChoice, BrokerPlan
from deploy.local.processes import ManagedProcess

# No test pulls the machine's plug; processes that are killed leave their pages with the kernel.
QUICK_POSTGRES = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}


def broker_choice() -> BrokerChoice:
    """The broker that TRUEWARD_TEST_BROKER forces, else auto."""
    choice = os.environ.get("TRUEWARD_TEST_BROKER", "auto")
    if choice not in ("auto", "kafka", "tansu"):
        raise ValueError("TRUEWARD_TEST_BROKER must be auto, kafka or tansu")
    return cast("BrokerChoice", choice)


@dataclass
class RestartableBroker:
    """A broker of a test's own, on files that outlive its process."""

    plan: BrokerPlan
    process: ManagedProcess

    @property
    def broker(self) -> Broker:
        return self.plan.broker

    @property
    def bootstrap_servers(self) -> str:
        return self.plan.broker.bootstrap_servers

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process.start()
        await self.process.wait_ready()

    def stop(self) -> None:
        """Stop it in order."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it without warning."""
        self.process.kill()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that goes afterwards, open to the user that PostgreSQL runs as, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="trueward-tests-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def restartable_broker(folder: Path, choice: BrokerChoice) -> Iterator[RestartableBroker]:
    """A broker of one's own, prepared and not yet started; gone afterwards."""
    plan = broker.choose(data_dir=folder, broker=choice)
    plan.prepare()
    found = RestartableBroker(plan, ManagedProcess(plan.processes[0], folder / "broker.log"))
    try:
        yield found
    finally:
        found.kill()


@contextmanager
def running_broker() -> Iterator[Broker]:
    """The broker that a test session shares, and removes its topics from."""
    given = os.environ.get("TRUEWARD_TEST_KAFKA")
    choice = broker_choice()
    if given:
        yield broker.choose(data_dir=Path(), broker=choice, bootstrap_servers=given).broker
        return
    # Docker comes second: Kafka's own jars are here already, an image would have to be downloaded first.
    if choice != "tansu" and isinstance(apache_kafka.find(), apache_kafka.Missing) and docker_answers():
        yield from _docker_broker()
        return
    with scratch_folder() as folder, restartable_broker(folder, choice) as found:
        asyncio.run(found.start())
        yield found.broker


@contextmanager
def running_postgres() -> Iterator[tuple[str, str]]:
    """The server that a test session shares, as a DSN with admin rights, and what it is."""
    given = os.environ.get("TRUEWARD_TEST_POSTGRES")
    if given:
        yield given, postgres.choose(data_dir=Path(), dsn=given).line
        return
    if not postgres.is_installed() and docker_answers():
        yield from _docker_postgres()
        return
    with scratch_folder() as folder:
        plan = postgres.choose(data_dir=folder, settings=QUICK_POSTGRES)
        plan.prepare()
        process = ManagedProcess(plan.processes[0], folder / "postgres.log")
        process.start()
        try:
            asyncio.run(process.wait_ready())
            yield f"{plan.dsn.rpartition('/')[0]}/postgres", plan.line
        finally:
            process.stop()


def docker_answers() -> bool:
    """Whether a Docker engine can be asked for containers."""
    if "DOCKER_HOST" in os.environ:
        return True
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(2)
        return engine.connect_ex("/var/run/docker.sock") == 0


def _docker_broker() -> Iterator[Broker]:
    from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 - needed with Docker alone

    with KafkaContainer().with_kraft() as container:
        yield Broker(
            name="Kafka in Docker",
            bootstrap_servers=container.get_bootstrap_server(),
            why="as Kafka's jars are not installed",
        )


def _docker_postgres() -> Iterator[tuple[str, str]]:
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - likewise

    with PostgresContainer("postgres:18", driver=None) as container:
        yield container.get_connection_url(), "postgres: in Docker"


async def delete_topics(bootstrap_servers: str, prefix: str) -> None:
    """Remove what a test created."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    try:
        topics = [name for name in await client.list_topics() if name.startswith(prefix)]
        if topics:
            await client.delete_topics(topics)
    finally:
        await client.close()
