"""The whole kernel between a real broker and a real database: every record once, whatever is in it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Producer

from deploy.local.broker import Broker
from shared import inbox
from shared.broker import create_missing_topics
from shared.contracts.dead_letters import DeadLetter
from shared.effects import Effects, Handler
from shared.errors import InputLostError
from shared.records import Place, Record
from shared.service import Context, ServiceDefinition
from shared.settings import Settings
from shared.topics import TOPICS
from tests.kernel_world import (
    INPUT,
    OUTPUT,
    SERVICE,
    RawName,
    as_value,
    assert_in_sequence,
    change,
    eventually,
    make_tables,
    producing,
    publish,
    query,
    read_topic,
    running,
    settings_for,
    taken,
    taken_all,
    tally,
)


@dataclass
class World:
    """A database and topics of the test's own."""

    dsn: str
    broker: Broker
    settings: Settings

    @property
    def servers(self) -> str:
        return self.broker.bootstrap_servers

    @property
    def topic(self) -> str:
        return self.settings.topic_prefix + INPUT.name

    @property
    def group(self) -> str:
        return self.settings.topic_prefix + SERVICE

    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in range(INPUT.partitions)]

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """The first dead letters."""
        name = self.settings.topic_prefix + "dead-letters"
        records = await read_topic(self.servers, name, lambda found: len(found) >= count)
        return [DeadLetter.model_validate_json(record.value or b"") for record in records]

    async def said(self, count: int) -> list[ConsumerRecord[bytes, bytes]]:
        """What the service published, once it has said ``count`` different things."""
        name = self.settings.topic_prefix + OUTPUT.name
        return await read_topic(
            self.servers, name, lambda found: len({dict(record.headers)["ce_id"] for record in found}) >= count
        )

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Set the group's offsets in Kafka, as its only member."""
        consumer = AIOKafkaConsumer(
            self.topic, bootstrap_servers=self.servers, group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            await consumer.commit(offsets)
        finally:
            await consumer.stop()

    async def committed(self) -> dict[int, int]:
        """The group's offsets in Kafka, by partition; those that are there."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.servers, group_id=self.group, enable_auto_commit=False)
        consumer.assign(self.partitions())
        await consumer.start()
        try:
            found = {each.partition: await consumer.committed(each) for each in self.partitions()}
        finally:
            await consumer.stop()
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def next_offsets(self) -> dict[int, int]:
        return dict(query(self.dsn, "SELECT partition, next_offset FROM alerting.inbox"))


@pytest.fixture
def empty_world(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> World:
    """A world that still lacks its topics."""
    make_tables(database_dsn)
    settings = settings_for(
        database_dsn,
        kafka_broker.bootstrap_servers,
        topic_prefix,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
    )
    return World(database_dsn, kafka_broker, settings)


@pytest.fixture
async def world(empty_world: World) -> World:
    await create_missing_topics(empty_world.settings)
    return empty_world


@pytest.fixture
async def producer(kafka_broker: Broker) -> AsyncIterator[AIOKafkaProducer]:
    async with producing(kafka_broker.bootstrap_servers) as producer:
        yield producer


async def test_topics_are_made_once_however_many_start_at_once(empty_world: World) -> None:
    names = {empty_world.settings.topic_prefix + topic.name: topic.partitions for topic in TOPICS}
    made = await asyncio.gather(*(create_missing_topics(empty_world.settings) for _ in range(4)))
    assert set(itertools.chain(*made)) == set(names)
    assert await create_missing_topics(empty_world.settings) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=empty_world.servers)
    await admin.start()
    found = await admin.describe_topics(list(names))
    await admin.close()
    assert {each["topic"]: len(each["partitions"]) for each in found} == names


async def test_every_record_is_taken_once_and_told_in_sequence(world: World, producer: AIOKafkaProducer) -> None:
    async with running(world.settings) as service:
        await service.ready()  # with nothing to read
        assert taken(world.dsn) == {}
        await publish(producer, world.topic, range(500))
        await taken_all(world.dsn, range(500))
        said = await world.said(500)
    assert sum(assert_in_sequence(said).values()) == 500
    found = await world.committed()
    assert found == world.next_offsets()
    assert sum(found.values()) == 500


async def test_kafka_offsets_that_were_lost_change_nothing(world: World, producer: AIOKafkaProducer) -> None:
    await publish(producer, world.topic, range(300))
    async with running(world.settings):
        await taken_all(world.dsn, range(300))
    await world.commit(dict.fromkeys(world.partitions(), 0))
    await publish(producer, world.topic, range(300, 330))
    async with running(world.settings):
        await taken_all(world.dsn, range(330))
        said = await world.said(330)
    assert sum(assert_in_sequence(said).values()) == 330


async def test_a_database_that_lost_more_than_kafka_is_caught_up(world: World, producer: AIOKafkaProducer) -> None:
    """Restored to an earlier state: the inbox and the effects go back together, Kafka's offsets do not."""
    await publish(producer, world.topic, range(300))
    async with running(world.settings):
        await taken_all(world.dsn, range(300))
    kept = {partition: offset // 3 for partition, offset in world.next_offsets().items()}
    for partition, offset in kept.items():
        change(world.dsn, "UPDATE alerting.inbox SET next_offset = %s WHERE partition = %s", offset, partition)
        change(world.dsn, 'DELETE FROM alerting.taken WHERE partition = %s AND "offset" >= %s', partition, offset)
    assert 0 < sum(taken(world.dsn).values()) < 300
    async with running(world.settings):
        await taken_all(world.dsn, range(300))


async def test_an_inbox_that_was_never_there_reads_from_the_beginning(
    world: World, producer: AIOKafkaProducer
) -> None:
    """A new database, and a group that Kafka says has read everything."""
    await publish(producer, world.topic, range(200))
    ends = await _ends(world)
    await world.commit(ends)
    async with running(world.settings):
        await taken_all(world.dsn, range(200))


async def _ends(world: World) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=world.servers)
    await consumer.start()
    try:
        return dict(await consumer.end_offsets(world.partitions()))
    finally:
        await consumer.stop()


async def test_two_instances_share_the_work_and_one_takes_over(world: World, producer: AIOKafkaProducer) -> None:
    numbers = itertools.count()

    async def more(count: int) -> None:
        await publish(producer, world.topic, itertools.islice(numbers, count), keys=20)

    async with running(world.settings) as first:
        await first.ready()
        await more(100)
        async with running(world.settings) as second:
            await more(100)
            await second.ready()
            await more(100)
        await more(100)
        await taken_all(world.dsn, range(400))
        last = assert_in_sequence(await world.said(400))
    assert sum(last.values()) == 400


async def test_bad_records_become_dead_letters_and_the_stream_goes_on(
    world: World, producer: AIOKafkaProducer
) -> None:
    large = b'{"n": 1, "x": "' + b"x" * 2_000_000 + b'"}'
    bad: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        (b"\x00\xff garbage", b"k", []),
        (None, b"k", []),
        (b"", b"k", []),
        (b'{"n": 1.5}', None, []),
        (b'{"n": 36893488147419103232}', b"\xff\x00", [("\xe9", b"\xff\xfe"), ("empty", b"")]),
        (large, b"k", []),
        (as_value(7)[:-1] + b', "occurred_at": "2099-01-01T00:00:00Z"}', b"k", []),
    ]
    await publish(producer, world.topic, [1], partition=0)
    for value, key, headers in bad:
        await producer.send_and_wait(world.topic, value, key=key, headers=headers, partition=0)
    await producer.send_and_wait(world.topic, as_value(2), headers=[("utf-16", "ü".encode("utf-16"))], partition=0)
    async with running(world.settings):
        await taken_all(world.dsn, [1, 2])
        letters = await world.dead_letters(len(bad))
    by_offset = {letter.offset: letter for letter in letters}
    assert sorted(by_offset) == list(range(1, len(bad) + 1))
    for offset, (value, key, _headers) in enumerate(bad, start=1):
        letter = by_offset[offset]
        assert letter.original_value() == value
        assert (letter.key_base64 is None) is (key is None)
        assert letter.complete
    assert [by_offset[offset].reason for offset in sorted(by_offset)] == [
        "undecodable",
        "undecodable",
        "undecodable",
        "invalid",
        "unprocessable",
        "too_large",
        "from_the_future",
    ]
    assert by_offset[5].headers == (("\xe9", "//4="), ("empty", ""))
    assert query(world.dsn, "SELECT key FROM alerting.taken WHERE n = 2") == [(None,)]


