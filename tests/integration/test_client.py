"""The client against a real gateway and a real broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from deploy.local.broker import Broker
from shared.broker import create_missing_topics
from shared.settings import Settings
from tests.gateway_world import FLIGHTS, QUIET
from tests.integration.conftest import RunningCommand, Start, free_port
from trueward.client import AwayError, ClientError, EventsRefusedError, RequestRefusedError, Topics, Trueward
from trueward.client.types import AlertTransition, Label

GOLDEN = Path(__file__).parents[1] / "contracts" / "golden"
OPENED: AlertTransition = json.loads((GOLDEN / "alert-transition.v1" / "opened.json").read_bytes())


@pytest.fixture
async def settings(kafka_broker: Broker, topic_prefix: str) -> Settings:
    """Settings of a broker whose topics exist."""
    found = Settings(kafka_bootstrap_servers=kafka_broker.bootstrap_servers, topic_prefix=topic_prefix)
    await create_missing_topics(found)
    return found


@pytest.fixture
def begin(
    start: Start, settings: Settings, kafka_broker: Broker, world_dsn: str
) -> Callable[[int], RunningCommand]:
    """Start a gateway on the populated world."""

    def started(port: int) -> RunningCommand:
        environment = {
            **kafka_broker.service_environment(),
            "TRUEWARD_TOPIC_PREFIX": settings.topic_prefix,
            "TRUEWARD_POSTGRES_DSN": world_dsn,
        }
        gateway = start("service", "gateway", "--http-port", str(port), **environment)
        gateway.wait_until_answers(f"http://127.0.0.1:{port}")
        return gateway

    return started


@pytest.fixture
def topics(settings: Settings) -> Iterator[Topics]:
    with Topics(settings.kafka_bootstrap_servers, prefix=settings.topic_prefix) as found:
        yield found


def label(number: int, outcome: Any = 1) -> Label:
    return {"entity_id": f"e-{number}", "outcome": outcome, "observed_at": "2026-01-31T12:00:00Z"}


def test_everything_can_be_asked_and_published(begin: Callable[[int], RunningCommand]) -> None:
    port = free_port()
    begin(port)
    with Trueward(f"http://127.0.0.1:{port}") as client:
        assert client.publish_labels([label(number) for number in range(12_000)]).accepted == 12_000
        with pytest.raises(EventsRefusedError, match="1 of 2 events were refused; the first, event 1: outcome"):
            client.publish_labels([label(1), label(2, outcome=True)])
        said = client.monitoring(FLIGHTS)
        assert said["escalation"]["state"] == "incident"
        assert next(client.trend(FLIGHTS))["snapshot_sequence"] == said["snapshot_sequence"]
        assert client.policy(FLIGHTS)["should_retrain"] is True
        assert {job["model"] for job in client.jobs(FLIGHTS)} == {FLIGHTS}
        assert {FLIGHTS, QUIET} <= {known["model"] for known in client.models()}
        assert next(client.overview())["model"] == FLIGHTS
        past = [transition["alert_sequence"] for transition in client.past_transitions(FLIGHTS)]
        assert past == list(range(len(past), 0, -1))
        assert client.status()["dependencies"]["postgresql"]["ok"] is True
        with pytest.raises(RequestRefusedError, match="No model named 'nobody' is known") as raised:
            client.monitoring("nobody")
        assert raised.value.status == 404


def test_without_a_gateway_patience_ends() -> None:
    with Trueward("http://127.0.0.1:1", patience_seconds=0.5) as client, pytest.raises(AwayError):
        client.publish_labels(label(1))


def test_topics_are_published_to_and_heard_from(topics: Topics) -> None:
    assert topics.publish_labels(label(number) for number in range(3_000)).accepted == 3_000
    assert topics.publish_model_versions([]).accepted == 0
    send(topics, transition(1), transition(2, model="other"))
    heard = topics.transitions("m", from_beginning=True)
    assert next(heard)["alert_sequence"] == 1
    new = topics.transitions("m")
    send(topics, transition(1), transition(2), transition(2), transition(3))
    assert [next(new)["alert_sequence"] for _ in range(3)] == [1, 2, 3]
    assert [next(heard)["alert_sequence"] for _ in range(2)] == [2, 3]


def test_a_topic_that_is_not_there_is_said(topics: Topics, topic_prefix: str) -> None:
    with (
        Topics(topics._settings["bootstrap_servers"], prefix=f"{topic_prefix}!") as elsewhere,
        pytest.raises(ClientError, match="the broker has no topic"),
    ):
        elsewhere.transitions()


def test_transitions_are_heard_live_and_after_the_gateway_was_gone(
    begin: Callable[[int], RunningCommand], topics: Topics
) -> None:
    port = free_port()
    gateway = begin(port)
    heard: Queue[AlertTransition] = Queue()
    with Trueward(f"http://127.0.0.1:{port}", patience_seconds=120) as client:
        listener = threading.Thread(target=listen, args=(client, heard), daemon=True)
        listener.start()
        number = until_heard(topics, heard, 1)
        assert gateway.stop() == 0
        begin(port)
        until_heard(topics, heard, number + 1)
        assert listener.is_alive()


def listen(client: Trueward, heard: Queue[AlertTransition]) -> None:
    try:
        for told in client.transitions():
            heard.put(told)
    except (AwayError, RuntimeError):
        return  # the test closes the client, which ends the listening


def until_heard(topics: Topics, heard: Queue[AlertTransition], number: int) -> int:
    """Send transitions until one is heard: the listener may still be joining. Returns its number."""
    deadline = time.monotonic() + 60
    while heard.empty():
        assert time.monotonic() < deadline, "nothing was heard"
        send(topics, transition(number))
        number += 1
        time.sleep(0.3)
    told = heard.get()
    assert (told["model"], told["reason"]) == ("m", OPENED["reason"])
    latest = told["alert_sequence"]
    # What was sent meanwhile comes too, each once and in order.
    while latest < number - 1:
        following = heard.get(timeout=30)["alert_sequence"]
        assert following == latest + 1
        latest = following
    return latest


def transition(number: int, model: str = "m") -> AlertTransition:
    return {**OPENED, "model": model, "alert_sequence": number}


def send(topics: Topics, *transitions: AlertTransition) -> None:
    """As the alerting service's relay publishes."""
    records = [(one["model"], json.dumps(one).encode()) for one in transitions]
    topics._run(topics._send_all(f"{topics._prefix}alerts", records))
