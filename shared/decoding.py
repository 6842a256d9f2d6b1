"""From a record's bytes to a contract's event, or to the reason why not."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from shared.contracts.base import Contract
from shared.contracts.models import Policy
from shared.errors import Refusal
from shared.records import Record
from shared.topics import MAX_RECORD_BYTES

C = TypeVar("C", bound=Contract)

LARGEST_LEAD = timedelta(minutes=5)
"""How far an event time may lie ahead of its receipt: one date in 2099 must not move a clock."""


def decode(record: Record, contract: type[C]) -> C | Refusal:
    """Read a record's value as ``contract``; on any breach of its rules, say which field and which rule."""
    if not record.value:
        return Refusal("undecodable", None, "the record has no value")
    if len(record.value) > MAX_RECORD_BYTES:
        detail = f"the value has {len(record.value)} bytes; {MAX_RECORD_BYTES} are allowed"
        return Refusal("too_large", None, detail)
    try:
        event = contract.model_validate_json(record.value)
    except ValidationError as error:
        return refusal_of(error)
    return from_the_future(event, record.received_at) or ambiguous(event) or event


def refusal_of(error: ValidationError) -> Refusal:
    """The first rule that was broken, with the field that broke it."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Refusal("undecodable", None, first["msg"])
    field = ".".join(str(part) for part in first["loc"]) or None
    return Refusal("invalid", field, first["msg"].removeprefix("Value error, "))


def ambiguous(event: Contract) -> Refusal | None:
    """Refuse a policy of whose segments two would have one name."""
    reason = event.ambiguity() if isinstance(event, Policy) else None
    return None if reason is None else Refusal("invalid", "segments", reason)


def from_the_future(event: Contract, received_at: datetime) -> Refusal | None:
    """Refuse an event whose time lies more than five minutes ahead of its receipt."""
    # Asked of the class: of the event it would also be an unknown field that its sender named so.
    contract = type(event)
    if "occurred_at" not in contract.model_fields and not hasattr(contract, "occurred_at"):
        return None
    occurred_at: datetime | None = event.occurred_at  # type: ignore[attr-defined]  # asked one line above
    if occurred_at is None or occurred_at - received_at <= LARGEST_LEAD:
        return None
    detail = f"event time {occurred_at.isoformat()} is more than 5 minutes ahead of receipt"
    return Refusal("from_the_future", "event time", f"{detail} ({received_at.isoformat()})")