async def test_a_header_whose_name_is_not_utf_8_stops_nobody(world: World, producer: AIOKafkaProducer) -> None:
    await publish(producer, world.topic, [1], partition=0)
    for value in (as_value(2), b"garbage"):
        batch = producer.create_batch()
        # The library's fast builder takes text alone.
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 20)
        batch.append(key=b"k", value=value, timestamp=None, headers=[(RawName(b"caf\xe9"), b"\xff")])
        await (await producer.send_batch(batch, world.topic, partition=0))
    await publish(producer, world.topic, [3], partition=0)
    async with running(world.settings):
        await taken_all(world.dsn, [1, 2, 3])
        (letter,) = await world.dead_letters(1)
    assert letter.original_value() == b"garbage"
    assert letter.headers == (("caf\N{REPLACEMENT CHARACTER}", "/w=="),)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_other_clients_compress_is_read(world: World, codec: str) -> None:
    """With librdkafka, the library under most clients that are not Java."""
    client = Producer({"bootstrap.servers": world.servers, "compression.type": codec, "linger.ms": 50})
    for n in range(100):
        client.produce(world.topic, as_value(n) + b" " * 100, key=b"k")
    assert await asyncio.to_thread(client.flush, 20) == 0
    async with running(world.settings):
        await taken_all(world.dsn, range(100))


