"""Apache Kafka itself, from its own jars, on Java: one node, or a cluster of several, in KRaft mode.

Every node is broker and controller at once. Nothing is downloaded here: ``deploy.local.fetch`` did, at install.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.probes import broker_answers
from deploy.local.processes import LOOPBACK, ProcessSpec, free_port
from shared.errors import TruewardError, UsageError

PARTS: Final = Path(__file__).with_name("kafka")
JARS: Final = PARTS / "target" / "jars"
LEAST_JAVA: Final = 17
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024

# A small heap, and flags that favour a quick start over peak throughput: it serves one person's machine.
JVM_FLAGS: Final = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@dataclass(frozen=True, slots=True)
class Installation:
    """What Kafka runs from: a ``java`` and the folder of its jars."""

    java: str
    java_version: int
    jars: Path
    version: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Kafka cannot run here; ``why`` completes "because ..."."""

    why: str


def find(jars: Path = JARS) -> Installation | Missing:
    """What is needed to run Kafka, or what is missing."""
    java = find_java()
    if isinstance(java, Missing):
        return java
    found = [match[1] for jar in jars.glob("kafka_*.jar") if (match := re.search(r"-(\d[\d.]*)\.jar$", jar.name))]
    if len(found) != 1:
        return Missing("Kafka's jars are not installed (make install fetches them with Maven)")
    path, version = java
    return Installation(java=path, java_version=version, jars=jars, version=found[0])


