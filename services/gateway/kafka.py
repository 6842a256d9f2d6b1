"""The gateway's way to Kafka: it sends commands, and asks where the logs end. It consumes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from services.gateway.problems import Problem, describe
from services.gateway.settings import GatewaySettings
from shared.broker import make_producer
from shared.contracts.retraining import RetrainRequest
from shared.records import Place
from shared.retries import until_done
from shared.topics import RETRAIN_REQUESTS, Topic

CLIENT_ID = "trueward-gateway"
STOP_SECONDS = 2
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Clients:
    """aiokafka's clients; each keeps itself connected once it was."""

    producer: AIOKafkaProducer
    bulk: AIOKafkaProducer
    """For what users publish over HTTP: a flood of it holds up no command."""
    consumer: AIOKafkaConsumer
    admin: AIOKafkaAdminClient

    async def stop(self) -> None:
        """Stop them, in whatever state they are; waiting for a broker that is away has an end."""
        for stop in (self.producer.stop, self.bulk.stop, self.consumer.stop, self.admin.close):
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await stop()
            except (KafkaError, OSError, TimeoutError) as error:
                log.info("Kafka client did not stop cleanly", error=describe(error))


class Kafka:
    """Connects in the background for as long as it takes; until then every question is answered by a 503."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._clients: Clients | None = None
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
        if self._clients is None:
            raise self._away(self._why, "Nothing was sent: ask again in a moment.")
        topic = self._settings.topic_prefix + RETRAIN_REQUESTS.name
        try:
            async with asyncio.timeout(self._settings.kafka_wait_seconds):
                await self._clients.producer.send_and_wait(topic, request.to_json(), key=request.model.encode())
        except (KafkaError, TimeoutError) as error:
            raise self._away(
                describe(error),
                f"The request {request.request_id} may still arrive; the same Idempotency-Key asks for it again.",
            ) from error

    async def publish(self, topic: Topic, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Send users' events (key, value); returns once every in-sync replica has all of them.

        Raises ``Problem`` (503) otherwise; some may have arrived then.
        """
        if self._clients is None:
            raise self._away(self._why, "Nothing was sent: send it again in a moment.")
        name = self._settings.topic_prefix + topic.name
        acknowledgements: list[asyncio.Future[object]] = []
        try:
            async with asyncio.timeout(self._settings.ingest_wait_seconds):
                for key, value in records:
                    acknowledgements.append(await self._clients.bulk.send(name, value, key=key))
                await asyncio.gather(*acknowledgements)
        except (KafkaError, TimeoutError) as error:
            raise self._away(
                describe(error),
                "Some of the events may have arrived: send all of them again, what arrives twice changes nothing.",
            ) from error
        finally:
            # Nobody waits for these any more.
            for acknowledgement in acknowledgements:
                acknowledgement.cancel()

    async def obstacle(self) -> str | None:
        """Why the broker is away, or None when it answers."""
        if self._clients is None:
            return self._why
        try:
            async with asyncio.timeout(self._settings.kafka_wait_seconds):
                await self._clients.admin.list_topics()
        except (KafkaError, OSError, TimeoutError) as error:
            return describe(error)
        return None

    async def log_ranges(self, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        """Of each partition of the topics (registry names), where its log begins and ends.

        Raises aiokafka's errors, ``OSError`` and ``TimeoutError`` while the broker is away.
        """
        if self._clients is None:
            return {}
        async with asyncio.timeout(self._settings.kafka_wait_seconds):
            places = await self._places(self._clients.admin, topics)
            begins = await self._clients.consumer.beginning_offsets(list(places))
            ends = await self._clients.consumer.end_offsets(list(places))
        return {place: (begins[partition], ends[partition]) for partition, place in places.items()}

    async def _places(self, admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[TopicPartition, Place]:
        names = {self._settings.topic_prefix + topic: topic for topic in topics}
        existing = set(await admin.list_topics()) & set(names)
        described = await admin.describe_topics(sorted(existing)) if existing else []
        return {
            TopicPartition(topic["topic"], partition["partition"]): (names[topic["topic"]], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        }

    async def _connect(self) -> None:
        settings = self._settings
        servers = settings.kafka_bootstrap_servers
        clients = Clients(
            producer=make_producer(settings, CLIENT_ID),
            # What arrives twice changes nothing, and a producer without a session cannot lose it in a timeout.
            bulk=make_producer(
                settings.model_copy(update={"kafka_idempotent_producer": False}), f"{CLIENT_ID}-ingest"
            ),
            consumer=AIOKafkaConsumer(bootstrap_servers=servers, client_id=CLIENT_ID, enable_auto_commit=False),
            admin=AIOKafkaAdminClient(bootstrap_servers=servers, client_id=CLIENT_ID),
        )
        try:
            await clients.producer.start()
            await clients.bulk.start()
            await clients.consumer.start()
            await clients.admin.start()
        except BaseException as error:
            self._why = describe(error)
            await clients.stop()
            raise
        self._clients = clients

    async def _disconnect(self) -> None:
        self._why = "the gateway stops"
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.stop()

    @staticmethod
    def _away(why: str, what_now: str) -> Problem:
        return Problem(
            503,
            "broker-away",
            f"Kafka does not answer ({why}). {what_now}",
            title="Broker away",
            headers={"Retry-After": "1"},
        )
