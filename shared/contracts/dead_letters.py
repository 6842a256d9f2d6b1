"""Input that could not be accepted."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import ClassVar, Literal

from shared.contracts.base import Contract, Event, Int64, Text, Timestamp

RefusalReason = Literal[
    "undecodable",  # not JSON, not UTF-8, or empty
    "invalid",  # breaks a rule of its contract
    "conflict",  # an id seen before, with other content
    "from_the_future",  # event time more than five minutes ahead of receipt
    "too_large",  # above the contract's size
    "too_late",  # older than what retention has removed: whether it counted before cannot be known
    "unsupported",  # well-formed, but nothing here evaluates it
    "unknown_job",  # an update of a job that was never made
    "illegal_transition",  # an update that the job's state does not allow
    "unprocessable",  # the database refuses what it says
]


class DeadLetter(Event):
    """A refused record: the original bytes, where they stood, and why they were refused.

    ``key_base64``, ``value_base64`` and header values are base64 of the original bytes (null where the
    record had none); ``field`` names the field that broke the rule told in ``detail``. ``complete`` is false
    where the record was too large to be carried whole: value and key are then its first bytes, and headers are
    missing; the record itself stays where it stood for as long as its topic keeps it.
    """

    event_type: ClassVar[str] = "trueward.dead-letter.v1"

    service: Text
    topic: Text
    partition: int
    offset: int
    received_at: Timestamp
    key_base64: str | None
    value_base64: str | None
    headers: tuple[tuple[str, str | None], ...]
    complete: bool = True
    reason: RefusalReason
    field: Text | None
    detail: Text

    def event_id(self) -> str:
        """Where the record stood, and who refused it."""
        return f"{self.service}-{self.topic}-{self.partition}-{self.offset}"

    def subject(self) -> str:
        """The topic that the record came from (its model may be unreadable)."""
        return self.topic

    def event_time(self) -> datetime:
        """When the broker received the record."""
        return self.received_at

    def original_value(self) -> bytes | None:
        """The record's value, byte for byte."""
        return None if self.value_base64 is None else base64.b64decode(self.value_base64)


class DeadLetterReplay(Contract):
    """A dead letter's record was sent to its topic again, where it now stands at ``partition`` and ``offset``.

    ``letter_id`` is the letter's ``ce_id``. The record carries it too, in its header ``trueward-replay-of``.
    """

    letter_id: Text
    topic: Text
    partition: Int64
    offset: Int64
    replayed_at: Timestamp
