"""Which parts are chosen, and what is said when one is missing; nothing is started here."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from deploy.local import apache_kafka, broker, fetch, postgres
from deploy.local.processes import PORTS, Account, claim_port, free_port
from shared.errors import UsageError

pytestmark = pytest.mark.usefixtures("path", "jars")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but what the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


@pytest.fixture
def jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of jars that looks like Kafka's, and is the one looked at."""
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / "kafka_2.13-4.9.1.jar").touch()
    (folder / "kafka-clients-4.9.1.jar").touch()
    monkeypatch.setattr(apache_kafka.find, "__defaults__", (folder,))
    return folder


def program(
    folder: Path, name: str, *, standard_error: str = "", standard_output: str = "", code: int = 0
) -> None:
    script = folder / name
    lines = [
        f"#!{sys.executable}",
        "import sys",
        f"sys.stderr.write({standard_error!r})",
        f"sys.stdout.write({standard_output!r})",
        f"sys.exit({code})",
    ]
    script.write_text("\n".join(lines))
    script.chmod(0o755)


def java(folder: Path, version: str) -> None:
    program(folder, "java", standard_error=f'openjdk version "{version}" 2030-01-01\n')


@pytest.mark.parametrize(("said", "found"), [("17.0.1", 17), ("21", 21), ("25-ea", 25)])
def test_kafka_is_chosen_where_java_and_jars_are(path: Path, tmp_path: Path, said: str, found: int) -> None:
    java(path, said)
    plan = broker.choose(data_dir=tmp_path)
    assert plan.broker.name == "Apache Kafka 4.9.1"
    assert plan.broker.line() == f"broker: Apache Kafka 4.9.1, on Java {found} ({plan.broker.bootstrap_servers})"
    assert plan.broker.keeps_records_across_restarts
    assert plan.broker.idempotent_producer
    assert not plan.processes[0].forgets


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (None, "Java 17 or newer is missing"),
        ("11.0.20", "Java 17 or newer is missing (.* is Java 11)"),
        ("1.8.0_402", "Java 17 or newer is missing (.* is Java 8)"),
    ],
)
def test_without_java_the_fallback_is_chosen_and_kafka_refused_in_one_line(
    path: Path, tmp_path: Path, version: str | None, why: str
) -> None:
    if version is not None:
        java(path, version)
    why = why.replace("(", r"\(").replace(")", r"\)")
    plan = broker.choose(data_dir=tmp_path)
    assert plan.broker.name.startswith("Tansu")
    assert plan.processes[0].forgets
    assert not plan.broker.keeps_records_across_restarts
    with pytest.raises(UsageError, match=f"^--broker kafka cannot be had here, because {why}$"):
        broker.choose(data_dir=tmp_path, broker="kafka")


def test_java_that_does_not_run_counts_as_missing(path: Path, tmp_path: Path) -> None:
    program(path, "java", code=1)
    assert "does not run" in broker.choose(data_dir=tmp_path).broker.why


def test_without_jars_the_fallback_is_chosen(path: Path, jars: Path, tmp_path: Path) -> None:
    java(path, "17.0.1")
    (jars / "kafka_2.13-4.9.1.jar").unlink()
    assert "Kafka's jars are not installed" in broker.choose(data_dir=tmp_path).broker.why


def test_a_broker_that_is_given_is_used_and_nothing_is_started(tmp_path: Path) -> None:
    plan = broker.choose(data_dir=tmp_path, bootstrap_servers="kafka.internal:9092")
    assert (plan.broker.line(), plan.processes) == ("broker: Kafka, as given (kafka.internal:9092)", ())
    assert plan.broker.idempotent_producer
    given_fallback = broker.choose(data_dir=tmp_path, broker="tansu", bootstrap_servers="localhost:9092")
    assert not given_fallback.broker.idempotent_producer


def test_services_are_told_what_the_broker_can_do(tmp_path: Path) -> None:
    plan = broker.choose(data_dir=tmp_path, broker="tansu")
    assert plan.broker.service_environment() == {
        "TRUEWARD_KAFKA_BOOTSTRAP_SERVERS": plan.broker.bootstrap_servers,
        "TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER": "false",
        "TRUEWARD_KAFKA_TRUE_END_OFFSETS": "false",
    }


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"^port {port} for the broker is in use: choose another with --kafka"
        ):
            claim_port(port, what="the broker", option="--kafka-port")


def test_port_zero_takes_a_free_one_that_no_client_will_take() -> None:
    assert claim_port(0, what="HTTP", option="--http-port") in PORTS
    assert free_port() in PORTS


def test_fetching_without_maven_or_java_says_which_broker_will_be_used(path: Path, tmp_path: Path) -> None:
    assert fetch.fetch(tmp_path).endswith("will be used, because Java 17 or newer is missing")
    java(path, "17.0.1")
    assert fetch.fetch(tmp_path).endswith("will be used, because Maven (mvn) is missing")


