"""How a batch subscriber waits for records, and which of those that are there it takes first."""

from __future__ import annotations

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faststream.kafka.subscriber.usecase import BatchSubscriber

from shared.reading import Fetched, Taken

log = structlog.get_logger()


def fetch_abreast(subscriber: BatchSubscriber) -> None:
    """Let the subscriber take its partitions abreast, and look again as soon as it has waited in vain.

    Of itself it would take all that was fetched of one partition before any of the next: where all lag, a batch
    would be about as many moments as there are partitions. And where nothing is there, FastStream's own look
    sleeps as long as it has waited, and sees nothing that comes meanwhile: where records come now and then, each
    second one lies there for a tenth of a second.
    """

    async def fetched(consumer: AIOKafkaConsumer) -> Fetched:
        return await take_abreast(consumer, subscriber.max_records or 1, subscriber.batch_timeout_ms)

    # There is no setting for it, and the sleep stands in the one method that also fetches.
    subscriber.get_msg = fetched  # type: ignore[method-assign, assignment]


async def take_abreast(consumer: AIOKafkaConsumer, most: int, timeout_ms: int) -> Fetched:
    """Some records, of all partitions that have any in equal shares, ``most`` at most; waits for the first."""
    partitions = list(consumer.assignment())
    share = max(1, most // max(1, len(partitions)))
    found: dict[TopicPartition, Taken] = await consumer.getmany(timeout_ms=timeout_ms, max_records=share)
    taken = list(found.values())
    if not taken:
        return Fetched()
    count = sum(map(len, taken))
    there = [partition for partition in partitions if partition not in found]
    while there and count < most:
        share = max(1, (most - count) // len(there))
        more = []
        for partition in there:
            try:
                records = (await consumer.getmany(partition, max_records=share)).get(partition)
            except KafkaError as error:
                # What is taken must not be lost for it; the next fetch says it again, unless it has passed.
                log.warning("a partition could not be read", partition=partition, error=repr(error))
                return Fetched(taken)
            if records:
                taken.append(records)
                count += len(records)
                more.append(partition)
            if count >= most:
                break
        there = more
    return Fetched(taken)
