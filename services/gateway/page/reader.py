"""The page's reads, from the published views."""

from __future__ import annotations

import json
import struct
from datetime import timedelta

from asyncpg import Record

from services.gateway.answers import AlertThresholds
from services.gateway.cursors import read_name, write_name
from services.gateway.database import Database
from services.gateway.page.answers import (
    Decisions,
    DecisionsParameters,
    LastJob,
    Overview,
    OverviewModel,
    OverviewParameters,
    SegmentFigures,
    Segments,
    SegmentsParameters,
    Series,
    SeriesParameters,
    SeriesPoint,
    StandingCounts,
    Transitions,
    TransitionsParameters,
)
from services.gateway.parameters import ALL_VERSIONS
from services.gateway.problems import unknown_model
from shared.contracts.alerts import AlertTransition
from shared.contracts.models import Policy
from shared.contracts.retraining import Decision
from shared.database import Queries

QUERIES = Queries.load("services.gateway.page")
LARGEST_SEQUENCE = 2**63 - 1
_RANK_DIGITS = 16


class Reader:
    """Reads answers. Every method raises ``Problem``: 404 for an unknown model, 503 without a database."""

    def __init__(self, database: Database, topic_prefix: str) -> None:
        self._database = database
        self._topic_prefix = topic_prefix

    async def overview(self, asked: OverviewParameters) -> Overview:
        """Every model at a glance, a page of them at a time."""
        rank, name = read_rank(asked.cursor) if asked.cursor else (None, None)
        rows = await self._database.rows(
            QUERIES.overview, asked.q, asked.state, asked.sort, rank, name, asked.limit + 1, asked.points
        )
        counts = StandingCounts.model_validate_json(rows[0]["counts"])
        found = [row for row in rows if row["model"] is not None]
        shown = found[: asked.limit]
        more = len(found) > asked.limit
        return Overview(
            counts=counts,
            models=[_overview_model(row) for row in shown],
            next_cursor=write_rank(shown[-1]["rank"], shown[-1]["model"]) if more else None,
        )

    async def series(self, asked: SeriesParameters) -> Series:
        """A model's figures over time."""
        rows = await self._known(QUERIES.series, asked.model, timedelta(days=asked.days), asked.points)
        return Series(
            model=asked.model,
            days=asked.days,
            as_of=rows[0]["as_of"],
            every=rows[0]["every"],
            points=[SeriesPoint.model_validate_json(row["point"]) for row in rows if row["point"]],
        )

    async def segments(self, asked: SegmentsParameters) -> Segments:
        """A model's figures by segment."""
        version = "" if asked.version == ALL_VERSIONS else asked.version
        rows = await self._known(QUERIES.segments, asked.model, version, asked.window)
        first = rows[0]
        return Segments(
            model=asked.model,
            version=(first["version"] or ALL_VERSIONS) if first["as_of"] else None,
            window=first["time_window"],
            as_of=first["as_of"],
            segments=[
                SegmentFigures.model_validate({"segment": row["segment"], "metrics": json.loads(row["metrics"])})
                for row in rows
                if row["segment"]
            ],
        )

    async def transitions(self, asked: TransitionsParameters) -> Transitions:
        """A model's alert transitions, newest first."""
        below = int(asked.cursor, 16) if asked.cursor else LARGEST_SEQUENCE
        rows = await self._known(QUERIES.transitions, asked.model, below, asked.limit + 1)
        found = [row for row in rows if row["transition"]]
        shown = found[: asked.limit]
        return Transitions(
            model=asked.model,
            transitions=[AlertTransition.model_validate_json(row["transition"]) for row in shown],
            next_cursor=f"{shown[-1]['alert_sequence']:016x}" if len(found) > asked.limit else None,
        )

    async def decisions(self, asked: DecisionsParameters) -> Decisions:
        """What the policy said of a model, newest first."""
        below = int(asked.cursor, 16) if asked.cursor else LARGEST_SEQUENCE
        rows = await self._known(QUERIES.decisions, asked.model, asked.action, below, asked.limit + 1)
        found = [row for row in rows if row["decision"]]
        shown = found[: asked.limit]
        return Decisions(
            model=asked.model,
            decisions=[Decision.model_validate_json(row["decision"]) for row in shown],
            next_cursor=f"{shown[-1]['decision_sequence']:016x}" if len(found) > asked.limit else None,
        )

    async def _known(self, query: str, model: str, *arguments: object) -> list[Record]:
        rows = await self._database.rows(query, model, *arguments)
        if not rows:
            raise unknown_model(model, self._topic_prefix)
        return rows


def write_rank(rank: float, name: str) -> str:
    """The place behind a row in an order by a number, then by name."""
    return struct.pack(">d", rank).hex() + write_name(name)


def read_rank(cursor: str) -> tuple[float, str]:
    """Back from a text that follows ``RANK_CURSOR``; any sixteen digits are a number to PostgreSQL too."""
    (rank,) = struct.unpack(">d", bytes.fromhex(cursor[:_RANK_DIGITS]))
    return rank, read_name(cursor[_RANK_DIGITS:])


def _overview_model(row: Record) -> OverviewModel:
    alerts = json.loads(row["alerts"])
    return OverviewModel.model_validate(
        {
            "model": row["model"],
            "standing": row["standing"],
            "state": row["state"],
            "champion": row["champion"],
            "snapshot_sequence": row["sequence"],
            "as_of": row["as_of"],
            "window": row["time_window"],
            "metrics": json.loads(row["metrics"] or "{}"),
            "thresholds": AlertThresholds.of(Policy.model_validate_json(row["policy"])) if row["policy"] else None,
            "alerts": alerts,
            "longest_streak": max((alert["breach_streak"] for alert in alerts), default=0),
            "sparkline": json.loads(row["sparkline"]),
            "last_job": LastJob.model_validate_json(row["job"]) if row["job"] else None,
        }
    )
