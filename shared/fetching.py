"""How a batch subscriber waits for records."""

from __future__ import annotations

from itertools import chain

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from faststream.kafka.subscriber.usecase import BatchSubscriber


def fetch_without_pauses(subscriber: BatchSubscriber) -> None:
    """Let the subscriber look for records again as soon as it has waited for some in vain.

    FastStream's own look sleeps as long as it has waited, and sees nothing that comes meanwhile: where records
    come now and then, each second one lies there for a tenth of a second.
    """

    async def fetched(consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[bytes, bytes], ...]:
        found = await consumer.getmany(timeout_ms=subscriber.batch_timeout_ms, max_records=subscriber.max_records)
        return tuple(chain.from_iterable(found.values()))

    # There is no setting for it, and the sleep stands in the one method that also fetches.
    subscriber.get_msg = fetched  # type: ignore[method-assign]
