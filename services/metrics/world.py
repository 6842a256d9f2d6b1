"""What is known of models beside their sums: versions, policies, champions; and for whom labels were counted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

from services.metrics.domain.buckets import start_of
from services.metrics.domain.kinds import Kind
from services.metrics.domain.versions import (
    PolicyEvent,
    VersionEvent,
    all_retired,
    champion,
    in_force,
    new_labels_after,
)
from services.metrics.intake import microseconds, moment_of
from services.metrics.store import QUERIES, lock_models
from shared.contracts.models import Artifact, Policy
from shared.contracts.snapshots import Champion
from shared.database import Connection

MODELS_REMEMBERED = 20_000
"""Models whose default policy is told in words once, and not at every boundary: about 3 KB of memory each."""


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy, its canonical JSON with the defaults filled in, and the SHA-256 of that."""

    policy: Policy
    document: bytes
    sha256: str

    @classmethod
    def of(cls, policy: Policy) -> PolicyInForce:
        """What a policy says of itself."""
        document = policy.to_json()
        return cls(policy, document, sha256(document).hexdigest())


@dataclass(frozen=True, slots=True)
class World:
    """Version and policy events of all models, by model; what predicts, and of what kind, by version id."""

    versions: Mapping[str, Sequence[tuple[VersionEvent, dict[str, Any]]]]
    policies: Mapping[str, Sequence[tuple[PolicyEvent, dict[str, Any]]]]
    predicting: Mapping[int, Mapping[int, str]]
    kinds: Mapping[int, Kind]

    def champion_of(self, model: str, as_of: int) -> Champion | None:
        """The champion at ``as_of`` (microseconds since 1970)."""
        events = self.versions.get(model, ())
        found = champion((event for event, _ in events), as_of) if events else None
        if found is None:
            return None
        document = next(document for event, document in events if event is found)
        artifact = document.get("artifact")
        trained_through = document.get("trained_through")
        return Champion(
            version=found.version,
            changed_at=moment_of(found.since),
            trained_through=None if trained_through is None else datetime.fromisoformat(trained_through),
            artifact=None if artifact is None else Artifact.model_validate_json(json.dumps(artifact)),
        )

    def policy_of(self, model: str, as_of: int) -> PolicyInForce:
        """The policy in force at ``as_of``; the default one where none was received."""
        events = self.policies.get(model, ())
        found = in_force((event for event, _ in events), as_of) if events else None
        if found is None:
            return _default_policy(model)
        document = next(document for event, document in events if event is found)
        return PolicyInForce.of(Policy.model_validate_json(json.dumps(document)))

    def is_retired(self, model: str, model_id: int, as_of: int) -> bool:
        """Whether every version of the model is retired."""
        events = self.versions.get(model, ())
        return bool(events) and all_retired(
            (event for event, _ in events), self.predicting.get(model_id, {}).values(), as_of
        )

    def is_known(self, model: str, model_id: int, as_of: int) -> bool:
        """Whether the model has been heard of by ``as_of``: a prediction, a version or a policy."""
        return (
            model_id in self.predicting
            or any(event.since <= as_of for event, _ in self.versions.get(model, ()))
            or in_force((event for event, _ in self.policies.get(model, ())), as_of) is not None
        )


@lru_cache(maxsize=MODELS_REMEMBERED)
def _default_policy(model: str) -> PolicyInForce:
    return PolicyInForce.of(Policy(model=model))


async def read_world(connection: Connection) -> World:
    """Read what operators and trainers have said so far."""
    versions = defaultdict(list)
    for row in await connection.fetch(QUERIES.read_version_events):
        event = VersionEvent(row["version"], row["stage"], row["stage_since"])
        versions[row["model"]].append((event, row["document"]))
    policies: dict[str, list[tuple[PolicyEvent, dict[str, Any]]]] = defaultdict(list)
    for row in await connection.fetch(QUERIES.read_policy_events):
        received = policies[row["model"]]
        received.append((PolicyEvent(len(received), row["effective_at"]), row["document"]))
    predicting: dict[int, dict[int, str]] = defaultdict(dict)
    kinds: dict[int, Kind] = {}
    for row in await connection.fetch(QUERIES.read_predicting_versions):
        predicting[row["model_id"]][row["version_id"]] = row["version"]
        kinds[row["version_id"]] = row["kind"]
    return World(versions, policies, predicting, kinds)


async def adopt_champions(connection: Connection, as_of: int, *, bucket_seconds: int, label_horizon: int) -> None:
    """Where the champion at ``as_of`` is another than labels were counted for, count them afresh.

    ``as_of`` and ``label_horizon`` in microseconds. A transaction of its own: it takes the models' locks, which
    a cut must not wait for.
    """
    world = await read_world(connection)
    changed = {}
    for row in await connection.fetch(QUERIES.read_counted_champions):
        wanted = counted_for(world.champion_of(row["model"], as_of))
        if wanted != (row["champion_version"], row["new_labels_after"]):
            changed[row["model_id"]] = wanted
    if not changed:
        return
    await lock_models(connection, changed)
    for model_id, (version, limit) in changed.items():
        bucket = None if limit is None else start_of(limit, bucket_seconds)
        await connection.execute(
            QUERIES.adopt_champion, model_id, version, limit, bucket, bucket_seconds, label_horizon
        )


def counted_for(found: Champion | None) -> tuple[str | None, int | None]:
    """The champion's name and the moment that labels must be later than to be new to it."""
    if found is None:
        return None, None
    trained = None if found.trained_through is None else microseconds(found.trained_through)
    return found.version, new_labels_after(trained, microseconds(found.changed_at))
