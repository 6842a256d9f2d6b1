"""What users publish: predictions, labels, pipeline runs, and ticks of the event clock."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.contracts.base import (
    NAME_LENGTH,
    Contract,
    Finite,
    Int64,
    Name,
    Probability,
    Timestamp,
    ZeroOrOne,
    sha256_of,
)

PROBABILITIES_TOLERANCE = 1e-6
"""By how much the class probabilities may miss a sum of 1."""


class Prediction(Contract):
    """A model said something about an entity.

    Exactly one of ``probability`` (binary: of the positive outcome), ``probabilities`` (multiclass) and
    ``value`` (regression) is given: it says of what kind the prediction is. ``predicted`` is the decision taken:
    0 or 1 where that is not ``probability >= 0.5``, a class name where that is not the most probable one.
    """

    prediction_id: Name
    model: Name
    model_version: Name
    predicted_at: Timestamp
    probability: Probability | None = None
    probabilities: Annotated[dict[Name, Probability], Field(min_length=2)] | None = None
    value: Finite | None = None
    entity_id: Name | None = None
    predicted: ZeroOrOne | Name | None = None
    segment: dict[Name, Name] = Field(default_factory=dict)
    data_as_of: Timestamp | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        given = [self.probability is not None, self.probabilities is not None, self.value is not None]
        if sum(given) != 1:
            raise ValueError("exactly one of probability, probabilities and value must be given")
        if self.probabilities is not None:
            if abs(sum(self.probabilities.values()) - 1) > PROBABILITIES_TOLERANCE:
                raise ValueError("probabilities must sum to 1 within 1e-6")
            if self.predicted is not None and self.predicted not in self.probabilities:
                raise ValueError("predicted must be one of the classes in probabilities")
        if self.probability is not None and self.predicted not in (None, 0, 1):
            raise ValueError("predicted must be 0 or 1 where probability is given")
        if self.value is not None and self.predicted is not None:
            raise ValueError("predicted has no meaning beside value")
        return self

    @property
    def entity(self) -> str:
        """What the label will name: ``entity_id``, or the prediction's own id."""
        return self.entity_id if self.entity_id is not None else self.prediction_id

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.predicted_at


class Label(Contract):
    """What happened to an entity. A null ``outcome`` retracts what was said before."""

    entity_id: Name
    outcome: Finite | Name | None
    observed_at: Timestamp
    source: Name | None = None

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.observed_at


class PipelineRun(Contract):
    """A data pipeline finished. Without ``model`` it concerns every model."""

    pipeline: Name
    completed_at: Timestamp
    status: Literal["success", "failed"]
    model: Name | None = None
    records: Int64 | None = None
    run_id: Name | None = None

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.completed_at


OpenLineageName = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
"""A name as OpenLineage's producers make them: longer than our own identifiers may be."""


class OpenLineageRun(Contract):
    """The part of an OpenLineage RunEvent's ``run`` that is read."""

    runId: Name  # noqa: N815 (the name is OpenLineage's)


class OpenLineageJob(Contract):
    """The part of an OpenLineage RunEvent's ``job`` that is read."""

    namespace: OpenLineageName
    name: OpenLineageName


class OpenLineageRunEvent(Contract):
    """An OpenLineage RunEvent as it is (https://openlineage.io/spec/2-0-2/OpenLineage.json)."""

    eventType: (  # noqa: N815 (the name is OpenLineage's)
        Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"] | None
    ) = None
    eventTime: Timestamp  # noqa: N815 (the name is OpenLineage's)
    run: OpenLineageRun
    job: OpenLineageJob

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.eventTime

    def as_pipeline_run(self) -> PipelineRun | None:
        """The finished run that the event tells of; None while the run has not ended.

        The pipeline is ``namespace/name``; beyond 128 characters its end gives way to a digest of the whole.
        """
        if self.eventType not in ("COMPLETE", "FAIL", "ABORT"):
            return None
        pipeline = f"{self.job.namespace}/{self.job.name}"
        if len(pipeline) > NAME_LENGTH:
            pipeline = f"{pipeline[: NAME_LENGTH - 17]}-{sha256_of(pipeline)[:16]}"
        return PipelineRun(
            pipeline=pipeline,
            completed_at=self.eventTime,
            status="success" if self.eventType == "COMPLETE" else "failed",
            run_id=self.run.runId,
        )


class Tick(Contract):
    """Event time has come this far on the partition that holds the record; it says nothing else."""

    tick: Timestamp

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.tick
