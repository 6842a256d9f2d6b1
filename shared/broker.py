"""Kafka: topics made from the registry, the producer of outgoing events, the subscription to the input."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaTimeoutError, TopicAlreadyExistsError, for_code
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage
from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware
from faststream.kafka.prometheus import KafkaPrometheusMiddleware
from faststream.kafka.subscriber.usecase import BatchSubscriber
from prometheus_client import REGISTRY

from shared.assignment import SamePartitionsOfEveryTopic
from shared.errors import TruewardError
from shared.fetching import fetch_abreast
from shared.outbox import SEND_SECONDS, Message, Send
from shared.reading import Fetched, PlainRecord, read_in_portions
from shared.records import Place, Record, Records, Run
from shared.settings import Settings
from shared.topics import MAX_MESSAGE_BYTES, TOPICS, Topic

LOG_APPEND_TIME = 1
"""The timestamp type of a record that the broker has stamped."""
USUAL_REPLICAS = 3
TRACE_HEADERS = ("traceparent", "tracestate")
FETCH_WAIT_MS = 500
"""How long the broker keeps a fetch that finds nothing; records that come meanwhile end it at once."""
EVENT_CLOCK_FETCH_WAIT_MS = 20
"""Partitions that are held are not in the fetch that waits, and aiokafka sends no second one beside it: what they
hold when they are released would wait for the first to end."""

PARTITION_FETCH_BYTES = 1 << 19
"""What of one partition is fetched at once, and so lies in memory. A sender's batch that is larger comes only when
its partition happens to be the first of a fetch; by default no sender makes larger ones."""

LOOK_BYTES = 1 << 14
"""What of one partition is fetched to see whether it holds a record. The broker gives the first batch whole."""

PRODUCE_BATCH_BYTES = 262_144
"""What of one partition goes to the broker at once. Of a pass of the relay, aiokafka's own 16 KiB would send a few
messages at a time while all others wait for room, each woken in vain by every answer: six times the work."""

METADATA_SECONDS = 10
"""How old what a client knows of the cluster may grow: partitions that are added are read, and written to, no
later. The clients' own five minutes would leave what is written there unread for as long."""


