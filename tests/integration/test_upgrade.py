"""A rolling upgrade from the last release: old and new code side by side on the new schema, and back again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.broker import Broker
from shared.broker import create_missing_topics
from shared.contracts.base import canonical_json
from shared.settings import Settings
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, POLICIES, PREDICTIONS
from tests.kernel_world import eventually, producing, query
from tests.releases import ROOT, ServiceOf, unpack_last_release

CONSUMERS = ("metrics", "alerting", "retrain")
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
A_DAYS_PREDICTIONS = 40
PATIENCE_SECONDS = 240
RIGHT = {1: 36, 2: 36, 3: 36, 4: 20, 5: 20, 6: 20, 7: 36, 8: 36}
"""How many of a day's predictions were right: from the fourth day on the model is in breach for three days."""


class Deployment:
    """The three consumers of one release, and its gateway."""

    def __init__(self, folder: Path, environment: dict[str, str], logs: Path) -> None:
        logs.mkdir()
        self.services = {
            name: ServiceOf(folder, name, environment, logs / f"{name}.log") for name in (*CONSUMERS, "gateway")
        }

    async def start(self) -> None:
        """Start all of it and wait until it is ready."""
        for service in self.services.values():
            service.start()
        for name, service in self.services.items():
            await eventually(
                service.readiness, lambda seen: seen[0] == 200, f"{name} is ready", seconds=PATIENCE_SECONDS
            )

    def stop(self) -> None:
        """Stop it in order, as a rolling upgrade does."""
        for service in self.services.values():
            service.terminate()
        assert [service.exit_code() for service in self.services.values()] == [0, 0, 0, 0]

    async def ask(self, path: str) -> Any:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{self.services['gateway'].port}{path}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def kill(self) -> None:
        for service in self.services.values():
            service.kill()


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> Settings:
    """The present code's schema, and the present code's topics."""
    found = Settings(
        postgres_dsn=database_dsn,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        topic_prefix=topic_prefix,
    )
    await create_missing_topics(found)
    return found


@pytest.fixture
def releases(settings: Settings, kafka_broker: Broker, tmp_path: Path) -> Iterator[tuple[Deployment, Deployment]]:
    """The last release and the present code, with the same endpoints, neither started."""
    old_folder = tmp_path / "release"
    old_folder.mkdir()
    tag = unpack_last_release(old_folder)
    environment = {
        **kafka_broker.service_environment(),
        "TRUEWARD_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "TRUEWARD_TOPIC_PREFIX": settings.topic_prefix,
        "TRUEWARD_CLOCK": "event",
        "TRUEWARD_SNAPSHOT_INTERVAL": "1d",
        "TRUEWARD_SESSION_TIMEOUT_SECONDS": "6",
    }
    assert code_of(old_folder) == old_folder / "shared" / "__init__.py", f"{tag} must run its own code"
    old = Deployment(old_folder, environment, tmp_path / "old")
    new = Deployment(ROOT, environment, tmp_path / "new")
    yield old, new
    old.kill()
    new.kill()


