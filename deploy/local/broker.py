"""The broker of the local stack: which one it is, what it can do, and why it was chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.local import apache_kafka, tansu
from deploy.local.processes import LOOPBACK, ProcessSpec, claim_port
from shared.errors import UsageError

BrokerChoice = Literal["auto", "kafka", "tansu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker and what it can do: settings of the services, and skips of tests, follow from these flags."""

    name: str
    bootstrap_servers: str
    why: str
    keeps_records_across_restarts: bool = True
    idempotent_producer: bool = True
    true_end_offsets: bool = True
    transactions: bool = True

    def line(self) -> str:
        """What was chosen, and why, in one line."""
        return f"broker: {self.name}, {self.why} ({self.bootstrap_servers})"

    def service_environment(self) -> dict[str, str]:
        """The settings by which a service adapts to it."""
        return {
            "TRUEWARD_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER": str(self.idempotent_producer).lower(),
            "TRUEWARD_KAFKA_TRUE_END_OFFSETS": str(self.true_end_offsets).lower(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPlan:
    """A broker and the processes that make it, none where it runs already.

    ``prepare`` makes its files before the first start. ``identity`` names the log that its offsets belong to,
    None where that is not for the local stack to say.
    """

    broker: Broker
    processes: tuple[ProcessSpec, ...] = ()
    prepare: Callable[[], None] = lambda: None
    identity: Callable[[], str | None] = lambda: None


def choose(
    *,
    data_dir: Path,
    broker: BrokerChoice = "auto",
    bootstrap_servers: str | None = None,
    port: int = 0,
) -> BrokerPlan:
    """The broker to use: the one given, else Kafka itself where its parts are at hand, else the fallback.

    ``port`` 0 takes a free one. Nothing is started or written yet. Raises ``UsageError`` when the broker that was
    asked for cannot run here, or the port is in use.
    """
    if bootstrap_servers is not None:
        return _given(bootstrap_servers, broker)
    found = apache_kafka.find() if broker != "tansu" else apache_kafka.Missing("it was asked for")
    if isinstance(found, apache_kafka.Missing):
        if broker == "kafka":
            raise UsageError(f"--broker kafka cannot be had here, because {found.why}")
        return _tansu(found.why if broker == "auto" else None, port)
    return _kafka(found, data_dir / "kafka", port)


def _given(bootstrap_servers: str, broker: BrokerChoice) -> BrokerPlan:
    """A broker that runs already: taken for a Kafka with all its abilities, unless --broker says otherwise."""
    if broker == "tansu":
        return BrokerPlan(broker=_describe_tansu(bootstrap_servers, "as given"))
    return BrokerPlan(broker=Broker(name="Kafka", bootstrap_servers=bootstrap_servers, why="as given"))


def _kafka(found: apache_kafka.Installation, folder: Path, port: int) -> BrokerPlan:
    port = claim_port(port, what="the broker", option="--kafka-port")
    cluster = apache_kafka.Cluster.of_one(found, folder, port)
    return BrokerPlan(
        broker=Broker(
            name=f"Apache Kafka {found.version}",
            bootstrap_servers=cluster.bootstrap_servers,
            why=f"on Java {found.java_version}",
        ),
        processes=cluster.processes(),
        prepare=cluster.prepare,
        identity=cluster.identity,
    )


def _tansu(because: str | None, port: int) -> BrokerPlan:
    port = claim_port(port, what="the broker", option="--kafka-port")
    bootstrap_servers = f"{LOOPBACK}:{port}"
    why = f"in memory only, because {because}" if because else "in memory only, as asked for"
    return BrokerPlan(
        broker=_describe_tansu(bootstrap_servers, why), processes=(tansu.process(bootstrap_servers),)
    )


def _describe_tansu(bootstrap_servers: str, why: str) -> Broker:
    return Broker(
        name=tansu.name(),
        bootstrap_servers=bootstrap_servers,
        why=why,
        keeps_records_across_restarts=False,
        idempotent_producer=False,
        true_end_offsets=False,
        transactions=False,
    )
