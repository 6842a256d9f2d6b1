"""Model versions and policies: what operators and trainers say about a model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from shared.contracts.base import (
    LARGEST_INT64,
    Contract,
    FreeMap,
    Int64,
    Name,
    Sha256,
    Text,
    Timestamp,
    only_a_boolean,
    sha256_of,
)

DAY_SECONDS = 86_400
LONGEST_LEASE_SECONDS = 30 * DAY_SECONDS
LONGEST_STALENESS_SECONDS = 3650 * DAY_SECONDS

On = Annotated[Literal[True], BeforeValidator(only_a_boolean)]
"""A switch that is on; null turns it off."""

Window = Literal["1h", "1d", "7d", "30d", "all"]
"""A rolling window: [as_of - window, as_of)."""


class Artifact(Contract):
    """Where a model version's bytes lie, and how to tell them from others."""

    uri: Text
    sha256: Sha256 | None = None
    size_bytes: Int64 | None = None
    created_at: Timestamp | None = None


class ModelVersion(Contract):
    """A model version was registered, promoted or retired.

    ``changed_at`` is when it took its stage (default ``registered_at``); ``trained_through`` is the newest
    label used in training.
    """

    model: Name
    version: Name
    registered_at: Timestamp
    stage: Literal["candidate", "champion", "retired"]
    changed_at: Timestamp | None = None
    artifact: Artifact | None = None
    trained_through: Timestamp | None = None
    training: FreeMap = Field(default_factory=dict)
    job_id: Name | None = None

    @property
    def stage_since(self) -> datetime:
        """When the version took its stage."""
        return self.changed_at if self.changed_at is not None else self.registered_at

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return max(self.registered_at, self.stage_since)


class AccuracyRule(Contract):
    """Breached when accuracy < ``below``; always of high severity."""

    below: Annotated[float, Field(ge=0, le=1)] = 0.55


class BrierRule(Contract):
    """Breached when brier_score > ``above`` (medium); high above ``high_above``."""

    above: Annotated[float, Field(ge=0, le=1)] = 0.25
    high_above: Annotated[float, Field(ge=0, le=1)] = 0.33


class MulticlassBrierRule(Contract):
    """Breached when a multiclass brier_score (0 to 2) > ``above`` (medium); high above ``high_above``."""

    above: Annotated[float, Field(ge=0, le=2)] = 0.5
    high_above: Annotated[float, Field(ge=0, le=2)] = 0.66


class MaeRule(Contract):
    """Breached when mae > ``above_ratio`` times the baseline (medium); high above ``high_above_ratio`` times.

    The baseline is ``baseline``, in the unit of the outcome, or where that is null the snapshot's
    ``baseline_mae``: the mean absolute error of the same predictions before the window.
    """

    baseline: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    above_ratio: Annotated[float, Field(ge=0, le=1_000)] = 1.25
    high_above_ratio: Annotated[float, Field(ge=0, le=1_000)] = 1.5


class StalenessRule(Contract):
    """Breached when freshness > ``above_seconds`` (medium); high above ``high_above_seconds``."""

    above_seconds: Annotated[int, Field(gt=0, le=LONGEST_STALENESS_SECONDS)] = 2 * DAY_SECONDS
    high_above_seconds: Annotated[int, Field(gt=0, le=LONGEST_STALENESS_SECONDS)] = 4 * DAY_SECONDS


class Rules(Contract):
    """The alert rules by alert id; a rule set to null is off.

    A rule of quality judges models of its kind alone: accuracy binary and multiclass ones, ``brier_breach``
    binary, ``multiclass_brier_breach`` multiclass and ``mae_breach`` regression.
    """

    accuracy_breach: AccuracyRule | None = AccuracyRule()
    brier_breach: BrierRule | None = BrierRule()
    multiclass_brier_breach: MulticlassBrierRule | None = MulticlassBrierRule()
    mae_breach: MaeRule | None = MaeRule()
    data_stale: StalenessRule | None = StalenessRule()
    pipeline_stale: StalenessRule | None = StalenessRule()


class Triggers(Contract):
    """What calls for a retraining; a trigger set to null is off.

    The breach triggers take their thresholds from the rules of the same name, so that they stand once; a
    breach trigger whose rule is off is off too. ``new_labels`` fires at that many new labels or more.
    """

    accuracy_breach: On | None = True
    brier_breach: On | None = True
    multiclass_brier_breach: On | None = True
    mae_breach: On | None = True
    new_labels: Annotated[int, Field(gt=0, le=LARGEST_INT64)] | None = 40


class Rollback(Contract):
    """When a retrained version should be reverted, against the baseline stored with the job.

    ``mae_rise`` is a share of the baseline, 0.1 for 10 %; the others are differences.
    """

    accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.03
    brier_rise: Annotated[float, Field(ge=0, le=1)] = 0.02
    multiclass_brier_rise: Annotated[float, Field(ge=0, le=2)] = 0.04
    mae_rise: Annotated[float, Field(ge=0, le=1_000)] = 0.1


OTHER = "other"
"""The segment value of whatever a policy does not declare."""


class Policy(Contract):
    """How a model is judged: window, alert rules, retrain triggers, mode.

    A policy is in force from ``effective_at`` (absent: as soon as it is received); of several the one
    received last wins. ``segments`` declares, per dimension, the values whose metrics are kept apart; any
    other value falls in ``other``. ``lease_seconds`` is how long a running job may stay silent.
    """

    model: Name
    effective_at: Timestamp | None = None
    window: Window = "7d"
    mode: Literal["observe", "enforce"] = "observe"
    min_evaluated: Annotated[int, Field(ge=1, le=LARGEST_INT64)] = 30
    rules: Rules = Rules()
    triggers: Triggers = Triggers()
    rollback: Rollback = Rollback()
    segments: Annotated[dict[Name, Annotated[list[Name], Field(max_length=100)]], Field(max_length=10)] = Field(
        default_factory=dict
    )
    lease_seconds: Annotated[int, Field(gt=0, le=LONGEST_LEASE_SECONDS)] = 900

    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of the policy with its defaults filled in."""
        return sha256_of(self.known())

    def ambiguity(self) -> str | None:
        """Why a segment's name, ``dimension:value``, would be that of two dimensions; None where none is.

        Their figures would stand under one name. No rule of the contract: policies that were taken before can be
        read for ever.
        """
        named: dict[str, str] = {}
        for dimension, values in self.segments.items():
            for value in (*values, OTHER):
                name = f"{dimension}:{value}"
                first = named.setdefault(name, dimension)
                if first != dimension:
                    return f"dimensions {first!r} and {dimension!r} both have a segment that is spelled {name!r}"
        return None
