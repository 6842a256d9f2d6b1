"""What may be asked, as models. An unknown parameter is refused: a typo must not change an answer in silence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from services.gateway.cursors import MOMENT_NAME_CURSOR, MOMENT_NUMBER_CURSOR, NAME_CURSOR
from shared.contracts.base import Name, Text
from shared.contracts.models import Window
from shared.contracts.retraining import JobStatus

ALL_VERSIONS: Literal["all"] = "all"

SegmentName = Annotated[str, Field(pattern=r"^[^\x00:]{1,128}:[^\x00]{1,128}$")]
NameCursor = Annotated[str, Field(pattern=NAME_CURSOR)]
MomentNameCursor = Annotated[str, Field(pattern=MOMENT_NAME_CURSOR)]
MomentNumberCursor = Annotated[str, Field(pattern=MOMENT_NUMBER_CURSOR)]


class _LeftOut:
    """A parameter may be left out, but no text means null: its schema is that of the text alone."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler(schema)
        (text,) = (part for part in whole.pop("anyOf") if part != {"type": "null"})
        return {**whole, **text}


LeftOut = _LeftOut()

ModelName = Annotated[Name, Field(description="The model's name.")]


class Parameters(BaseModel):
    """Base of every endpoint's parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Parameters):
    """No parameters."""


class MonitoringParameters(Parameters):
    """Parameters of monitoring."""

    model: ModelName
    version: Annotated[Name | None, LeftOut] = Field(
        None, description="A version, or `all` for all together. Default: the champion; all while none was named."
    )
    segment: Annotated[SegmentName | None, LeftOut] = Field(
        None, description="`dimension:value`, as the policy declares them; the value `other` is the rest."
    )
    window: Annotated[Window | None, LeftOut] = Field(None, description="Default: the policy's window.")


class TrendParameters(Parameters):
    """Parameters of the trend."""

    model: ModelName
    days: int = Field(30, ge=1, le=36_500, description="How far back from the newest snapshot's moment.")
    limit: int = Field(200, ge=1, le=1_000, description="Most points in one answer.")
    cursor: Annotated[MomentNumberCursor | None, LeftOut] = Field(
        None, description="`next_cursor` of the answer before, with the same other parameters."
    )


class RetrainPolicyParameters(Parameters):
    """Parameters of the retraining policy."""

    model: ModelName
    dry_run: bool = Field(
        True, description="`false` runs the policy: it may queue a job. Refused to pages of other sites."
    )


class OutcomeParameters(Parameters):
    """Parameters of a request's outcome."""

    model: ModelName


class JobsParameters(Parameters):
    """Parameters of the list of jobs."""

    model: Annotated[ModelName | None, LeftOut] = None
    status: Annotated[JobStatus | None, LeftOut] = None
    limit: int = Field(50, ge=1, le=200, description="Most jobs in one answer.")
    cursor: Annotated[MomentNameCursor | None, LeftOut] = Field(
        None, description="`next_cursor` of the answer before, with the same other parameters."
    )


class PoliciesParameters(Parameters):
    """Parameters of a model's policies."""

    model: ModelName
    limit: int = Field(50, ge=1, le=200, description="Most policies in one answer.")
    cursor: Annotated[MomentNumberCursor | None, LeftOut] = Field(
        None, description="`next_cursor` of the answer before, with the same other parameters."
    )


class ModelsParameters(Parameters):
    """Parameters of the list of models."""

    limit: int = Field(100, ge=1, le=1_000, description="Most models in one answer.")
    cursor: Annotated[NameCursor | None, LeftOut] = Field(None, description="`next_cursor` of the answer before.")


class RunRequest(BaseModel):
    """Please run the policy for a model now, or only say what it would do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName
    dry_run: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="`true` only puts on record what the policy says; no job is queued."
    )
    requested_by: Text | None = Field(None, description="Who asks, for the record.")