def code_of(folder: Path) -> Path:
    """Which code a process takes that is started as ``ServiceOf`` starts one."""
    told = subprocess.run(
        [sys.executable, "-c", "import shared; print(shared.__file__)"],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(told.stdout.strip())


def day_of(day: int) -> Iterable[tuple[Any, int | None, dict[str, Any]]]:
    """A day's events with their partitions, and the ticks that end it."""
    begins = FIRST_DAY + timedelta(days=day - 1)
    for number in range(A_DAYS_PREDICTIONS):
        name = f"d{day}-{number}"
        predicted_at, observed_at = begins + timedelta(hours=1), begins + timedelta(hours=2)
        prediction = {
            "prediction_id": name,
            "model": "m",
            "model_version": "1",
            "predicted_at": predicted_at.isoformat(),
            "probability": 0.75,
        }
        label = {"entity_id": name, "outcome": int(number < RIGHT[day]), "observed_at": observed_at.isoformat()}
        yield PREDICTIONS, number % PREDICTIONS.partitions, prediction
        # The halves of a pair lie in different partitions, so old and new code meet in the join.
        yield LABELS, (number + 1) % LABELS.partitions, label
    yield PIPELINE_RUNS, 0, {"pipeline": "p", "completed_at": observed_at.isoformat(), "status": "success"}
    for topic in (PREDICTIONS, LABELS, PIPELINE_RUNS):
        for partition in range(topic.partitions):
            yield topic, partition, {"tick": (begins + timedelta(days=1)).isoformat()}


async def publish(settings: Settings, events: Iterable[tuple[Any, int | None, dict[str, Any]]]) -> None:
    async with producing(settings.kafka_bootstrap_servers) as producer:
        for topic, partition, event in events:
            await producer.send(settings.topic_prefix + topic.name, canonical_json(event), partition=partition)
        await producer.flush()


async def rows(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    return await asyncio.to_thread(query, settings.postgres_dsn.get_secret_value(), statement)


async def until_judged(settings: Settings, day: int, deployments: Iterable[Deployment]) -> None:
    """Wait until every service has come to the end of that day."""
    statement = """
        SELECT least(
            (SELECT coalesce(max(sequence), 0) FROM metrics.snapshot),
            (SELECT coalesce(max(snapshot_sequence), 0) FROM alerting.models),
            (SELECT coalesce(max(snapshot_sequence), 0) FROM retrain.models)
        )
    """

    async def look() -> int:
        for deployment in deployments:
            for service in deployment.services.values():
                assert service.process is not None
                assert service.process.poll() is None, service.words()
        return int((await rows(settings, statement))[0][0])

    await eventually(look, lambda seen: seen >= day, f"day {day} is judged", seconds=PATIENCE_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_old_and_new_side_by_side_lose_nothing_and_the_way_back_is_open(
    settings: Settings, releases: tuple[Deployment, Deployment]
) -> None:
    old, new = releases
    await publish(
        settings,
        [
            (POLICIES, None, {"model": "m", "mode": "enforce", "window": "1d"}),
            (
                MODEL_VERSIONS,
                None,
                {"model": "m", "version": "1", "stage": "champion", "registered_at": FIRST_DAY.isoformat()},
            ),
        ],
    )
    await old.start()
    for day in (1, 2):
        await publish(settings, day_of(day))
    await until_judged(settings, 2, [old])
    await new.start()
    for day in (3, 4, 5):
        await publish(settings, day_of(day))
        await until_judged(settings, day, [old, new])
    old.stop()
    await publish(settings, day_of(6))
    await until_judged(settings, 6, [new])
    # The release is taken back: the old code goes on from what the new one has left.
    await old.start()
    await publish(settings, day_of(7))
    await until_judged(settings, 7, [old, new])
    new.stop()
    await publish(settings, day_of(8))
    await until_judged(settings, 8, [old])
    await assert_right(settings, old)


async def assert_right(settings: Settings, deployment: Deployment) -> None:
    snapshots = await rows(
        settings,
        "SELECT sequence, (document -> 'metrics' ->> 'evaluated_predictions')::int, "
        "(document -> 'metrics' ->> 'accuracy')::float8, (document -> 'metrics' ->> 'brier_score')::float8 "
        "FROM metrics.snapshot ORDER BY sequence",
    )
    # Of probabilities of 0.75, the errors' squares are 1/16 and 9/16, and every sum of them is exact.
    assert snapshots == [
        (day, A_DAYS_PREDICTIONS, right / 40, (right + 9 * (A_DAYS_PREDICTIONS - right)) / 16 / 40)
        for day, right in RIGHT.items()
    ]
    states = await rows(settings, "SELECT snapshot_sequence, alert_sequence, state FROM alerting.models")
    transitions = await rows(
        settings,
        "SELECT alert_sequence, (document ->> 'snapshot_sequence')::int, document ->> 'transition' "
        "FROM alerting.transitions WHERE document ->> 'alert_id' = 'accuracy_breach' OR alert_sequence = 1 "
        "ORDER BY alert_sequence",
    )
    assert [(sequence, what) for _, sequence, what in transitions] == [
        (4, "opened"),
        (5, "escalated"),
        (7, "resolved"),
    ]
    counted = await rows(settings, "SELECT count(*), max(alert_sequence) FROM alerting.transitions")
    assert counted[0][0] == counted[0][1] == states[0][1]
    assert (states[0][0], states[0][2]) == (8, "none")
    assert await rows(settings, "SELECT status, count(*) FROM retrain.jobs GROUP BY status") == [("queued", 1)]
    decisions = await rows(settings, "SELECT count(*), max(decision_sequence) FROM retrain.decisions")
    assert decisions == [(8, 8)]
    for service in CONSUMERS:
        # What was judged last may be on its way.
        await eventually(
            partial(rows, settings, f"SELECT unsent FROM {service}.published_outbox"),
            lambda found: found == [(0,)],
            f"{service} has published everything",
        )
    answer = await deployment.ask("/api/v1/mlops/monitoring?model=m")
    assert (answer["metrics"]["accuracy"], answer["escalation"]["state"]) == (0.9, "none")
