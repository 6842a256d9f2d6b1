"""``trueward rebuild metrics``: sums held against the raw rows they are of, while the services run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import asyncpg

from services.metrics.rebuilding import Difference, Findings, models_to_rebuild, rebuild_model
from shared import database
from trueward.cli import output
from trueward.cli.connection import AwayError, Connection

SHOWN = 20
"""Differences of a model that are listed; all of them are counted."""


def metrics(connection: Connection, models: Sequence[str], *, check: bool, as_json: bool) -> bool:
    """Compare, and mend unless ``check``. Returns whether the sums are right now.

    Raises ``AwayError`` without a database, ``UsageError`` for an unknown model, ``TruewardError`` where a model's
    sums could not be mended.
    """
    try:
        found = asyncio.run(_rebuild(connection.dsn(), models, check=check, hidden=as_json))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise AwayError(f"PostgreSQL does not answer as needed: {error or type(error).__name__}") from error
    if as_json:
        output.answer({"check": check, "models": [_document(one) for one in found]})
    else:
        _tell(found, check=check)
    return not check or not any(one.differences for one in found)


async def _rebuild(dsn: str, names: Sequence[str], *, check: bool, hidden: bool) -> list[Findings]:
    connection = await database.connect(dsn, role="metrics", application_name="trueward-rebuild")
    try:
        models = await models_to_rebuild(connection, names)
        total = sum(model.predictions for model in models)
        with output.progress("comparing", total, as_bytes=False, hidden=hidden) as step:
            return [await rebuild_model(connection, model.model_id, check=check, step=step) for model in models]
    finally:
        await connection.close()


def _document(found: Findings) -> dict[str, object]:
    return {
        "model": found.model,
        "raw_predictions": found.raw_predictions,
        "buckets": found.buckets,
        "differing": len(found.differences),
        "differences": [asdict(one) | {"start": _moment(one.start)} for one in found.differences[:SHOWN]],
    }


def _tell(found: Sequence[Findings], *, check: bool) -> None:
    if not found:
        output.say("no model is known here yet")
    for one in found:
        compared = f"{one.model}: {one.buckets} buckets compared with {one.raw_predictions} raw predictions"
        if not one.differences:
            output.say(f"{compared}; nothing differs")
            continue
        output.say(f"{compared}; {len(one.differences)} {'differ' if check else 'differed and are mended'}")
        for difference in one.differences[:SHOWN]:
            output.say(f"  {_line(difference)}")
        if len(one.differences) > SHOWN:
            output.say(f"  and {len(one.differences) - SHOWN} more")


def _line(difference: Difference) -> str:
    parts = [difference.what]
    if difference.version is not None:
        parts.append(f"version {difference.version}")
    if difference.segment:
        parts.append(f"segment {difference.segment}")
    if difference.width_seconds is not None:
        parts.append(f"of {difference.width_seconds} s")
    if difference.start is not None:
        parts.append(f"from {_moment(difference.start)}")
    return f"{' '.join(parts)}: {', '.join(difference.figures)}"


def _moment(start: int | None) -> str | None:
    try:
        return None if start is None else output.moment(datetime.fromtimestamp(start, UTC))
    except (OverflowError, ValueError, OSError):
        # A damaged row may say anything.
        return f"second {start}"
