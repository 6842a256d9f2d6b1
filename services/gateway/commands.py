"""Running the policy: a command goes to a topic, and the decision is looked for where it is published."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from services.gateway.kafka import Kafka
from services.gateway.problems import Problem
from services.gateway.store import Store
from shared.contracts.base import sha256_of
from shared.contracts.retraining import Decision, RetrainRequest

FIRST_LOOK_SECONDS = 0.02
LONGEST_LOOK_SECONDS = 0.25
TRUSTED_SITES = (None, "same-origin", "none")
"""Values of Sec-Fetch-Site that do not come from somebody else's page: no browser, our own page, a person."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The command was sent; its decision was not there in time."""

    request_id: str


def request_id_of(model: str, idempotency_key: str) -> str:
    """The same key for the same model is the same request, whoever sends it and however often."""
    return f"request-{sha256_of([model, idempotency_key])[:32]}"


def fresh_request_id() -> str:
    """A request that nobody made before."""
    return f"request-{uuid.uuid4().hex}"


def refuse_other_sites(headers: Mapping[str, str]) -> None:
    """Raises ``Problem`` (403) for what a browser does for another site's page, or ahead of its user."""
    if (site := headers.get("sec-fetch-site")) not in TRUSTED_SITES:
        detail = f"A page of another origin (Sec-Fetch-Site: {site}) may not run the policy."
        raise Problem(403, "cross-site-request", detail, title="Cross-site request")
    if "prefetch" in headers.get("sec-purpose", ""):
        detail = "The policy is not run for a prefetch (Sec-Purpose): only when its user really asks."
        raise Problem(403, "prefetch", detail, title="Prefetch")


class Commands:
    """Sends commands and waits for what they bring."""

    def __init__(self, store: Store, kafka: Kafka, wait_seconds: float) -> None:
        self._store = store
        self._kafka = kafka
        self._wait_seconds = wait_seconds

    async def run_policy(
        self, model: str, request_id: str, *, dry_run: bool, requested_by: str | None
    ) -> Decision | Pending:
        """Have the policy run, unless this request was answered before; wait for the decision.

        Raises ``Problem``: 404 for an unknown model, 409 where there is nothing to judge or the request was made
        before with another ``dry_run``, 503 without database or broker.
        """
        if not await self._store.has_snapshot(model):
            detail = (
                f"The model {model!r} has no snapshot yet: the policy has nothing to judge. The first comes at the"
                " next boundary of the snapshot interval (GET /api/v1/system/status, `clock`)."
            )
            raise Problem(409, "nothing-to-judge", detail, title="Nothing to judge")
        decision = await self._store.decision(request_id)
        if decision is None:
            request = RetrainRequest(
                request_id=request_id,
                model=model,
                dry_run=dry_run,
                requested_at=datetime.now(UTC),
                requested_by=requested_by,
            )
            await self._kafka.send(request)
            decision = await self._wait_for(request_id)
        if decision is None:
            return Pending(request_id)
        if decision.dry_run != dry_run:
            detail = (
                f"This Idempotency-Key was used before for the model {model!r} with dry_run="
                f"{str(decision.dry_run).lower()} (decision {decision.decision_id}). Take a new key."
            )
            raise Problem(409, "idempotency-key-reused", detail, title="Idempotency-Key reused")
        return decision

    async def _wait_for(self, request_id: str) -> Decision | None:
        deadline = time.monotonic() + self._wait_seconds
        pause = FIRST_LOOK_SECONDS
        while True:
            decision = await self._store.decision(request_id)
            left = deadline - time.monotonic()
            if decision is not None or left <= 0:
                return decision
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)
