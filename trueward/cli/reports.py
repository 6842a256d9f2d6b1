"""``trueward status``, ``models`` and ``jobs list``: what the gateway says, for people or as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from trueward.cli import output
from trueward.cli.connection import Connection
from trueward.cli.http import ask, pages
from trueward.cli.output import moment

PAGE = 200
UNKNOWN = "-"


def status(connection: Connection, *, as_json: bool) -> None:
    """Services, dependencies, clock, lag, and the models with their state."""
    system = ask(connection, "/api/v1/system/status")
    if as_json:
        output.answer(system)
        return
    output.say(f"Trueward at {connection.url()}: {system['status']}")
    output.show(output.table("Parts", ["part", "works", "says"], _parts(system)))
    output.show(
        output.table("Intake", ["service", "records behind", "furthest behind", "unsent events"], _intake(system))
    )
    if system["clock"]:
        output.say(_clock(system["clock"]))
    models(connection, as_json=False, most=PAGE)


def models(connection: Connection, *, as_json: bool, most: int | None) -> None:
    """The models known."""
    found = list(pages(connection, "/api/v1/models", "models", {"limit": PAGE}, most))
    if as_json:
        output.answer({"models": found})
        return
    rows = [
        [
            model["model"],
            f"[{output.STATE_STYLES[model['state']]}]{model['state']}[/]",
            model["champion"] or UNKNOWN,
            str(len(model["versions"])),
            *(_number(model["snapshot_sequence"][service]) for service in ("metrics", "alerting", "retrain")),
        ]
        for model in found
    ]
    columns = ["model", "state", "champion", "versions", "snapshot", "judged", "decided"]
    output.show(output.table(f"Models ({len(found)})", columns, rows))


def jobs(connection: Connection, *, model: str | None, status: str | None, most: int, as_json: bool) -> None:
    """Retraining jobs, newest first."""
    asked = {"model": model, "status": status, "limit": min(most, PAGE)}
    found = list(pages(connection, "/api/v1/mlops/retrain/jobs", "jobs", asked, most))
    if as_json:
        output.answer({"jobs": found})
        return
    rows = [
        [
            job["job_id"],
            job["model"],
            job["status"],
            moment(datetime.fromisoformat(job["as_of"])),
            ", ".join(job["triggers"]),
            job["run"]["model_version"] or UNKNOWN,
            job["aftermath"]["verdict"] if job["aftermath"] else UNKNOWN,
        ]
        for job in found
    ]
    columns = ["job", "model", "status", "as of", "triggers", "new version", "verdict"]
    output.show(output.table(f"Jobs ({len(found)})", columns, rows))


def _parts(system: dict[str, Any]) -> list[list[str]]:
    services = [[name, _works(said["ready"]), said["detail"]] for name, said in system["services"].items()]
    others = [[name, _works(said["ok"]), said["detail"]] for name, said in system["dependencies"].items()]
    return services + others


def _intake(system: dict[str, Any]) -> list[list[str]]:
    rows = []
    for service in sorted({lag["service"] for lag in system["consumer_lag"]} | set(system["outbox"])):
        places = [lag for lag in system["consumer_lag"] if lag["service"] == service]
        known = [lag for lag in places if lag["lag"] is not None]
        worst = max(known, key=lambda lag: lag["lag"], default=None)
        furthest = (
            f"{worst['topic']}/{worst['partition']}: {worst['lag']:,}" if worst and worst["lag"] else UNKNOWN
        )
        behind = f"{sum(lag['lag'] for lag in known):,}" if known else "unknown"
        rows.append([service, behind, furthest, _number(system["outbox"].get(service, {}).get("unsent"))])
    return rows


def _clock(clock: dict[str, Any]) -> str:
    last = moment(datetime.fromisoformat(clock["last_as_of"])) if clock["last_as_of"] else "none yet"
    said = f"Clock: {clock['clock']}, a snapshot every {clock['interval_seconds']:,} s, the last one of {last}"
    if clock["held_by_topic"] is None:
        return said
    reached = moment(datetime.fromisoformat(clock["held_at"])) if clock["held_at"] else "nothing yet"
    return f"{said}; held by {clock['held_by_topic']}/{clock['held_by_partition']}, which has reached {reached}"


def _works(works: bool | None) -> str:
    return {True: "[green]yes[/]", False: "[bold red]no[/]", None: "unknown"}[works]


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"