def find_java() -> tuple[str, int] | Missing:
    """The path of a ``java`` that is new enough, and its major version."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if java is None:
        return Missing(f"Java {LEAST_JAVA} or newer is missing")
    try:
        said = subprocess.run(  # noqa: S603 - the user's own java
            [java, "-version"], capture_output=True, text=True, timeout=20, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return Missing(f"{java} does not run")
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    version = int(match[1]) if match else 0
    if version < LEAST_JAVA:
        return Missing(f"Java {LEAST_JAVA} or newer is missing ({java} is Java {version})")
    return java, version


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One more address of a node: it listens on ``port`` and tells clients to come to ``advertised_port``.

    ``name`` is in capitals, as Kafka wants it. A proxy stands where the ports differ.
    """

    name: str
    port: int
    advertised_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a cluster: its id (from 1), its two ports, its folder, and further addresses."""

    node_id: int
    port: int
    controller_port: int
    folder: Path
    listeners: tuple[Listener, ...] = ()

    @property
    def log_dir(self) -> Path:
        """Where its records are."""
        return self.folder / "data"

    @property
    def properties(self) -> Path:
        """Its configuration file."""
        return self.folder / "server.properties"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Nodes that form one Kafka. ``replication`` and ``min_insync`` hold for all topics, Kafka's own too."""

    installation: Installation
    nodes: tuple[Node, ...]
    replication: int = 1
    min_insync: int = 1
    overrides: dict[str, str] = field(default_factory=dict)
    jvm_flags: tuple[str, ...] = JVM_FLAGS

    @classmethod
    def of_one(cls, installation: Installation, folder: Path, port: int) -> Cluster:
        """The single node of a local stack."""
        return cls.of(installation, folder, [port])

    @classmethod
    def of(
        cls,
        installation: Installation,
        folder: Path,
        ports: Sequence[int],
        *,
        replication: int = 1,
        min_insync: int = 1,
        overrides: dict[str, str] | None = None,
        listeners: Sequence[Sequence[Listener]] = (),
        jvm_flags: tuple[str, ...] = JVM_FLAGS,
    ) -> Cluster:
        """A cluster with a node a port.

        ``overrides`` are further properties of every node, ``listeners`` further addresses, node by node.
        """
        nodes = tuple(
            Node(
                node_id=index,
                port=port,
                controller_port=free_port(),
                folder=folder / f"node-{index}",
                listeners=tuple(listeners[index - 1]) if listeners else (),
            )
            for index, port in enumerate(ports, start=1)
        )
        return cls(
            installation=installation,
            nodes=nodes,
            replication=replication,
            min_insync=min_insync,
            overrides=dict(overrides or {}),
            jvm_flags=jvm_flags,
        )

    @property
    def bootstrap_servers(self) -> str:
        """Every node's address, separated by commas."""
        return ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes)

    def identity(self) -> str | None:
        """The cluster's id, or None before it was prepared."""
        try:
            written = (self.nodes[0].log_dir / "meta.properties").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        match = re.search(r"^cluster\.id=(\S+)$", written, re.MULTILINE)
        return match[1] if match else None

    def prepare(self) -> None:
        """Write every node's configuration, and format its log directory unless that was done before.

        Raises ``UsageError`` when the folder cannot be written, ``TruewardError`` when Kafka refuses to format.
        """
        cluster_id = self.identity() or _new_cluster_id()
        for node in self.nodes:
            try:
                node.folder.mkdir(parents=True, exist_ok=True)
                node.properties.write_text(self._properties(node), encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{node.folder} cannot be written: {error.strerror}") from error
            if not (node.log_dir / "meta.properties").exists():
                self._format(node, cluster_id)

    def processes(self) -> tuple[ProcessSpec, ...]:
        """Every node as a process; named ``broker`` where there is one, else ``broker-1`` and so on."""
        return tuple(self._process(node) for node in self.nodes)

    def _process(self, node: Node) -> ProcessSpec:
        single = len(self.nodes) == 1
        return ProcessSpec(
            name="broker" if single else f"broker-{node.node_id}",
            argv=(*self._java(), "kafka.Kafka", str(node.properties)),
            ready=partial(broker_answers, f"{LOOPBACK}:{node.port}"),
            essential=True,
            stop_timeout_s=20.0,
            # A hard stop loses nothing that was acknowledged: it is in the page cache of a machine that goes on.
            death_signal=signal.SIGKILL,
        )

    def _java(self) -> tuple[str, ...]:
        classpath = os.pathsep.join([str(PARTS), f"{self.installation.jars}{os.sep}*"])
        return (self.installation.java, *self.jvm_flags, "-cp", classpath)

    def _format(self, node: Node, cluster_id: str) -> None:
        command = [
            *self._java(),
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster_id,
            "-c",
            str(node.properties),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise TruewardError(f"Kafka could not format {node.log_dir}: {words[-1]}")

    def _properties(self, node: Node) -> str:
        replication, min_insync = str(self.replication), str(self.min_insync)
        voters = ",".join(f"{voter.node_id}@{LOOPBACK}:{voter.controller_port}" for voter in self.nodes)
        addresses = {"PLAINTEXT": node.port, "CONTROLLER": node.controller_port}
        addresses |= {listener.name: listener.port for listener in node.listeners}
        advertised = {"PLAINTEXT": node.port}
        advertised |= {listener.name: listener.advertised_port for listener in node.listeners}
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(node.node_id),
            # Static voters, because the controllers' ports are chosen anew at every start.
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": _urls(addresses),
            "advertised.listeners": _urls(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in addresses),
            "log.dirs": str(node.log_dir),
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(MAX_MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
            # Replayed history must not be deleted for its age.
            "log.message.timestamp.type": "LogAppendTime",
            "group.initial.rebalance.delay.ms": "0",
            "default.replication.factor": replication,
            "min.insync.replicas": min_insync,
            "offsets.topic.num.partitions": "8",
            "offsets.topic.replication.factor": replication,
            "transaction.state.log.num.partitions": "8",
            "transaction.state.log.replication.factor": replication,
            "transaction.state.log.min.isr": min_insync,
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": replication,
            "share.coordinator.state.topic.min.isr": min_insync,
            **self.overrides,
        }
        return "".join(f"{name}={value}\n" for name, value in properties.items())


def _urls(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ports.items())


def _new_cluster_id() -> str:
    """A random id in Kafka's spelling; one that begins with a dash would be taken for an option."""
    while True:
        spelled = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not spelled.startswith("-"):
            return spelled
