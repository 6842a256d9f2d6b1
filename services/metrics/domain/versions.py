"""Which version is in service, and which policy in force, at a moment. Times in microseconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["candidate", "champion", "retired"]


@dataclass(frozen=True, slots=True)
class VersionEvent:
    """A version took a stage at ``since``."""

    version: str
    stage: Stage
    since: int


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """A policy was received as ``order``-th of its model; in force from ``effective_at`` (None: at once)."""

    order: int
    effective_at: int | None


def champion(events: Iterable[VersionEvent], as_of: int) -> VersionEvent | None:
    """The newest champion event not after ``as_of``; of several at one time the greater version name."""
    known = [event for event in events if event.stage == "champion" and event.since <= as_of]
    return max(known, key=lambda event: (event.since, event.version), default=None)


def all_retired(events: Iterable[VersionEvent], predicting: Iterable[str], as_of: int) -> bool:
    """Whether every version of a model is retired; one that predicts and was never registered is not."""
    newest: dict[str, VersionEvent] = {}
    for event in events:
        known = newest.get(event.version)
        if event.since <= as_of and (known is None or (event.since, event.stage) > (known.since, known.stage)):
            newest[event.version] = event
    return (
        bool(newest)
        and all(event.stage == "retired" for event in newest.values())
        and all(version in newest for version in predicting)
    )


def in_force(policies: Iterable[PolicyEvent], as_of: int) -> PolicyEvent | None:
    """The policy received last among those whose time has come."""
    begun = [policy for policy in policies if policy.effective_at is None or policy.effective_at <= as_of]
    return max(begun, key=lambda policy: policy.order, default=None)


def new_labels_after(trained_through: int | None, champion_since: int | None) -> int | None:
    """Labels observed later than this are new: the champion's training data, else its promotion, else ever."""
    return trained_through if trained_through is not None else champion_since
