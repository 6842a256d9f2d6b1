"""Whether a topic is the one that was read: Kafka gives each topic an id, and one that is made anew gets another.

Offsets alone cannot tell: the log of a topic made anew may have grown past where the inbox stands, and reading on
there would skip its beginning in silence. aiokafka asks for metadata in a version that has no ids yet, so the
request is written here, by KIP-516 and Kafka's own ``MetadataRequest.json`` and ``MetadataResponse.json``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import asyncpg
from aiokafka import AIOKafkaClient
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from shared.database import Connection, Queries
from shared.errors import InputLostError
from shared.settings import Settings
from shared.topics import Service

QUERIES = Queries.load("shared", "kernel.sql")
CHECK_SECONDS = 10.0
"""Between two looks while a service runs. What was read of a new log meanwhile is read again after the reset, and
is a repeat by the contracts' own rules."""
ANSWER_SECONDS = 5
NO_ID = uuid.UUID(int=0)
METADATA, WITH_TOPIC_IDS = 3, 10
"""The request's key, and its first version that tells topics' ids (Kafka 2.8)."""


class _Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc]  # aiokafka's base class is untyped
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _MetadataResponse(Response):  # type: ignore[misc]  # likewise
    API_KEY = METADATA
    API_VERSION = WITH_TOPIC_IDS
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition_index", Int32),
                        ("leader_id", Int32),
                        ("leader_epoch", Int32),
                        ("replica_nodes", CompactArray(Int32)),
                        ("isr_nodes", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("topic_authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):  # type: ignore[misc]  # likewise
    FLEXIBLE_VERSION = True
    API_KEY = METADATA
    API_VERSION = WITH_TOPIC_IDS
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):  # type: ignore[misc]  # likewise
    API_KEY: ClassVar[int] = METADATA

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> Any:
        topics: list[tuple[uuid.UUID, str, dict[int, bytes]]] = [(NO_ID, name, {}) for name in self._topics]
        return request_struct_class(topics, False, False, False, {})


async def topic_ids(settings: Settings, topics: Collection[str]) -> dict[str, uuid.UUID]:
    """The ids of topics (registry names) that the broker has; none of a broker that tells no ids.

    Raises aiokafka's errors when the broker is away.
    """
    asking = asyncio.create_task(_ask(settings, topics))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        # A connection that is cut off while aiokafka makes it would never be closed.
        await asyncio.wait([asking], timeout=ANSWER_SECONDS)
        raise


async def _ask(settings: Settings, topics: Collection[str]) -> dict[str, uuid.UUID]:
    client = AIOKafkaClient(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="trueward-topic-identities",
        request_timeout_ms=ANSWER_SECONDS * 1000,
    )
    try:
        await client.bootstrap()
        request = _MetadataRequest([settings.topic_prefix + topic for topic in topics])
        try:
            answer = await client.send(client.get_random_node(), request)
        except NotImplementedError:  # how aiokafka says that the broker lacks this version
            return {}
    finally:
        await client.close()
    # A topic that is not there has the id of none.
    return {
        name.removeprefix(settings.topic_prefix): topic_id
        for _code, name, topic_id, *_ in answer.topics
        if topic_id != NO_ID
    }


@dataclass(frozen=True, slots=True)
class Remembered:
    """The id of a topic when it was last looked at, and whether anything was read of it."""

    topic_id: uuid.UUID
    is_read: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """Topics to remember, and those that are not the ones that were read."""

    new: Mapping[str, uuid.UUID]
    foreign: tuple[str, ...]


def compare(remembered: Mapping[str, Remembered], present: Mapping[str, uuid.UUID]) -> Compared:
    """Hold what the broker has now against what is remembered.

    A topic that the broker does not tell of is let be. One of which nothing was read may be made anew freely.
    """
    new: dict[str, uuid.UUID] = {}
    foreign: list[str] = []
    for topic, topic_id in sorted(present.items()):
        before = remembered.get(topic)
        if before is not None and before.topic_id == topic_id:
            continue
        if before is not None and before.is_read:
            foreign.append(topic)
        else:
            new[topic] = topic_id
    return Compared(new, tuple(foreign))


async def check(pool: asyncpg.Pool[Any], service: Service, settings: Settings, topics: Collection[str]) -> None:
    """Remember the ids of topics seen for the first time. Raises ``InputLostError`` for one that was made anew."""
    present = await topic_ids(settings, topics)
    async with pool.acquire() as connection, connection.transaction():
        compared = compare(await _remembered(connection), present)
        if compared.new:
            names, ids = list(compared.new), list(compared.new.values())
            await connection.execute(QUERIES.remember_topic_identities, names, ids)
    if compared.foreign:
        named = ", ".join(settings.topic_prefix + topic for topic in compared.foreign)
        commands = "; ".join(
            f"trueward inbox reset --service {service} --topic {topic}" for topic in compared.foreign
        )
        raise InputLostError(f"made anew since it was read: {named}. To read it from its beginning: {commands}")


async def _remembered(connection: Connection) -> dict[str, Remembered]:
    rows = await connection.fetch(QUERIES.read_topic_identities)
    return {row["topic"]: Remembered(row["topic_id"], row["is_read"]) for row in rows}
