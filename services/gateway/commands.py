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
from services.gateway.store import RefusedRequest, Store
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
        """Have the policy run, unless this request was decided before; wait for the decision.

        Raises ``Problem``: 404 for an unknown model, 409 where the retrain service refused the request or decided
        it before with another ``dry_run``, 503 without database or broker.
        """
        before = await self._store.outcome(model, request_id)
        if isinstance(before, Decision):
            return _same_request(before, dry_run=dry_run)
        request = RetrainRequest(
            request_id=request_id,
            model=model,
            dry_run=dry_run,
            requested_at=datetime.now(UTC),
            requested_by=requested_by,
        )
        await self._kafka.send(request)
        match await self._outcome_after(model, request_id, before):
            case Decision() as decision:
                return _same_request(decision, dry_run=dry_run)
            case RefusedRequest() as refused:
                raise refusal(refused)
            case None:
                return Pending(request_id)

    async def _outcome_after(
        self, model: str, request_id: str, before: RefusedRequest | None
    ) -> Decision | RefusedRequest | None:
        """What becomes of the request that was just sent; ``before`` is an earlier refusal of the same one."""
        deadline = time.monotonic() + self._wait_seconds
        pause = FIRST_LOOK_SECONDS
        while True:
            outcome = await self._store.outcome(model, request_id)
            left = deadline - time.monotonic()
            if outcome not in (None, before):
                return outcome
            if left <= 0:
                return None
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)


def refusal(refused: RefusedRequest) -> Problem:
    """A 409 with the retrain service's own words."""
    return Problem(
        409, "request-refused", f"The retrain service refused: {refused.detail}.", title="Request refused"
    )


def _same_request(decision: Decision, *, dry_run: bool) -> Decision:
    if decision.dry_run == dry_run:
        return decision
    detail = (
        f"This Idempotency-Key was used before for the model {decision.model!r} with dry_run="
        f"{str(decision.dry_run).lower()} (decision {decision.decision_id}). Take a new key."
    )
    raise Problem(409, "idempotency-key-reused", detail, title="Idempotency-Key reused")
