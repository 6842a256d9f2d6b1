"""The gateway's way to Kafka: it sends commands, and asks where the logs end. It consumes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from services.gateway.problems import Problem, describe
from services.gateway.settings import GatewaySettings
from shared.broker import make_producer
from shared.contracts.retraining import RetrainRequest
from shared.inbox import Place
from shared.retries import until_done
from shared.topics import RETRAIN_REQUESTS

CLIENT_ID = "trueward-gateway"
log = structlog.get_logger()


class Kafka:
    """Connects in the background for as long as it takes; until then every question is answered by a 503."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._why = "not connected yet"

    async def run(self) -> None:
        """Connect, then stay connected until cancelled."""
        try:
            await until_done("Kafka", self._connect)
            await asyncio.Event().wait()
        finally:
            await self._disconnect()

    async def send(self, request: RetrainRequest) -> None:
        """Send a command; returns once the broker has it. Raises ``Problem`` (503) when it does not say so."""
        if self._producer is None:
            raise self._away(self._why, "Nothing was sent: ask again in a moment.")
        topic = self._settings.topic_prefix + RETRAIN_REQUESTS.name
        try:
            async with asyncio.timeout(self._settings.kafka_wait_seconds):
                await self._producer.send_and_wait(topic, request.to_json(), key=request.model.encode())
        except (KafkaError, TimeoutError) as error:
            raise self._away(
                describe(error),
                f"The request {request.request_id} may still arrive; the same Idempotency-Key asks for it again.",
            ) from error

    async def obstacle(self) -> str | None:
        """Why the broker is away, or None when it answers."""
        if self._consumer is None:
            return self._why
        try:
            async with asyncio.timeout(self._settings.kafka_wait_seconds):
                await self._consumer.topics()
        except (KafkaError, TimeoutError) as error:
            return describe(error)
        return None

    async def log_ranges(self, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        """Of each partition of the topics (registry names), where its log begins and ends.

        Call ``obstacle`` first: it refreshes what is known of the topics. Raises aiokafka's errors and
        ``TimeoutError``.
        """
        if self._consumer is None:
            return {}
        partitions = {
            TopicPartition(self._settings.topic_prefix + topic, number): (topic, number)
            for topic in topics
            for number in self._consumer.partitions_for_topic(self._settings.topic_prefix + topic) or ()
        }
        async with asyncio.timeout(self._settings.kafka_wait_seconds):
            begins = await self._consumer.beginning_offsets(list(partitions))
            ends = await self._consumer.end_offsets(list(partitions))
        return {place: (begins[partition], ends[partition]) for partition, place in partitions.items()}

    async def _connect(self) -> None:
        settings = self._settings
        producer = make_producer(settings, CLIENT_ID)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers, client_id=CLIENT_ID, enable_auto_commit=False
        )
        try:
            await producer.start()
            await consumer.start()
        except BaseException as error:
            self._why = describe(error)
            await _stop(producer, consumer)
            raise
        self._producer, self._consumer = producer, consumer

    async def _disconnect(self) -> None:
        self._why = "the gateway stops"
        producer, consumer = self._producer, self._consumer
        self._producer = self._consumer = None
        if producer is not None and consumer is not None:
            await _stop(producer, consumer)

    @staticmethod
    def _away(why: str, what_now: str) -> Problem:
        return Problem(
            503,
            "broker-away",
            f"Kafka does not answer ({why}). {what_now}",
            title="Broker away",
            headers={"Retry-After": "1"},
        )


async def _stop(*clients: Any) -> None:
    """Stop what was started, in whatever state it is; waiting for a broker that is away has an end."""
    for client in clients:
        try:
            async with asyncio.timeout(2):
                await client.stop()
        except (KafkaError, TimeoutError, OSError) as error:
            log.info("Kafka client did not stop cleanly", error=describe(error))
