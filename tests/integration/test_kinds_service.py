"""A multiclass and a regression model through the real services, from a label to a retraining job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from deploy.local.broker import Broker
from deploy.local.endpoints import FILE_NAME
from shared.topics import LABELS, POLICIES, PREDICTIONS
from tests.integration.conftest import RunningCommand, Start
from tests.metrics_world import Fact
from tests.plain_metrics import Plain
from trueward.client import RequestRefusedError, Trueward
from trueward.client.types import Job, Monitoring

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
PRICES, TOPICS = "house-prices", "mail-topics"
START_SECONDS = PATIENCE_SECONDS = 150
GIVEN = ({"invoice": 0.6, "spam": 0.3, "other": 0.1}, {"invoice": 0.2, "spam": 0.7, "other": 0.1})
HAPPENED = ("invoice", "spam", "never seen", "other", "other")


def facts(now: datetime) -> list[Fact]:
    """Prices were off by 1 to 5 three hours ago, and by ten times that now; mail is sorted badly."""
    found: list[Fact] = []

    def said(model: str, number: int, at: datetime, outcome: Any, **answer: Any) -> None:
        named = {"prediction_id": f"{model}-{number}", "model": model, "model_version": "1"}
        found.append((PREDICTIONS, {**named, "predicted_at": at.isoformat(), **answer}))
        observed_at = (at + timedelta(seconds=20)).isoformat()
        found.append((LABELS, {"entity_id": f"{model}-{number}", "outcome": outcome, "observed_at": observed_at}))

    for number in range(10):
        said(PRICES, number, now - timedelta(hours=3), 200.1, value=200.1 + number % 5 + 1)
        said(PRICES, 10 + number, now - timedelta(minutes=5), 200.1 + 10 * (number % 5 + 1), value=200.1)
        said(TOPICS, number, now - timedelta(minutes=5), HAPPENED[number % 5], probabilities=GIVEN[number % 2])
    policy = {"window": "1h", "mode": "enforce", "min_evaluated": 5}
    return [*found, *((POLICIES, {"model": model, **policy}) for model in (PRICES, TOPICS))]


def until(wanted: Callable[[], bool], command: RunningCommand) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted():
        assert command.process.poll() is None, command.said()
        assert time.monotonic() < deadline, command.said()[-3000:]
        time.sleep(0.2)


@pytest.fixture
def up(
    start: Start, kafka_broker: Broker, database_dsn: str, topic_prefix: str, tmp_path: Path
) -> tuple[RunningCommand, str]:
    """``trueward up`` on the session's parts, a snapshot a second; and where it answers."""
    arguments = ["--data-dir", str(tmp_path), "--http-port", "0", "--snapshot-interval", "1s"]
    arguments += ["--postgres", database_dsn, "--kafka", kafka_broker.bootstrap_servers]
    command = start("up", *arguments, "--topic-prefix", topic_prefix)
    until((tmp_path / FILE_NAME).exists, command)
    url = str(json.loads((tmp_path / FILE_NAME).read_text(encoding="utf-8"))["http"])
    return command, url


def test_what_was_off_becomes_an_incident_and_a_job_with_exact_figures(
    up: tuple[RunningCommand, str],
    run: Callable[..., Any],
    kafka_broker: Broker,
    topic_prefix: str,
    tmp_path: Path,
) -> None:
    command, url = up
    events = facts(datetime.now(UTC))
    policies = tmp_path / "policies.yaml"
    policies.write_text("\n---\n".join(json.dumps(one) for topic, one in events if topic is POLICIES))
    applied = run(
        *("policy", "apply", str(policies)),
        **kafka_broker.service_environment(),
        TRUEWARD_TOPIC_PREFIX=topic_prefix,
    )
    assert applied.returncode == 0, applied.stderr
    plain = Plain(events)
    found: dict[str, Monitoring] = {}
    jobs: dict[str, Job] = {}
    with Trueward(url) as client:
        client.publish_predictions([event for topic, event in events if topic is PREDICTIONS])  # type: ignore[misc]
        client.publish_labels([event for topic, event in events if topic is LABELS])  # type: ignore[misc]

        def judged() -> bool:
            for model in (PRICES, TOPICS):
                try:
                    found[model] = client.monitoring(model)
                except RequestRefusedError as unknown:
                    if unknown.status != HTTPStatus.NOT_FOUND:
                        raise
                    return False  # the first record of it is still on its way
                jobs.update({job["model"]: job for job in client.jobs(model)})
            return len(jobs) == 2 and all(one["escalation"]["state"] == "incident" for one in found.values())

        until(judged, command)
    assert {one["alert_id"] for one in found[PRICES]["alerts"]} == {"mae_breach"}
    assert {one["alert_id"] for one in found[TOPICS]["alerts"]} == {"accuracy_breach", "multiclass_brier_breach"}
    assert jobs[PRICES]["triggers"] == ["mae_breach"]
    assert jobs[TOPICS]["triggers"] == ["accuracy_breach", "multiclass_brier_breach"]
    for model, monitoring in found.items():
        as_of = datetime.fromisoformat(monitoring["as_of"] or "")
        expected = plain.figures(int(as_of.timestamp()))[model, "", "", "1h"]
        assert {name: monitoring["metrics"][name] for name in expected} == expected  # type: ignore[literal-required]
    assert (found[PRICES]["metrics"]["mae"], found[PRICES]["metrics"]["baseline_mae"]) == (30.0, 3.0)
