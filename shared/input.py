"""What a service's loops may know of its input beside the records: where the logs stand, what is unread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.broker import holding_records
from shared.consumer import Consumer
from shared.records import Place
from shared.settings import Settings
from shared.topics import Topic


@dataclass
class Input:
    """The service's side of its input topics, for loops that must know more than their records."""

    settings: Settings
    consumer: Consumer | None = None
    asker: AIOKafkaConsumer | None = None
    """What asks the broker about its logs; the consumer itself where there is none."""
    _without_records: dict[Place, tuple[int, int]] = field(default_factory=dict)

    async def places(self, topics: tuple[Topic, ...]) -> set[Place]:
        """Every partition of the topics that the broker has now. Raises ``ConnectionError`` while unknown."""
        kafka = self._kafka()
        found: set[Place] = set()
        for topic in topics:
            partitions = kafka.partitions_for_topic(self.settings.topic_prefix + topic.name)
            if not partitions:
                raise ConnectionError(f"the partitions of {topic.name} are not known yet")
            found |= {(topic.name, partition) for partition in partitions}
        return found

    async def log_ends(self, places: set[Place]) -> dict[Place, int]:
        """Where each partition's log ends now."""
        partitions = self._partitions(places)
        ends = await self._asker().end_offsets(list(partitions))
        return {partitions[partition]: end for partition, end in ends.items()}

    async def received_before(self, places: set[Place], moment: datetime) -> dict[Place, int]:
        """The offset below which a partition's records were received before ``moment``, where there are any."""
        partitions, kafka = self._partitions(places), self._asker()
        beginnings = await kafka.beginning_offsets(list(partitions))
        # The ends first: what arrives between the two questions came after the moment.
        ends = await kafka.end_offsets(list(partitions))
        milliseconds = int(moment.timestamp() * 1000)
        later = await kafka.offsets_for_times(dict.fromkeys(partitions, milliseconds))
        found = {}
        for partition, place in partitions.items():
            first_later = later.get(partition)
            offset = ends[partition] if first_later is None else first_later.offset
            if offset > beginnings[partition]:
                found[place] = offset
        return found

    async def unread(self, taken: Mapping[Place, int], ends: Mapping[Place, int]) -> set[Place]:
        """The partitions that hold a record below their end which was not taken.

        A log may end in markers of transactions, which no reader is ever given: then its end is never reached.
        """
        spans = {place: (taken.get(place, 0), end) for place, end in ends.items() if taken.get(place, 0) < end}
        asked = {place: span for place, span in spans.items() if self._without_records.get(place) != span}
        if not asked:
            return set()
        partitions = self._partitions(set(asked))
        found = await holding_records(
            self.settings, {partition: asked[place] for partition, place in partitions.items()}
        )
        unread = {partitions[partition] for partition in found}
        # What has no records now never gets any: logs only grow at their ends.
        self._without_records |= {place: span for place, span in asked.items() if place not in unread}
        return unread

    def release(self, reached: int) -> None:
        """Read on in every partition that the handler held until less than ``reached``."""
        if self.consumer is not None:
            self.consumer.release(reached)

    @property
    def held_changed(self) -> asyncio.Event:
        """Set whenever a partition begins to wait."""
        return self._started().held_changed

    def _partitions(self, places: set[Place]) -> dict[TopicPartition, Place]:
        prefix = self.settings.topic_prefix
        return {TopicPartition(prefix + topic, number): (topic, number) for topic, number in places}

    def _asker(self) -> Any:
        return self.asker or self._kafka()

    def _kafka(self) -> Any:
        return self._started().kafka

    def _started(self) -> Consumer:
        if self.consumer is None or self.consumer.kafka is None:
            raise ConnectionError("the consumer has not started yet")
        return self.consumer
