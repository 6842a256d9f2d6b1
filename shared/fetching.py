"""How a batch subscriber waits for records, and which of those that are there it takes first."""

from __future__ import annotations

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from faststream.kafka.subscriber.usecase import BatchSubscriber

log = structlog.get_logger()
Fetched = tuple[ConsumerRecord[bytes, bytes], ...]


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
    subscriber.get_msg = fetched  # type: ignore[method-assign]


async def take_abreast(consumer: AIOKafkaConsumer, most: int, timeout_ms: int) -> Fetched:
    """Some records, of all partitions that have any in equal shares, ``most`` at most; waits for the first."""
    partitions = list(consumer.assignment())
    share = max(1, most // max(1, len(partitions)))
    found = await consumer.getmany(timeout_ms=timeout_ms, max_records=share)
    taken = [record for records in found.values() for record in records]
    if not taken:
        return ()
    there = [partition for partition in partitions if partition not in found]
    while there and len(taken) < most:
        share = max(1, (most - len(taken)) // len(there))
        more = []
        for partition in there:
            try:
                records = (await consumer.getmany(partition, max_records=share)).get(partition)
            except KafkaError as error:
                # What is taken must not be lost for it; the next fetch says it again, unless it has passed.
                log.warning("a partition could not be read", partition=partition, error=repr(error))
                return tuple(taken)
            if records:
                taken += records
                more.append(partition)
        there = more
    return tuple(taken)
