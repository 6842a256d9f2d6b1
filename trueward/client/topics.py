"""The client of the topics: publish and hear with nothing but a broker between. It needs aiokafka.

Nobody judges an event before it is sent: what breaks a rule becomes a dead letter. The gateway says so at once.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import TimeoutError as TookTooLongError
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from trueward.client.errors import AwayError, ClientError
from trueward.client.publishing import AnyEvent, Encoded, Publisher, Receipt
from trueward.client.types import AlertTransition, Job

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

T = TypeVar("T")
POLL_MS = 500
"""How long one look for records takes where there are none: an interrupt is heard after this at the latest."""
MOST_BATCH_BYTES = 128 * 1024


class Topics(Publisher):
    """A broker that has Trueward's topics. A context manager, or ``close`` it; usable from any thread.

    ``prefix`` is what the deployment's topics begin with; ``kafka`` holds further settings of aiokafka's clients,
    such as ``security_protocol`` and ``sasl_mechanism``. Raises ``AwayError`` while the broker does not answer.
    """

    def __init__(
        self,
        bootstrap_servers: str = "127.0.0.1:9092",
        *,
        prefix: str = "trueward.",
        timeout_seconds: float = 30.0,
        kafka: dict[str, Any] | None = None,
    ) -> None:
        try:
            import aiokafka  # noqa: PLC0415 (only those who publish to topics need it)
        except ImportError as error:
            raise ClientError("Topics needs aiokafka: pip install 'trueward[kafka]'") from error
        self._aiokafka = aiokafka
        self._prefix = prefix
        self._timeout_seconds = timeout_seconds
        self._settings = {"bootstrap_servers": bootstrap_servers, **(kafka or {})}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trueward-topics", daemon=True)
        self._thread.start()
        self._producer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the clients. What was acknowledged stays published."""
        if self._loop.is_closed():
            return
        try:
            if self._producer is not None:
                self._run(self._producer.stop())
        finally:
            asyncio.run_coroutine_threadsafe(_others_ended(), self._loop).result(self._timeout_seconds)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def transitions(self, model: str | None = None, *, from_beginning: bool = False) -> Iterator[AlertTransition]:
        """Every change of an alert or of a model's state as it comes, each once; it does not end."""
        found = self._events("alerts", "model", "alert_sequence", from_beginning=from_beginning)
        return (
            cast("AlertTransition", document) for document in found if model is None or document["model"] == model
        )

    def jobs(self, model: str | None = None, *, from_beginning: bool = False) -> Iterator[Job]:
        """Every change of a retraining job as it comes, each once; trainers act on ``status`` queued."""
        found = self._events("retrain-jobs", "job_id", "job_sequence", from_beginning=from_beginning)
        return (cast("Job", document) for document in found if model is None or document["model"] == model)

    def _events(
        self, topic: str, subject: str, sequence: str, *, from_beginning: bool
    ) -> Iterator[dict[str, Any]]:
        """A topic's events; what is not above the last sequence of its subject is a repeat, and left out."""
        # Joined here and not at the first event asked for: what happens from now on must not be missed.
        consumer = self._run(self._joined(self._prefix + topic, from_beginning=from_beginning))
        return self._read(consumer, subject, sequence)

    def _read(self, consumer: AIOKafkaConsumer, subject: str, sequence: str) -> Iterator[dict[str, Any]]:
        told: dict[str, int] = {}
        try:
            while True:
                batches = self._run(consumer.getmany(timeout_ms=POLL_MS))
                for record in (record for records in batches.values() for record in records):
                    document = json.loads(record.value)
                    if document[sequence] > told.get(document[subject], 0):
                        told[document[subject]] = document[sequence]
                        yield document
        finally:
            if not self._loop.is_closed():
                self._run(consumer.stop())

    async def _joined(self, topic: str, *, from_beginning: bool) -> Any:
        partitions = await self._partitions(topic)
        consumer = self._aiokafka.AIOKafkaConsumer(
            **self._settings, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await consumer.start()
            consumer.assign(partitions)
            if from_beginning:
                await consumer.seek_to_beginning()
            else:
                await consumer.seek_to_end()
                for partition in partitions:
                    await consumer.position(partition)
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def _partitions(self, topic: str) -> list[Any]:
        from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415 (as above)

        admin = AIOKafkaAdminClient(**self._settings)
        try:
            await admin.start()
            described = await admin.describe_topics([topic]) if topic in await admin.list_topics() else []
        finally:
            await admin.close()
        numbers = sorted(found["partition"] for one in described for found in one["partitions"])
        if not numbers:
            raise ClientError(f"the broker has no topic {topic}")
        return [self._aiokafka.TopicPartition(topic, number) for number in numbers]

    def _send(self, topic: str, batch: list[Encoded], offset: int, receipt: Receipt) -> None:
        del offset
        self._run(self._send_all(self._prefix + topic, [(key_of(topic, one.event), one.value) for one in batch]))
        receipt.accepted += len(batch)

    async def _send_all(self, topic: str, records: list[tuple[str | None, bytes]]) -> None:
        if self._producer is None:
            producer = self._aiokafka.AIOKafkaProducer(
                **self._settings, acks="all", max_batch_size=MOST_BATCH_BYTES, max_request_size=8 * 1024 * 1024
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        sent = [
            await self._producer.send(topic, value, key=None if key is None else key.encode())
            for key, value in records
        ]
        await asyncio.gather(*sent)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result(self._timeout_seconds)
        except (TookTooLongError, OSError, self._aiokafka.errors.KafkaError) as error:
            running.cancel()
            servers = self._settings["bootstrap_servers"]
            raise AwayError(
                f"Kafka at {servers} does not answer ({str(error) or type(error).__name__})"
            ) from error
        except BaseException:
            running.cancel()
            raise


async def _others_ended() -> None:
    """What was given up must have let go of its connections before the loop ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def key_of(topic: str, event: AnyEvent) -> str | None:
    """The key that an event's topic is spread by; None where the event lacks it, which will be its dead letter."""
    key: object
    match topic:
        case "predictions":
            key = event.get("entity_id") or event.get("prediction_id")
        case "labels":
            key = event.get("entity_id")
        case "pipeline-runs" if isinstance(job := event.get("job"), dict):
            key = f"{job.get('namespace')}/{job.get('name')}"
        case "pipeline-runs":
            key = event.get("pipeline")
        case _:
            key = event.get("model")
    return key if isinstance(key, str) else None
