"""What the page's reads answer, and what may be asked of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from services.gateway.answers import (
    AlertThresholds,
    Answer,
    Count,
    Figures,
    FiguresWithReliability,
    NextCursor,
    Sequence,
    StandingAlert,
)
from services.gateway.cursors import NAME_CURSOR
from services.gateway.parameters import LeftOut, ModelName, Parameters
from shared.contracts.alerts import AlertTransition, ModelState
from shared.contracts.base import Name
from shared.contracts.models import Window
from shared.contracts.retraining import Action, Decision, JobStatus, Trigger

Standing = Literal["incident", "watch", "active", "waiting", "good"]
Order = Literal["worst", "name", "accuracy", "brier", "freshness", "streak"]

RANK_CURSOR = "^[0-9a-f]{16}" + NAME_CURSOR.removeprefix("^")
SEQUENCE_CURSOR = "^0[0-9a-f]{15}$"
RankCursor = Annotated[str, Field(pattern=RANK_CURSOR)]
SequenceCursor = Annotated[str, Field(pattern=SEQUENCE_CURSOR)]
SearchText = Annotated[str, Field(pattern=r"^[^\x00]{1,128}$")]

_CURSOR = "`next_cursor` of the answer before, with the same other parameters."


class OverviewParameters(Parameters):
    """Parameters of the overview."""

    q: Annotated[SearchText | None, LeftOut] = Field(None, description="Text in the model's name, in any case.")
    state: Annotated[Standing | None, LeftOut] = Field(None, description="Only models of this standing.")
    sort: Order = Field(
        "worst",
        description="`worst`: by standing, then the longest streak. The figures: the worst first, as the alert"
        " rules had them; what they could not judge comes last.",
    )
    limit: int = Field(50, ge=1, le=200, description="Most models in one answer.")
    points: int = Field(30, ge=1, le=200, description="Most points of a sparkline.")
    cursor: Annotated[Annotated[str, Field(pattern=RANK_CURSOR)] | None, LeftOut] = Field(
        None, description=_CURSOR
    )


class SeriesParameters(Parameters):
    """Parameters of a series."""

    model: ModelName
    days: int = Field(30, ge=1, le=36_500, description="How far back from the newest snapshot's moment.")
    points: int = Field(400, ge=2, le=1_000, description="Most points: of more snapshots, every n-th is told.")


class SegmentsParameters(Parameters):
    """Parameters of the segments."""

    model: ModelName
    version: Annotated[Name | None, LeftOut] = Field(
        None, description="A version, or `all` for all together. Default: the champion; all while none was named."
    )
    window: Annotated[Window | None, LeftOut] = Field(None, description="Default: the policy's window.")


class TransitionsParameters(Parameters):
    """Parameters of a model's alert transitions."""

    model: ModelName
    limit: int = Field(50, ge=1, le=500, description="Most transitions in one answer.")
    cursor: Annotated[SequenceCursor | None, LeftOut] = Field(None, description=_CURSOR)


class DecisionsParameters(Parameters):
    """Parameters of a model's decisions."""

    model: ModelName
    action: Annotated[Action | None, LeftOut] = Field(None, description="Only decisions with this action.")
    limit: int = Field(20, ge=1, le=100, description="Most decisions in one answer.")
    cursor: Annotated[SequenceCursor | None, LeftOut] = Field(None, description=_CURSOR)


class LastJob(Answer):
    """A model's newest retraining job, in short."""

    job_id: str
    status: JobStatus
    triggers: tuple[Trigger, ...]
    as_of: datetime
    created_at: datetime
    finished_at: datetime | None


class OverviewModel(Answer):
    """One model at a glance."""

    model: str
    standing: Standing = Field(
        description="The state in one word more: without an alert, `good` where the rules of quality could judge,"
        " else `waiting`."
    )
    state: ModelState
    champion: str | None
    snapshot_sequence: Sequence | None
    as_of: datetime | None
    window: Window | None
    metrics: Figures
    thresholds: AlertThresholds | None = Field(description="Null before the first snapshot.")
    alerts: list[StandingAlert]
    longest_streak: Count
    sparkline: list[float | None] = Field(
        description="Accuracy at the newest snapshots, the oldest first; of a regression model its MAE."
    )
    last_job: LastJob | None


class StandingCounts(Answer):
    """How many models have which standing."""

    incident: Count
    watch: Count
    active: Count
    good: Count
    waiting: Count


class Overview(Answer):
    """Every model at a glance."""

    counts: StandingCounts = Field(description="Of the models that `q` finds, whatever `state` asks for.")
    models: list[OverviewModel]
    next_cursor: NextCursor


class SeriesPoint(Answer):
    """One snapshot's figures: the champion's, over the policy's window."""

    snapshot_sequence: Sequence
    as_of: datetime
    version: str = Field(description="The champion at the time; `all` while none was named.")
    window: Window
    metrics: Figures


class Series(Answer):
    """A model's snapshots over time, the oldest first, thinned to as many as a chart can show."""

    model: str
    days: int
    as_of: datetime | None = Field(description="What `days` count back from: the newest snapshot's moment.")
    every: int = Field(ge=1, description="Every how many-th snapshot is told; the newest always is.")
    points: list[SeriesPoint]


class SegmentFigures(Answer):
    """One segment's quality."""

    segment: str = Field(description="`dimension:value`.")
    metrics: FiguresWithReliability


class Segments(Answer):
    """The quality of every segment that the newest snapshot knows of."""

    model: str
    version: str | None = Field(description="`all` for all together; null before the first snapshot.")
    window: Window | None
    as_of: datetime | None
    segments: list[SegmentFigures]


class Transitions(Answer):
    """Every change of a model's alerts and escalation state, newest first."""

    model: str
    transitions: list[AlertTransition]
    next_cursor: NextCursor


class Decisions(Answer):
    """What the policy said of a model, and on what evidence, newest first."""

    model: str
    decisions: list[Decision]
    next_cursor: NextCursor
