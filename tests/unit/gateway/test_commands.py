"""Running the policy: one request acts once, has one answer, and never waits for ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from services.gateway.commands import Commands, Pending, fresh_request_id, request_id_of
from services.gateway.kafka import Kafka
from services.gateway.problems import Problem
from services.gateway.store import RefusedRequest, Store
from shared.contracts.retraining import Decision, RetrainRequest

GOLDEN = Path(__file__).parents[2] / "contracts" / "golden"
MODEL, REQUEST = "flights", "request-1"
Outcome = Decision | RefusedRequest | None


def decision(*, dry_run: bool = False) -> Decision:
    (example,) = sorted(GOLDEN.glob("retrain-decision*/*.json"))[:1] or sorted(GOLDEN.rglob("*decision*.json"))[:1]
    golden = Decision.model_validate_json(example.read_bytes())
    return golden.model_copy(update={"request_id": REQUEST, "asked_by": "request", "dry_run": dry_run})


def refused(day: int) -> RefusedRequest:
    return RefusedRequest(datetime(2026, 1, day, tzinfo=UTC), "no snapshot")


@dataclass
class FakeStore:
    """Answers with the outcomes in turn, then with the last one for ever."""

    outcomes: list[Outcome]

    async def outcome(self, model: str, request_id: str) -> Outcome:
        assert (model, request_id) == (MODEL, REQUEST)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


@dataclass
class FakeKafka:
    """Remembers what was sent."""

    sent: list[RetrainRequest] = field(default_factory=list)

    async def send(self, request: RetrainRequest) -> None:
        self.sent.append(request)


async def run(
    outcomes: list[Outcome], *, dry_run: bool = False, wait: float = 2
) -> tuple[Decision | Pending, list[RetrainRequest]]:
    kafka = FakeKafka()
    commands = Commands(cast("Store", FakeStore(outcomes)), cast("Kafka", kafka), wait)
    outcome = await commands.run_policy(MODEL, REQUEST, dry_run=dry_run, requested_by="someone")
    return outcome, kafka.sent


async def test_a_new_request_is_sent_and_its_decision_answered() -> None:
    outcome, sent = await run([None, None, decision()])
    assert outcome == decision()
    (request,) = sent
    assert (request.model, request.request_id, request.dry_run, request.requested_by) == (
        MODEL,
        REQUEST,
        False,
        "someone",
    )


async def test_a_request_that_was_decided_is_not_sent_again() -> None:
    outcome, sent = await run([decision()])
    assert outcome == decision()
    assert sent == []


async def test_a_decision_that_does_not_come_is_pending() -> None:
    outcome, sent = await run([None], wait=0.05)
    assert outcome == Pending(REQUEST)
    assert len(sent) == 1


async def test_even_without_waiting_the_decision_is_looked_for_once() -> None:
    outcome, _ = await run([None, decision()], wait=0)
    assert outcome == decision()


async def test_a_refusal_is_a_conflict_in_the_services_words() -> None:
    with pytest.raises(Problem, match="no snapshot") as problem:
        await run([None, None, refused(1)])
    assert (problem.value.status, problem.value.kind) == (409, "request-refused")


async def test_a_request_refused_before_is_sent_again_and_not_answered_by_the_old_refusal() -> None:
    outcome, sent = await run([refused(1), refused(1), decision()])
    assert outcome == decision()
    assert len(sent) == 1
    with pytest.raises(Problem) as problem:
        await run([refused(1), refused(1), refused(2)])
    assert problem.value.status == 409
    pending, _ = await run([refused(1)], wait=0.05)
    assert pending == Pending(REQUEST)


@pytest.mark.parametrize("outcomes", [[decision(dry_run=True)], [None, decision(dry_run=True)]])
async def test_a_key_used_for_a_dry_run_is_no_key_for_a_real_one(outcomes: list[Outcome]) -> None:
    with pytest.raises(Problem, match="dry_run=true") as problem:
        await run(outcomes)
    assert (problem.value.status, problem.value.kind) == (409, "idempotency-key-reused")


def test_the_same_key_and_model_are_the_same_request() -> None:
    assert request_id_of("flights", "k") == request_id_of("flights", "k")
    others = {request_id_of("flights", "k2"), request_id_of("flight", "sk"), request_id_of("other", "k")}
    assert len(others) == 3
    assert request_id_of("flights", "k") not in others
    # The key's id is kept with decisions for ever: it must not change from one release to the next.
    assert request_id_of("flights", "k") == "request-2ddde8c6f23f1a9e4fc2b9964cc68c56"


def test_a_request_without_a_key_is_its_own() -> None:
    assert fresh_request_id() != fresh_request_id()
