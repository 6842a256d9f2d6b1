"""The command line against a real broker, a real database and a real gateway."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.broker import Broker
from shared.broker import create_missing_topics, make_producer
from shared.contracts.models import Policy
from shared.settings import Settings
from shared.topics import ALERTS, LABELS, PIPELINE_RUNS, POLICIES, PREDICTIONS, RETRAIN_JOBS, TOPICS, Topic
from tests.gateway_world import DAYS, FLIGHTS, NEWBORN, POLICY, QUIET
from tests.integration.conftest import Start, free_port
from trueward.cli.broker import existing

Run = Callable[..., subprocess.CompletedProcess[str]]
GOLDEN = Path(__file__).parents[1] / "contracts" / "golden"


@pytest.fixture
def environment(kafka_broker: Broker, topic_prefix: str) -> dict[str, str]:
    return {**kafka_broker.service_environment(), "TRUEWARD_TOPIC_PREFIX": topic_prefix}


@pytest.fixture
def settings(kafka_broker: Broker, topic_prefix: str) -> Settings:
    return Settings(
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        topic_prefix=topic_prefix,
    )


@pytest.fixture
async def topics(settings: Settings) -> Settings:
    await create_missing_topics(settings)
    return settings


async def records_of(settings: Settings, topic: Topic, count: int) -> list[Any]:
    """That many records of a topic, from its beginning, and a moment's proof that there are no more."""
    async with reading(settings, topic) as consumer:
        found: list[Any] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                batches = await consumer.getmany(timeout_ms=200)
                found += [record for batch in batches.values() for record in batch]
        more = await consumer.getmany(timeout_ms=500)
        assert not more
        assert len(found) == count
        return found


@asynccontextmanager
async def reading(settings: Settings, topic: Topic) -> AsyncIterator[AIOKafkaConsumer]:
    name = settings.topic_prefix + topic.name
    partitions = (await existing(settings, [topic]))[topic.name]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(name, number) for number in partitions])
        await consumer.seek_to_beginning()
        yield consumer
    finally:
        await consumer.stop()


def prediction(number: int, **more: Any) -> dict[str, Any]:
    return {
        "prediction_id": f"p-{number}",
        "entity_id": f"e-{number % 40}",
        "model": "m",
        "model_version": "1",
        "predicted_at": "2026-01-01T00:00:00Z",
        "probability": 0.25,
        **more,
    }


def as_lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