async def test_a_record_too_large_to_be_carried_whole_is_cut_and_says_so(
    world: World, producer: AIOKafkaProducer
) -> None:
    """Its letter would be a third larger than itself; a compressed one can be of any size."""
    key = b"k" * 400_000
    await producer.send_and_wait(world.topic, b"x" * 7_500_000, key=key, partition=0)
    async with producing(world.servers, compression_type="gzip", max_request_size=1 << 28) as packing:
        await packing.send_and_wait(world.topic, b"y" * 60_000_000, key=b"k", partition=0)
    await publish(producer, world.topic, [1], partition=0)
    async with running(world.settings):
        await taken_all(world.dsn, [1])
        first, second = await world.dead_letters(2)
    for letter, size, byte in ((first, 7_500_000, b"x"), (second, 60_000_000, b"y")):
        assert (letter.reason, letter.complete) == ("too_large", False)
        assert str(size) in letter.detail
        original = letter.original_value()
        assert original is not None
        assert original == byte * len(original)
        assert len(original) >= 4_000_000


async def test_whatever_time_a_sender_wrote_the_record_is_taken(
    empty_world: World, producer: AIOKafkaProducer
) -> None:
    """A topic that somebody else made may keep its senders' clocks, and those may say anything."""
    world = empty_world
    configs = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(2**63 - 1),
        "message.timestamp.before.max.ms": str(2**63 - 1),
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=world.servers)
    await admin.start()
    await admin.create_topics([NewTopic(world.topic, 1, 1, topic_configs=configs)])
    await admin.close()
    await create_missing_topics(world.settings)
    now = int(datetime.now(UTC).timestamp() * 1000)
    times = [now, 0, 10**17, now + 10**9, 1]
    for n, milliseconds in enumerate(times):
        await producer.send_and_wait(world.topic, as_value(n), timestamp_ms=milliseconds)
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    future = b'{"n": 99, "occurred_at": "%s"}' % ahead.encode()
    await producer.send_and_wait(world.topic, future, timestamp_ms=now + 10**9)
    async with running(world.settings):
        await taken_all(world.dsn, range(len(times)))
        (letter,) = await world.dead_letters(1)
    assert letter.reason == "from_the_future"


async def test_what_an_aborted_transaction_wrote_never_happened(world: World) -> None:
    if not world.broker.transactions:
        pytest.skip(f"needs transactions, which {world.broker.name} leaks ({world.broker.why})")
    async with AIOKafkaProducer(
        bootstrap_servers=world.servers, transactional_id=f"{world.settings.topic_prefix}sender"
    ) as sender:
        for n, outcome in enumerate(["commit", "abort", "commit", "abort", "commit"]):
            await sender.begin_transaction()
            for record in range(10 * n, 10 * n + 3):
                await sender.send_and_wait(world.topic, as_value(record), key=b"k", partition=0)
            await (sender.commit_transaction() if outcome == "commit" else sender.abort_transaction())
    async with running(world.settings):
        await taken_all(world.dsn, [0, 1, 2, 20, 21, 22, 40, 41, 42])