async def create_missing_topics(settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[str]:
    """Create the topics that the broker lacks; returns their names. Existing ones are left as they are.

    Raises aiokafka's errors when the broker is away or refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers, client_id="trueward-topics")
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        replicas = settings.topic_replication_factor or min(USUAL_REPLICAS, len(await _brokers(admin)))
        missing = [
            _new_topic(settings, topic, replicas)
            for topic in topics
            if settings.topic_prefix + topic.name not in existing
        ]
        if not missing:
            return []
        answer = await admin.create_topics(missing)
    finally:
        await admin.close()
    for name, code, *detail in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise TruewardError(
                f"topic {name} could not be created: {for_code(code).__name__} {detail[0] if detail else ''}"
            )
    return [topic.name for topic in missing]


async def holding_records(
    settings: Settings, spans: Mapping[TopicPartition, tuple[int, int]]
) -> set[TopicPartition]:
    """Which partitions hold a record from the first offset on and below the second.

    A log may hold none there: it ends in markers of transactions, or in what a sender has aborted.
    """
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="trueward-reader",
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=EVENT_CLOCK_FETCH_WAIT_MS,
        # One record of each partition decides.
        max_partition_fetch_bytes=LOOK_BYTES,
    )
    try:
        await reader.start()
        reader.assign(list(spans))
        for partition, (since, _) in spans.items():
            reader.seek(partition, since)
        found: set[TopicPartition] = set()
        undecided = set(spans)
        while undecided:
            records = await reader.getmany(timeout_ms=EVENT_CLOCK_FETCH_WAIT_MS, max_records=1)
            found |= {
                partition for partition, (first, *_) in records.items() if first.offset < spans[partition][1]
            }
            passed = {
                partition for partition in undecided if await reader.position(partition) >= spans[partition][1]
            }
            reader.pause(*undecided & (found | passed))
            undecided -= found | passed
        return found
    finally:
        await reader.stop()


async def start_asker(settings: Settings) -> AIOKafkaConsumer:
    """A client that reads nothing and asks where logs begin and end.

    A consumer would ask on the connection that it fetches on, and its questions would wait, one after the other,
    until a fetch that finds nothing ends. Raises aiokafka's errors when the broker is away.
    """
    asker = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="trueward-asker",
        enable_auto_commit=False,
        metadata_max_age_ms=METADATA_SECONDS * 1000,
    )
    try:
        await asker.start()
    except BaseException:
        await asker.stop()
        raise
    return asker


async def _brokers(admin: AIOKafkaAdminClient) -> list[Any]:
    return list((await admin.describe_cluster())["brokers"])


def _new_topic(settings: Settings, topic: Topic, replicas: int) -> NewTopic:
    return NewTopic(
        name=settings.topic_prefix + topic.name,
        num_partitions=topic.partitions,
        replication_factor=replicas,
        topic_configs={
            # Replayed history carries old event times; retention must count from when it was appended.
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(topic.retention_ms),
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
        },
    )


def make_producer(settings: Settings, client_id: str) -> AIOKafkaProducer:
    """A producer that counts a record as sent when every in-sync replica has it."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=client_id,
        acks="all",
        enable_idempotence=settings.kafka_idempotent_producer,
        max_request_size=MAX_MESSAGE_BYTES,
        max_batch_size=PRODUCE_BATCH_BYTES,
        request_timeout_ms=int(SEND_SECONDS * 1000),
        metadata_max_age_ms=METADATA_SECONDS * 1000,
    )


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Stop a producer; what the broker has not taken within ``SEND_SECONDS`` is given up, and never sent.

    An idempotent one would hold it, and its own end, until the broker is back: its successor has sent it by then.
    """
    stopping = asyncio.create_task(producer.stop())
    try:
        await asyncio.wait([stopping], timeout=SEND_SECONDS)
    finally:
        if not stopping.done():
            # aiokafka has no public way to give up what it holds.
            await producer._sender.close()  # noqa: SLF001
            producer._message_accumulator.fail_all(KafkaTimeoutError())  # noqa: SLF001
        await stopping


def sender(producer: AIOKafkaProducer, topic_prefix: str) -> Send:
    """How the relay publishes: one message, acknowledged within ``SEND_SECONDS``, or it has failed."""

    async def send(message: Message) -> None:
        # An idempotent producer's own timeout ends no send: it tries again until it succeeds.
        async with asyncio.timeout(SEND_SECONDS):
            await producer.send_and_wait(
                topic_prefix + message.topic, message.value, key=message.key, headers=list(message.headers)
            )

    return send


class AssignmentWatch(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's base class is untyped
    """Knows whether the group has given this consumer its partitions; calls ``on_change`` whenever it decides."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.assigned = False
        self.new_assignment = asyncio.Event()
        self.on_change = on_change

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002 (aiokafka's signature)
        """Not ready until the group has decided anew."""
        self.assigned = False
        self.on_change()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:  # noqa: ARG002 (aiokafka's signature)
        """The group has decided, even where it gives this consumer nothing."""
        self.assigned = True
        self.on_change()
        self.new_assignment.set()


Consume = Callable[[Fetched, AIOKafkaConsumer], Awaitable[None]]


def subscribe(
    broker: KafkaBroker,
    settings: Settings,
    *,
    group: str,
    topics: Iterable[Topic],
    watch: AssignmentWatch,
    consume: Consume,
    most_at_once: int,
    keys_meet: bool = False,
) -> BatchSubscriber:
    """Subscribe a service to its topics, in batches, acknowledged by nobody but ``consume`` itself.

    FastStream's own acknowledgement would commit past a failed batch, or before the handler has run. With
    ``keys_meet`` an instance gets the same partitions of every topic.
    """
    read_in_portions()
    subscriber = broker.subscriber(
        *(settings.topic_prefix + topic.name for topic in topics),
        group_id=settings.topic_prefix + group,
        batch=True,
        max_records=min(most_at_once, settings.max_batch_records),
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        # What a sender's aborted transaction wrote never happened.
        isolation_level="read_committed",
        listener=watch,
        partition_assignment_strategy=(SamePartitionsOfEveryTopic if keys_meet else RoundRobinPartitionAssignor,),
        session_timeout_ms=settings.session_timeout_seconds * 1000,
        heartbeat_interval_ms=settings.session_timeout_seconds * 1000 // 3,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
        batch_timeout_ms=200,
        fetch_max_wait_ms=EVENT_CLOCK_FETCH_WAIT_MS if settings.clock == "event" else FETCH_WAIT_MS,
        parser=_parse_raw,
        decoder=_leave_raw,
    )
    fetch_abreast(subscriber)

    @subscriber
    async def take(records: Any) -> None:  # of another type FastStream would make a schema
        # FastStream logs and drops what a handler raises; `consume` retries inside and never raises a fault.
        if subscriber.consumer is not None:
            await consume(records, subscriber.consumer)

    return subscriber


def make_broker(settings: Settings, client_id: str) -> KafkaBroker:
    """FastStream's broker, with its Prometheus middleware."""
    return KafkaBroker(
        # FastStream would take several addresses in one string for one address.
        settings.kafka_bootstrap_servers.split(","),
        client_id=client_id,
        enable_idempotence=settings.kafka_idempotent_producer,
        allow_auto_create_topics=False,
        metadata_max_age_ms=METADATA_SECONDS * 1000,
        apply_types=False,
        # Whatever escapes a handler is said here; what goes well is not.
        logger=logging.getLogger("faststream"),
        graceful_timeout=settings.graceful_timeout_seconds,
        middlewares=_middlewares(settings),
    )


def _middlewares(settings: Settings) -> tuple[KafkaPrometheusMiddleware | KafkaTelemetryMiddleware, ...]:
    counted = KafkaPrometheusMiddleware(registry=REGISTRY)
    return (counted, KafkaTelemetryMiddleware()) if settings.tracing else (counted,)


async def _parse_raw(message: Fetched) -> KafkaMessage:
    """Leave headers undecoded: FastStream's parser drops a whole batch for one header that is not UTF-8.

    Only those that link a batch to its senders' traces are read.
    """
    values = list(map(_value_of, message.plain()))
    return KafkaMessage(
        body=[value or b"" for value in values] if None in values else values,
        raw_message=message,
        headers={},
        batch_headers=[
            {
                name: value.decode("ascii", "replace")
                for name, value in record.headers
                if name in TRACE_HEADERS and value
            }
            for record in filter(_headers_of, message.plain())
        ],
        reply_to="",
        consumer=_NO_CONSUMER,
    )


async def _leave_raw(message: KafkaMessage) -> Any:
    return message.raw_message


class _NoConsumer:
    """The message's own acknowledgement is never used."""

    async def commit(self) -> None:
        raise AssertionError("offsets are committed by place, after the transaction")

    def seek(self, partition: TopicPartition, offset: int) -> None:
        raise AssertionError(f"nobody seeks through a message ({partition}, {offset})")


_NO_CONSUMER = _NoConsumer()


_value_of = attrgetter("value")
_headers_of = attrgetter("headers")
_timestamp_of = attrgetter("timestamp")
_timestamp_type_of = attrgetter("timestamp_type")


def as_records(fetched: Fetched, topic_prefix: str) -> Records:
    """What a fetch has, by partition, in the kernel's terms. Of a partition it holds one run, in order."""
    runs: dict[Place, list[PlainRecord]] = {}
    for part in fetched.parts:
        topic, partition = part.partition
        runs.setdefault((topic.removeprefix(topic_prefix), partition), []).extend(part.plain)
    return Records(
        Run(place, found, partial(as_record, place), _received_between) for place, found in runs.items()
    )


def as_record(place: Place, raw: PlainRecord) -> Record:
    """A record in the kernel's terms, whatever its sender wrote into it."""
    return Record(
        *place,
        offset=raw.offset,
        received_at=_received_at(raw),
        key=raw.key,
        value=raw.value,
        headers=tuple(raw.headers),
    )


def _received_at(raw: PlainRecord) -> datetime:
    """The broker's append time. A time that the sender wrote is believed only where it can be one of receipt."""
    now = datetime.now(UTC)
    if raw.timestamp_type != LOG_APPEND_TIME and not 0 <= raw.timestamp <= now.timestamp() * 1000:
        return now
    return _moment(raw.timestamp)


def _received_between(fetched: Sequence[PlainRecord]) -> tuple[datetime, datetime]:
    if set(map(_timestamp_type_of, fetched)) == {LOG_APPEND_TIME}:
        stamps = list(map(_timestamp_of, fetched))
        return _moment(min(stamps)), _moment(max(stamps))
    moments = list(map(_received_at, fetched))
    return min(moments), max(moments)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
