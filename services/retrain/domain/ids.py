"""Identifiers that are functions of the facts, at most 128 characters whatever the names in them."""

from __future__ import annotations

import hashlib


def decision_id_for_snapshot(model: str, sequence: int) -> str:
    """The id of the decision that the policy makes by itself on a model's n-th snapshot."""
    return f"decision-{_digest(model)}-s{sequence}"


def decision_id_for_request(model: str, request_id: str) -> str:
    """The id of the decision that answers a request."""
    return f"decision-{_digest(model)}-r{_digest(request_id)}"


def job_id_for(decision_id: str) -> str:
    """The id of the job that a decision makes: a decision makes at most one."""
    return f"job-{decision_id.removeprefix('decision-')}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
