"""``trueward status``, ``models`` and ``jobs list``: what the gateway says, for people or as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from rich.markup import escape

from trueward.cli import output
from trueward.cli.connection import Connection
from trueward.cli.http import ask, pages
from trueward.cli.output import moment
from trueward.client.types import AlertThresholds, Figures, OverviewModel

PAGE = 200
UNKNOWN = "-"
LEAST_IN_PLACES, MOST_IN_PLACES = 0.001, 1e6
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def status(connection: Connection, *, as_json: bool) -> None:
    """Services, dependencies, clock, lag, and every model at a glance, the worst first."""
    system = ask(connection, "/api/v1/system/status")
    overview = list(pages(connection, "/api/v1/overview", "models", {"limit": PAGE, "sort": "worst"}, PAGE))
    if as_json:
        output.answer({**system, "models": overview})
        return
    output.say(f"Trueward at {connection.url()}: {system['status']}")
    output.show(output.table("Parts", ["part", "works", "says"], _parts(system)))
    output.show(
        output.table("Intake", ["service", "records behind", "furthest behind", "unsent events"], _intake(system))
    )
    if system["clock"]:
        output.say(_clock(system["clock"]))
    columns = ["model", "state", "accuracy", "Brier score", "newest data", "longest streak", "last job"]
    output.show(output.table(_title(system, overview), columns, [standing(model) for model in overview]))


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


def standing(model: OverviewModel) -> list[str]:
    """A model's row: its figures beside what they are held against. The sign says what a colour underlines."""
    metrics, rules = model["metrics"], model["thresholds"]
    job = model["last_job"]
    return [
        escape(model["model"]),
        f"[{output.STATE_STYLES[model['standing']]}]{model['standing']}[/]",
        *_quality(metrics, rules),
        _age(metrics["data_freshness_seconds"], rules and rules["data_freshness_above_seconds"]),
        str(model["longest_streak"]) if model["longest_streak"] else UNKNOWN,
        f"{job['status']} {moment(datetime.fromisoformat(job['as_of']))} ({', '.join(job['triggers'])})"
        if job
        else UNKNOWN,
    ]


def _quality(metrics: Figures, rules: AlertThresholds | None) -> tuple[str, str]:
    """What is judged of a model, and beside it the second figure; a regression model's say what they are."""
    if metrics.get("kind") == "regression":
        mae = _against(metrics["mae"], _mae_above(metrics, rules), bad=">", good="\u2264")
        return f"MAE {mae}", f"RMSE {_against(metrics['rmse'], None, bad='>', good='')}"
    accuracy = _against(metrics["accuracy"], rules and rules["accuracy_below"], bad="<", good="\u2265")
    brier_above = (
        rules and rules["multiclass_brier_above" if metrics.get("kind") == "multiclass" else "brier_above"]
    )
    return accuracy, _against(metrics["brier_score"], brier_above, bad=">", good="\u2264")


def _mae_above(metrics: Figures, rules: AlertThresholds | None) -> float | None:
    """What a MAE is held against: a share of the policy's baseline, or of that before the window."""
    if rules is None or rules["mae_above_ratio"] is None:
        return None
    baseline = metrics["baseline_mae"] if rules["mae_baseline"] is None else rules["mae_baseline"]
    return None if baseline is None else rules["mae_above_ratio"] * baseline


def _against(value: float | None, threshold: float | None, *, bad: Literal["<", ">"], good: str) -> str:
    """A figure against its threshold, such as "0.4200 < 0.55"; a figure alone where there is none."""
    if value is None:
        return UNKNOWN
    if threshold is None:
        return _figure(value)
    in_breach = value < threshold if bad == "<" else value > threshold
    said = f"{_figure(value)} {bad if in_breach else good} {threshold:g}"
    return f"[bold red]{said}[/]" if in_breach else said


def _figure(value: float) -> str:
    """Four places, or where that would be long or say nothing, four digits."""
    return f"{value:.4f}" if value == 0 or LEAST_IN_PLACES <= abs(value) < MOST_IN_PLACES else f"{value:.4g}"


def _age(seconds: float | None, above: int | None) -> str:
    if seconds is None:
        return UNKNOWN
    size, unit = next((size, unit) for size, unit in UNITS if abs(seconds) >= size or size == 1)
    said = f"{seconds / size:.1f} {unit}" if size > 1 else f"{seconds:.0f} {unit}"
    return f"[bold red]{said}, stale[/]" if above is not None and seconds > above else said


def _title(system: dict[str, Any], overview: list[Any]) -> str:
    known = len(system["artifacts"])
    return (
        f"Models ({len(overview)} of {known}, the worst first)" if len(overview) < known else f"Models ({known})"
    )


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
