"""The alerting service as it is deployed: a process between real topics and a real database."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from deploy.local.broker import Broker
from shared.contracts.alerts import AlertTransition
from shared.contracts.dead_letters import DeadLetter
from shared.contracts.snapshots import Snapshot
from tests.integration.conftest import RunningCommand, Start, free_port
from tests.kernel_world import eventually, producing, read_topic
from tests.unit.alerting.builders import make_snapshot

MODELS = ("arrivals", "departures", "delays")


def history(sequences: Iterable[int]) -> list[Snapshot]:
    """Two models in breach and a healthy one, at each of the sequence numbers."""
    accuracy = {"arrivals": 0.5, "departures": 0.4, "delays": 0.9}
    return [make_snapshot(n, model=model, accuracy=accuracy[model]) for n in sequences for model in MODELS]


async def publish(producer: AIOKafkaProducer, topic: str, snapshots: Iterable[Snapshot]) -> None:
    for snapshot in snapshots:
        await producer.send_and_wait(topic, snapshot.to_json(), key=snapshot.model.encode())


async def ready(service: RunningCommand, url: str) -> None:
    service.wait_until_answers(url)
    async with httpx.AsyncClient(trust_env=False) as client:

        async def look() -> dict[str, Any]:
            answer: dict[str, Any] = (await client.get(f"{url}/health/ready")).json()
            return answer

        await eventually(look, lambda answer: answer["status"] == "ready", f"ready: {service.said()}")


async def counts(url: str, expected: set[str]) -> None:
    """Wait until ``/metrics`` has every one of the lines."""
    async with httpx.AsyncClient(trust_env=False) as client:

        async def look() -> set[str]:
            return set((await client.get(f"{url}/metrics")).text.splitlines())

        await eventually(look, lambda lines: expected <= lines, f"counted: {expected}")


async def alerts(broker: Broker, prefix: str, count: int) -> list[AlertTransition]:
    """What a reader keeps of the topic who drops what is not above a model's last alert_sequence."""

    def kept(records: list[Any]) -> list[AlertTransition]:
        last = dict.fromkeys(MODELS, 0)
        found = []
        for record in records:
            event = AlertTransition.model_validate_json(record.value)
            assert record.key == event.model.encode()
            assert dict(record.headers)["ce_id"] == event.event_id().encode()
            if event.alert_sequence > last[event.model]:
                assert event.alert_sequence == last[event.model] + 1
                last[event.model] = event.alert_sequence
                found.append(event)
        return found

    topic = f"{prefix}alerts"
    records = await read_topic(broker.bootstrap_servers, topic, lambda found: len(kept(found)) >= count)
    return kept(records)


async def test_snapshots_in_transitions_out_across_stops_and_kills(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, start: Start
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **kafka_broker.service_environment(),
        "TRUEWARD_POSTGRES_DSN": database_dsn,
        "TRUEWARD_TOPIC_PREFIX": topic_prefix,
        "TRUEWARD_SESSION_TIMEOUT_SECONDS": "6",
    }
    snapshots = f"{topic_prefix}snapshots"
    async with producing(kafka_broker.bootstrap_servers) as producer:
        service = start("service", "alerting", "--http-port", str(port), **environment)
        await ready(service, url)
        await publish(producer, snapshots, history([1]))
        await producer.send_and_wait(snapshots, b"garbage", key=b"arrivals")
        assert len(await alerts(kafka_broker, topic_prefix, 4)) == 4
        assert service.stop() == 0

        await publish(producer, snapshots, history([2]))
        service = start("service", "alerting", "--http-port", str(port), **environment)
        await ready(service, url)
        assert len(await alerts(kafka_broker, topic_prefix, 8)) == 8
        service.stop(signal.SIGKILL)

        await publish(producer, snapshots, history([1, 2, 4]))
        service = start("service", "alerting", "--http-port", str(port), **environment)
        await ready(service, url)
        told = await alerts(kafka_broker, topic_prefix, 12)
    for model in ("arrivals", "departures"):
        assert [(each.snapshot_sequence, each.transition, each.state) for each in told if each.model == model] == [
            (1, "opened", "watch"),
            (1, "state_changed", "watch"),
            (2, "escalated", "incident"),
            (2, "state_changed", "incident"),
            (4, "de_escalated", "watch"),
            (4, "state_changed", "watch"),
        ]
    assert {each.model for each in told} == {"arrivals", "departures"}
    letters = await read_topic(
        kafka_broker.bootstrap_servers, f"{topic_prefix}dead-letters", lambda found: len(found) >= 1
    )
    # A stop between sending and removing it from the outbox sends it once more: the same event, byte for byte.
    ((_, letter),) = {(dict(each.headers)["ce_id"], each.value) for each in letters}
    assert DeadLetter.model_validate_json(letter or b"").original_value() == b"garbage"
    await counts(
        url,
        {
            'trueward_alerting_snapshots_total{outcome="judged"} 3.0',
            'trueward_alerting_snapshots_total{outcome="repeat"} 6.0',
            "trueward_alerting_missing_snapshots_total 3.0",
        },
    )
    assert service.stop() == 0