async def test_predictions_are_published_as_written_and_keyed_by_entity(
    run: Run, topics: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    """More than one portion of records, so that portions join without a gap."""
    events = [prediction(number) for number in range(12_000)]
    path = tmp_path / "predictions.jsonl"
    path.write_text(as_lines(*events), encoding="utf-8")
    done = await asyncio.to_thread(run, "publish", "predictions", str(path), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"sent 12,000 records to {topics.topic_prefix}predictions\n"
    records = await records_of(topics, PREDICTIONS, len(events))
    assert (
        sorted((json.loads(record.value) for record in records), key=lambda event: int(event["prediction_id"][2:]))
        == events
    )
    assert all(record.key.decode() == json.loads(record.value)["entity_id"] for record in records)
    places: dict[bytes, set[int]] = {}
    for record in records:
        places.setdefault(record.key, set()).add(record.partition)
    assert all(len(partitions) == 1 for partitions in places.values())
    in_order: dict[bytes, list[int]] = {}
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        in_order.setdefault(record.key, []).append(int(json.loads(record.value)["prediction_id"][2:]))
    assert all(numbers == sorted(numbers) for numbers in in_order.values())


async def test_one_bad_line_and_nothing_is_sent(run: Run, topics: Settings, environment: dict[str, str]) -> None:
    lines = as_lines(
        *(prediction(number) for number in range(50)), prediction(51, probability=1.2), prediction(52)
    )
    done = await asyncio.to_thread(run, "publish", "predictions", "-", stdin=lines, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("trueward: standard input, line 51: probability: ")
    assert done.stderr.endswith("; nothing was sent\n")
    assert done.stderr.count("\n") == 1
    await records_of(topics, PREDICTIONS, 0)


@pytest.mark.parametrize(
    ("command", "topic", "folder"),
    [("labels", LABELS, "label.v1"), ("pipeline-runs", PIPELINE_RUNS, "pipeline-run.v1")],
)
async def test_standard_input_and_json(
    run: Run, topics: Settings, environment: dict[str, str], *, command: str, topic: Topic, folder: str
) -> None:
    examples = [json.loads(path.read_bytes()) for path in sorted((GOLDEN / folder).glob("*.json"))]
    text = as_lines(examples[0] | {"not_known": 1}, *examples[1:])
    done = await asyncio.to_thread(run, "publish", command, "-", "--json", stdin=text, **environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["topic"], answer["sent"]) == (topics.topic_prefix + topic.name, len(examples))
    assert answer["unknown_fields"]["not_known"] == 1
    assert "not_known (1 times)" in done.stderr
    assert len(await records_of(topics, topic, len(examples))) == len(examples)


async def test_an_empty_file_is_no_error(run: Run, topics: Settings, environment: dict[str, str]) -> None:
    done = await asyncio.to_thread(run, "publish", "labels", "-", stdin="\n", **environment)
    assert (done.returncode, done.stdout) == (0, f"sent 0 records to {topics.topic_prefix}labels\n")


def test_a_missing_topic_is_said_with_the_remedy(run: Run, environment: dict[str, str]) -> None:
    done = run("publish", "predictions", "-", stdin=as_lines(prediction(1)), **environment)
    assert done.returncode == 2
    assert done.stderr.endswith("predictions: run `trueward topics create`\n")
    assert done.stderr.count("\n") == 1


async def test_a_tick_reaches_every_partition_of_the_clocks_topics(
    run: Run, topics: Settings, environment: dict[str, str]
) -> None:
    arguments = ("publish", "tick", "2013-04-01T02:00:00+02:00")
    done = await asyncio.to_thread(run, *arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    expected = sum(topic.partitions for topic in (PREDICTIONS, LABELS, PIPELINE_RUNS))
    assert done.stdout == f"sent a tick of 2013-04-01T00:00:00Z to {expected} partitions\n"
    for topic in (PREDICTIONS, LABELS, PIPELINE_RUNS):
        records = await records_of(topics, topic, topic.partitions)
        assert {record.partition for record in records} == set(range(topic.partitions))
        assert {record.value for record in records} == {b'{"tick":"2013-04-01T00:00:00Z"}'}


async def test_topics_are_created_once_and_listed(
    run: Run, settings: Settings, environment: dict[str, str]
) -> None:
    before = await asyncio.to_thread(run, "topics", "list", "--json", **environment)
    assert {topic["partitions"] for topic in json.loads(before.stdout)["topics"]} == {None}
    created = await asyncio.to_thread(run, "topics", "create", "--json", **environment)
    assert set(json.loads(created.stdout)["created"]) == {settings.topic_prefix + topic.name for topic in TOPICS}
    again = await asyncio.to_thread(run, "topics", "create", **environment)
    assert (again.returncode, again.stdout) == (0, "every topic is there\n")
    listed = await asyncio.to_thread(run, "topics", "list", "--json", **environment)
    partitions = {topic["topic"]: topic["partitions"] for topic in json.loads(listed.stdout)["topics"]}
    assert partitions == {settings.topic_prefix + topic.name: topic.partitions for topic in TOPICS}
    table = await asyncio.to_thread(run, "topics", "list", **environment)
    assert all(settings.topic_prefix + topic.name in table.stdout for topic in TOPICS)


async def send_transitions(settings: Settings, *models: str) -> None:
    document = json.loads((GOLDEN / "alert-transition.v1" / "opened.json").read_bytes())
    producer = make_producer(settings, "test")
    await producer.start()
    try:
        for model in models:
            value = json.dumps({**document, "model": model}).encode()
            await producer.send_and_wait(settings.topic_prefix + ALERTS.name, value, key=model.encode())
    finally:
        await producer.stop()


async def test_watch_from_the_beginning(run: Run, topics: Settings, environment: dict[str, str]) -> None:
    await send_transitions(topics, "a", "b", "a")
    asked = ("watch", "alerts", "--from-beginning", "--model", "a", "--count", "2")
    done = await asyncio.to_thread(run, *asked, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    assert all("  a  " in line and "opened" in line for line in done.stdout.splitlines())
    machine = await asyncio.to_thread(run, *asked, "--json", **environment)
    assert [json.loads(line)["model"] for line in machine.stdout.splitlines()] == ["a", "a"]


async def test_watch_alone_shows_transitions_of_alerts_and_jobs(
    run: Run, topics: Settings, environment: dict[str, str]
) -> None:
    await send_transitions(topics, "a")
    job = json.loads((GOLDEN / "retrain-job.v1" / "queued.json").read_bytes())
    producer = make_producer(topics, "test")
    await producer.start()
    try:
        await producer.send_and_wait(topics.topic_prefix + RETRAIN_JOBS.name, json.dumps(job).encode())
    finally:
        await producer.stop()
    done = await asyncio.to_thread(run, "watch", "--from-beginning", "--count", "2", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    lines = sorted(done.stdout.splitlines(), key=lambda line: f"  job {job['job_id']} queued " in line)
    assert "opened" in lines[0]
    assert f"  job {job['job_id']} queued " in lines[1]


async def test_watch_shows_what_comes_and_ends_with_ctrl_c(
    start: Start, topics: Settings, environment: dict[str, str]
) -> None:
    await send_transitions(topics, "old")
    watching = start("watch", "alerts", **environment)
    async with asyncio.timeout(40):
        while not watching.said():
            # What is sent before it watches is not shown: sent again until it is seen.
            await send_transitions(topics, "new")
            await asyncio.sleep(0.2)
    assert watching.stop(signal.SIGINT) == 0
    assert "  new  " in watching.said()
    assert "  old  " not in watching.said()
    assert "Traceback" not in watching.said()


def test_a_reader_that_has_seen_enough_is_no_error(topics: Settings, environment: dict[str, str]) -> None:
    asyncio.run(send_transitions(topics, *(["a"] * 50)))
    piped = subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            f"{sys.executable} -m trueward watch alerts --from-beginning --count 50 | head -1",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert (piped.returncode, piped.stderr) == (0, "")
    assert len(piped.stdout.splitlines()) == 1


async def test_a_policy_is_checked_then_published(
    run: Run, topics: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("model: a\nmode: enforce\n---\nmodel: b\nrules: {data_stale: null}\n", encoding="utf-8")
    checked = await asyncio.to_thread(run, "policy", "apply", str(path), "--dry-run")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.count("is valid (not sent)") == 2
    await records_of(topics, POLICIES, 0)
    done = await asyncio.to_thread(run, "policy", "apply", str(path), "--json", **environment)
    assert done.returncode == 0, done.stderr
    records = await records_of(topics, POLICIES, 2)
    sent = {record.key: Policy.model_validate_json(record.value) for record in records}
    assert sent[b"a"] == Policy(model="a", mode="enforce")
    assert sent[b"b"].rules.data_stale is None
    assert [said["policy_sha256"] for said in json.loads(done.stdout)["policies"]] == [
        sent[b"a"].sha256(),
        sent[b"b"].sha256(),
    ]
    path.write_text("model: a\nmdoe: enforce\n", encoding="utf-8")
    typo = await asyncio.to_thread(run, "policy", "apply", str(path), **environment)
    assert typo.returncode == 2
    assert "'mdoe' (did you mean 'mode'?)" in typo.stderr
    await records_of(topics, POLICIES, 2)


def test_migrate_is_done_once(run: Run, postgres_server: str, database_dsn: str) -> None:
    name = f"{database_dsn.rpartition('/')[2]}_empty"
    dsn = f"{postgres_server.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres_server, autocommit=True) as administrator:
        administrator.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            first = run("migrate", "--postgres", dsn, "--json")
            assert first.returncode == 0, first.stderr
            assert json.loads(first.stdout)["applied"] > 3
            again = run("migrate", "--postgres", dsn)
            assert (again.returncode, again.stdout) == (0, "the database is up to date\n")
        finally:
            administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_an_inbox_is_reset_for_one_topic_or_all(run: Run, world_dsn: str) -> None:
    def left() -> set[str]:
        with psycopg.connect(world_dsn) as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT topic FROM metrics.inbox")}

    assert left() >= {"predictions", "labels"}
    asked = ("inbox", "reset", "--service", "metrics", "--postgres", world_dsn)
    unsure = run(*asked, stdin="n\n")
    assert unsure.returncode == 1
    assert unsure.stderr.endswith("trueward: nothing was done\n")
    assert "labels" in left()
    one = run(*asked, "--topic", "labels", "--yes", "--json")
    assert json.loads(one.stdout) == {"service": "metrics", "topic": "labels", "partitions_forgotten": 1}
    assert "labels" not in left()
    assert "predictions" in left()
    every = run(*asked, stdin="y\n")
    assert every.returncode == 0, every.stderr
    assert left() == set()


@pytest.fixture
def gateway_url(start: Start, environment: dict[str, str], topics: Settings, world_dsn: str) -> str:  # noqa: ARG001 (the topics exist)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start(
        "service", "gateway", "--http-port", str(port), "--postgres", world_dsn, **environment
    ).wait_until_answers(url)
    return url


def test_status_models_jobs_and_policy_for_people(run: Run, gateway_url: str) -> None:
    status = run("status", "--http", gateway_url)
    assert (status.returncode, status.stderr) == (0, "")
    for part in ("postgresql", "kafka", "metrics", "incident", FLIGHTS, QUIET, "every 86,400 s"):
        assert part in status.stdout
    (flights,) = (line for line in status.stdout.splitlines() if FLIGHTS in line and "incident" in line)
    for part in ("0.0000 < 0.55", "> 0.25", "queued"):
        assert part in flights
    models = run("models", "--http", gateway_url)
    assert "Models (4)" in models.stdout
    jobs = run("jobs", "list", "--http", gateway_url)
    assert "Jobs (1)" in jobs.stdout
    assert "queued" in jobs.stdout
    policy = run("policy", "show", FLIGHTS, "--http", gateway_url)
    assert policy.stdout.startswith(f"# in force; SHA-256 {POLICY.sha256()}\nmodel: flights\n")
    unheard = run("policy", "show", NEWBORN, "--http", gateway_url)
    assert unheard.stdout.startswith("# the defaults: none was received")


def test_what_is_shown_can_be_applied(run: Run, gateway_url: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(run("policy", "show", FLIGHTS, "--http", gateway_url).stdout, encoding="utf-8")
    checked = run("policy", "apply", str(path), "--dry-run", "--json")
    assert json.loads(checked.stdout)["policies"][0]["policy_sha256"] == POLICY.sha256()


def test_the_same_for_machines(run: Run, gateway_url: str) -> None:
    def ask(*arguments: str) -> Any:
        done = run(*arguments, "--json", "--http", gateway_url)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    status = ask("status")
    assert status["dependencies"]["kafka"]["ok"] is True
    assert (status["models"][0]["model"], status["models"][0]["standing"]) == (FLIGHTS, "incident")
    sequences = {model["model"]: model["snapshot_sequence"]["metrics"] for model in ask("models")["models"]}
    assert sequences[FLIGHTS] == DAYS
    (job,) = ask("jobs", "list", "--model", FLIGHTS, "--status", "queued", "--limit", "5")["jobs"]
    assert job["model"] == FLIGHTS
    assert ask("jobs", "list", "--status", "failed") == {"jobs": []}
    assert ask("policy", "show", FLIGHTS)["in_force"] == POLICY.known()


def test_an_unknown_model_is_one_line(run: Run, gateway_url: str) -> None:
    done = run("policy", "show", "flihgts", "--http", gateway_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("trueward: No model named 'flihgts' is known. Check (1)")
    assert done.stderr.count("\n") == 1


def test_a_running_stack_is_found_by_its_endpoints(
    run: Run, gateway_url: str, environment: dict[str, str], world_dsn: str, tmp_path: Path
) -> None:
    endpoints = {
        "http": gateway_url,
        "kafka": environment["TRUEWARD_KAFKA_BOOTSTRAP_SERVERS"],
        "postgres": world_dsn,
        "broker": "the tests'",
        "topic_prefix": environment["TRUEWARD_TOPIC_PREFIX"],
        "processes": {},
    }
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints), encoding="utf-8")
    idempotent = {"TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER": environment["TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER"]}
    found = ("--data-dir", str(tmp_path))
    assert run("status", *found).returncode == 0
    assert run("migrate", *found).stdout == "the database is up to date\n"
    sent = run("publish", "labels", "-", *found, stdin="", **idempotent)
    assert sent.stdout == f"sent 0 records to {environment['TRUEWARD_TOPIC_PREFIX']}labels\n"