def test_fetching_that_fails_is_said_and_tried_again_the_next_time(path: Path, tmp_path: Path) -> None:
    java(path, "17.0.1")
    (tmp_path / "pom.xml").write_text("<project/>")
    program(path, "mvn", standard_output="[ERROR] no route to the repository\nmore\n", code=1)
    assert fetch.fetch(tmp_path).endswith(
        "because Maven could not fetch Kafka: [ERROR] no route to the repository"
    )
    assert not (tmp_path / "target").exists()


def test_a_cluster_of_three_knows_its_voters_and_its_replication(tmp_path: Path) -> None:
    found = apache_kafka.Installation(java="java", java_version=17, jars=tmp_path, version="4.9.1")
    cluster = apache_kafka.Cluster.of(
        found, tmp_path, [15001, 15002, 15003], replication=3, min_insync=2, overrides={"num.io.threads": "2"}
    )
    second = cluster.nodes[1]
    properties = dict(line.split("=", 1) for line in cluster._properties(second).splitlines())
    assert cluster.bootstrap_servers == "127.0.0.1:15001,127.0.0.1:15002,127.0.0.1:15003"
    assert [process.name for process in cluster.processes()] == ["broker-1", "broker-2", "broker-3"]
    assert properties["node.id"] == "2"
    assert [voter.split("@")[0] for voter in properties["controller.quorum.voters"].split(",")] == ["1", "2", "3"]
    assert properties["offsets.topic.replication.factor"] == properties["default.replication.factor"] == "3"
    assert properties["min.insync.replicas"] == properties["transaction.state.log.min.isr"] == "2"
    assert properties["num.io.threads"] == "2"


def test_a_node_may_have_an_address_that_leads_through_a_proxy(tmp_path: Path) -> None:
    found = apache_kafka.Installation(java="java", java_version=17, jars=tmp_path, version="4.9.1")
    link = apache_kafka.Listener(name="METRICS", port=16001, advertised_port=17001)
    cluster = apache_kafka.Cluster.of(found, tmp_path, [15001], listeners=[[link]], jvm_flags=("-Xmx256m",))
    properties = dict(line.split("=", 1) for line in cluster._properties(cluster.nodes[0]).splitlines())
    assert properties["listeners"].endswith(",METRICS://127.0.0.1:16001")
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:15001,METRICS://127.0.0.1:17001"
    assert properties["listener.security.protocol.map"].split(",")[-1] == "METRICS:PLAINTEXT"
    assert cluster.processes()[0].argv[1] == "-Xmx256m"


def test_postgres_cannot_be_kept_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        postgres._own(tmp_path / "file" / "postgres", None)


def test_the_password_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    postgres._password(tmp_path, None)
    made = (tmp_path / "password").read_text()
    postgres._password(tmp_path, None)
    assert (tmp_path / "password").read_text() == made
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


def test_a_folder_that_the_unprivileged_user_cannot_reach_gets_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = Account(uid=65_534, gid=65_534, name="nobody")
    closed, ground = tmp_path / "closed", tmp_path / "ground"
    (closed / "within").mkdir(parents=True)
    closed.chmod(0o700)
    monkeypatch.setattr(postgres, "COMMON_GROUND", ground)
    monkeypatch.setattr(postgres, "_can_reach", lambda path, _: closed not in path.parents)
    folder = closed / "within" / "postgres"
    stand_in = postgres._reachable_folder(folder, nobody)
    assert stand_in.parent == ground
    (stand_in / "data").mkdir(parents=True)
    assert postgres._reachable_folder(folder, nobody) == stand_in
    assert (folder / "data").is_dir()
    folder.unlink()  # as by someone who removes the data directory
    assert postgres._reachable_folder(folder, nobody) == stand_in
    assert not stand_in.exists()
    assert postgres._reachable_folder(tmp_path / "postgres", nobody) == tmp_path / "postgres"


@pytest.mark.parametrize(("mode", "reached"), [(0o700, False), (0o711, True), (0o755, True), (0o710, False)])
def test_reach_is_judged_by_every_folder_on_the_way(tmp_path: Path, mode: int, reached: bool) -> None:
    somebody = Account(uid=os.getuid() + 1000, gid=os.getgid() + 1000, name="somebody")
    folder = tmp_path / "way"
    folder.mkdir()
    folder.chmod(mode)
    passable = [parent for parent in tmp_path.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if passable or not tmp_path.stat().st_mode & stat.S_IXOTH:
        folder = Path("/var/tmp") / f"trueward-test-{os.getpid()}"
        folder.mkdir()
        folder.chmod(mode)
    try:
        assert postgres._can_reach(folder / "below", somebody) is reached
    finally:
        folder.rmdir()
