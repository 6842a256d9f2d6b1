"""What can go wrong, told apart: nobody answers, the question is wrong, an event is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trueward.client.publishing import Receipt


class ClientError(Exception):
    """An expected error; its text is one clear line."""


class AwayError(ClientError):
    """Nobody answers, or nobody can now. The same call may succeed later, and does nothing twice."""


class RequestRefusedError(ClientError):
    """The request was wrong. ``status`` is HTTP's, ``problem`` the RFC 9457 document ({} where there was none)."""

    def __init__(self, said: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(said)
        self.status = status
        self.problem = dict(problem)


class NotDecidedError(ClientError):
    """A run of the policy was accepted, and its decision did not come in time. The same key asks for it again."""

    def __init__(self, said: str, idempotency_key: str, request_id: str) -> None:
        super().__init__(said)
        self.idempotency_key = idempotency_key
        self.request_id = request_id


class EventsRefusedError(ClientError):
    """Some events were refused and not sent; the others were. ``receipt`` says which and why."""

    def __init__(self, receipt: Receipt) -> None:
        first = receipt.refused[0]
        field = f"{first.field}: " if first.field else ""
        total = receipt.accepted + len(receipt.refused)
        refused = f"{len(receipt.refused):,} of {total:,} events were refused"
        super().__init__(f"{refused}; the first, event {first.index}: {field}{first.rule}")
        self.receipt = receipt
