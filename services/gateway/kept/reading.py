"""Revisions, from the published views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.gateway.database import Line
from services.gateway.kept.revisions import ReadRevisions
from shared.database import Queries

QUERIES = Queries.load("services.gateway.kept")


def revision_reader(line: Line) -> ReadRevisions:
    """Reads over a connection of its own: nothing that takes long is ahead of it."""

    async def read(models: Sequence[str]) -> Mapping[str, str]:
        return {row["model"]: row["revision"] for row in await line.rows(QUERIES.revisions, models)}

    return read