@pytest.mark.needs_end_offsets
async def test_a_topic_made_anew_is_refused_by_its_end_where_the_broker_tells_no_ids(
    world: World, producer: AIOKafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ids: test_kernel_topics_anew.py."""

    async def no_ids(*_arguments: object) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("shared.topic_identity.topic_ids", no_ids)
    await publish(producer, world.topic, range(100), partition=0)
    async with running(world.settings):
        await taken_all(world.dsn, range(100))
    admin = AIOKafkaAdminClient(bootstrap_servers=world.servers)
    await admin.start()
    await admin.delete_topics([world.topic])
    await eventually(admin.list_topics, lambda names: world.topic not in names, "the topic is gone")
    await admin.close()
    await create_missing_topics(world.settings)
    async with producing(world.servers) as anew:
        await publish(anew, world.topic, range(1_000, 1_003), partition=0)
    async with running(world.settings) as service:
        async with asyncio.timeout(30):
            failure = await asyncio.gather(service.task, return_exceptions=True)
    (error,) = _leaves(failure[0])
    assert isinstance(error, InputLostError)
    assert f"topic {world.topic} partition 0 ends at 3, but 100 records were read from it" in str(error)
    assert f"trueward inbox reset --service {SERVICE} --topic {INPUT.name}" in str(error)
    assert set(taken(world.dsn)) == set(range(100))
    await inbox.reset(world.dsn, service=SERVICE, topic=INPUT.name)
    async with running(world.settings):
        await taken_all(world.dsn, [*range(100), *range(1_000, 1_003)])


def _leaves(error: Any) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _held_from(limit: list[int]) -> Handler:
    """A handler whose partitions wait at the first ``n`` that is not below the limit."""

    async def handle(records: Sequence[Record], effects: Effects) -> None:
        free, held = [], set[Place]()
        for record in records:
            place = (record.topic, record.partition)
            if place not in held and int((record.value or b"")[6:-1]) >= limit[0]:
                effects.hold(record, until=limit[0])
                held.add(place)
            if place not in held:
                free.append(record)
        await tally(free, effects)

    return handle


async def test_held_partitions_wait_and_read_on(world: World, producer: AIOKafkaProducer) -> None:
    limit, contexts = [0], list[Context]()

    def handler_for(context: Context) -> Handler:
        contexts.append(context)
        return _held_from(limit)

    definition = ServiceDefinition(name=SERVICE, handler_for=handler_for)
    await publish(producer, world.topic, range(400), keys=16)
    async with running(world.settings, service=definition) as service:
        await service.ready()
        for step in range(100, 500, 100):
            await eventually(_all_wait(contexts[0]), bool, "every partition waits")
            assert set(taken(world.dsn)) == set(range(limit[0]))
            limit[0] = step
            contexts[0].input.release(step)
            await taken_all(world.dsn, range(step))
    assert sum(world.next_offsets().values()) == 400


def _all_wait(context: Context) -> Any:
    async def look() -> bool:
        consumer = context.input.consumer
        return consumer is not None and consumer.kafka is not None and len(consumer.kafka.paused()) == 4

    return look


async def test_records_published_while_a_partition_waits_are_read_after_it(
    world: World, producer: AIOKafkaProducer
) -> None:
    limit, contexts = [10], list[Context]()

    def handler_for(context: Context) -> Handler:
        contexts.append(context)
        return _held_from(limit)

    async with running(world.settings, service=ServiceDefinition(name=SERVICE, handler_for=handler_for)):
        await publish(producer, world.topic, [0, 10], partition=0)
        await taken_all(world.dsn, [0])
        await publish(producer, world.topic, [1, 2], partition=0)
        await publish(producer, world.topic, [3, 4], partition=1)
        await taken_all(world.dsn, [0, 3, 4])
        limit[0] = 20
        contexts[0].input.release(20)
        await taken_all(world.dsn, [0, 10, 1, 2, 3, 4])


async def test_an_error_that_escapes_ends_the_service_and_loses_nothing(
    world: World, producer: AIOKafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastStream would log it and go on with the next batch, as if this one were taken."""
    await publish(producer, world.topic, range(50))

    def broken(*_arguments: object) -> None:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patched:
        patched.setattr("shared.consumer.as_records", broken)
        async with running(world.settings) as service:
            async with asyncio.timeout(30):
                failure = await asyncio.gather(service.task, return_exceptions=True)
    assert [str(error) for error in _leaves(failure[0])] == ["a mistake of ours"]
    assert await world.committed() == {}
    async with running(world.settings):
        await taken_all(world.dsn, range(50))
