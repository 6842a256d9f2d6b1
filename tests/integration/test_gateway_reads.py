"""What the gateway answers about a world that the real services' handlers made."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from shared.contracts.base import sha256_of
from shared.database import connect_pool
from shared.topics import MODEL_VERSIONS
from tests.gateway_world import (
    A_DAY,
    ARTIFACT,
    DAY,
    DAYS,
    FIRST_DAY,
    FLIGHTS,
    GOOD_DAYS,
    NEWBORN,
    POLICY,
    QUIET,
    SHADOW,
    STRANGE,
    World,
    version,
)

MONITORING = "/api/v1/mlops/monitoring"
TREND = f"{MONITORING}/trend"
RETRAIN_POLICY = "/api/v1/mlops/retrain/policy"
JOBS = "/api/v1/mlops/retrain/jobs"
REQUESTS = "/api/v1/mlops/retrain/requests"
LAST = FIRST_DAY + DAYS * DAY


async def ask(client: httpx.AsyncClient, path: str, expected_status: int = 200, **parameters: Any) -> Any:
    answer = await client.get(path, params=parameters)
    assert answer.status_code == expected_status, answer.text
    return answer.json()


async def test_the_champion_over_the_policys_window_is_meant_by_default(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, MONITORING, model=FLIGHTS)
    assert (found["version"], found["segment"], found["window"]) == ("v1", None, "1d")
    assert (found["snapshot_sequence"], moment(found["as_of"])) == (DAYS, LAST)
    assert found["champion"]["artifact"] == ARTIFACT.known()
    assert found["policy_sha256"] == POLICY.sha256()
    metrics = found["metrics"]
    assert (metrics["evaluated_predictions"], metrics["accuracy"]) == (A_DAY, 0.0)
    assert math.isclose(metrics["brier_score"], 0.81, abs_tol=1e-9)
    assert sum(row["count"] for row in metrics["reliability"]) == A_DAY
    assert found["thresholds"]["accuracy_below"] == 0.55
    assert found["thresholds"]["min_evaluated"] == 5
    explicit = await ask(reading, MONITORING, model=FLIGHTS, version="v1", window="1d")
    assert explicit == found


async def test_alerts_stand_with_streak_level_and_action(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, MONITORING, model=FLIGHTS)
    alerts = {alert["alert_id"]: alert for alert in found["alerts"]}
    assert set(alerts) == {"accuracy_breach", "brier_breach"}
    accuracy = alerts["accuracy_breach"]
    assert accuracy["breach_streak"] == DAYS - GOOD_DAYS
    assert (accuracy["severity"], accuracy["escalation_level"]) == ("high", "incident")
    assert accuracy["recommended_action"] == "open_incident"
    assert (accuracy["value"], accuracy["threshold"]) == (0.0, 0.55)
    assert accuracy["snapshot_id"] == found["snapshot_id"]
    assert moment(accuracy["opened_as_of"]) == FIRST_DAY + (GOOD_DAYS + 1) * DAY
    assert found["escalation"] == {
        "state": "incident",
        "incident_alerts": 2,
        "watch_alerts": 0,
        "total_alerts": 2,
    }
    assert found["judged"] == {"snapshot_sequence": DAYS, "as_of": found["as_of"]}
    assert set(found["evaluations"]) == {"accuracy_breach", "brier_breach", "data_stale", "pipeline_stale"}


@pytest.mark.parametrize(
    ("asked", "evaluated", "accuracy"),
    [
        ({"window": "all"}, DAYS * A_DAY, 0.5),
        ({"window": "7d"}, 7 * A_DAY, 3 / 7),
        ({"version": "all"}, A_DAY, 0.0),
        ({"version": "all", "window": "30d"}, DAYS * A_DAY, 0.5),
        ({"segment": "carrier:AA"}, 7, 0.0),
        ({"segment": "carrier:other", "window": "all"}, 6 * DAYS, 0.5),
        ({"version": "v2", "window": "all"}, 0, None),
        ({"window": "1h"}, 0, None),
        ({"version": SHADOW, "window": "all"}, 0, None),
    ],
)
async def test_other_figures_on_request(
    reading: httpx.AsyncClient, asked: dict[str, str], evaluated: int, accuracy: float | None
) -> None:
    found = await ask(reading, MONITORING, model=FLIGHTS, **asked)
    assert {name: found[name] for name in asked} == asked
    assert found["metrics"]["evaluated_predictions"] == evaluated
    assert found["metrics"]["accuracy"] == accuracy
    assert found["escalation"]["state"] == "incident"


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"model": "flihgts"}, "unknown-model", "GET /api/v1/models"),
        ({"model": FLIGHTS, "version": "v3"}, "unknown-version", "'v3'"),
        ({"model": NEWBORN, "version": "2"}, "unknown-version", "'2'"),
        ({"model": FLIGHTS, "segment": "carrier:ZZ"}, "unknown-segment", "carrier:AA, carrier:UA, carrier:other"),
        ({"model": FLIGHTS, "segment": "airport:JFK"}, "unknown-segment", "carrier:AA"),
        ({"model": QUIET, "segment": "carrier:AA"}, "unknown-segment", "none"),
    ],
)
async def test_what_is_not_known_is_said(
    reading: httpx.AsyncClient, asked: dict[str, str], kind: str, said: str
) -> None:
    problem = await ask(reading, MONITORING, 404, **asked)
    assert problem["type"].endswith(f":{kind}")
    assert said in problem["detail"]
    assert problem["check"]


@pytest.mark.parametrize("path", [MONITORING, TREND, RETRAIN_POLICY, JOBS, "/api/v1/mlops/policies"])
async def test_every_question_about_an_unknown_model_is_a_404(reading: httpx.AsyncClient, path: str) -> None:
    assert (await ask(reading, path, 404, model="flihgts"))["type"].endswith(":unknown-model")


async def test_a_model_that_was_never_evaluated_is_answered_with_nulls(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, MONITORING, model=NEWBORN)
    assert set(found["metrics"]) == set((await ask(reading, MONITORING, model=FLIGHTS))["metrics"])
    assert {name for name, value in found["metrics"].items() if value is not None} == {
        "reliability",
        "class_recall",
    }
    assert (found["metrics"]["reliability"], found["metrics"]["class_recall"]) == ([], [])
    for name in ("version", "snapshot_id", "snapshot_sequence", "as_of", "champion", "judged", "policy_sha256"):
        assert found[name] is None, name
    assert found["window"] == "7d"
    assert found["thresholds"]["min_evaluated"] == 30
    assert (found["alerts"], found["escalation"]["state"]) == ([], "none")
    assert await ask(reading, TREND, model=NEWBORN) == {
        "model": NEWBORN,
        "days": 30,
        "as_of": None,
        "points": [],
        "next_cursor": None,
    }
    policy = await ask(reading, RETRAIN_POLICY, model=NEWBORN)
    assert (policy["should_retrain"], policy["action"], policy["reasons"]) == (None, "dry-run-noop", [])
    assert set(policy["metrics"]) == set(found["metrics"])
    assert await ask(reading, JOBS, model=NEWBORN) == {"jobs": [], "next_cursor": None}


async def test_a_model_of_which_nothing_was_predicted_has_counts_of_zero(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, MONITORING, model=QUIET)
    assert found["version"] == "all"
    assert (found["metrics"]["evaluated_predictions"], found["metrics"]["accuracy"]) == (0, None)


async def test_names_that_addresses_must_escape(reading: httpx.AsyncClient) -> None:
    assert (await ask(reading, MONITORING, model=STRANGE))["model"] == STRANGE


async def test_the_trend_is_newest_first_and_read_on_by_cursor(reading: httpx.AsyncClient) -> None:
    whole = await ask(reading, TREND, model=FLIGHTS)
    assert [point["snapshot_sequence"] for point in whole["points"]] == list(range(DAYS, 0, -1))
    assert moment(whole["as_of"]) == LAST
    assert [point["metrics"]["accuracy"] for point in whole["points"]] == [0.0] * 4 + [1.0] * 4
    newest = whole["points"][0]
    monitored = await ask(reading, MONITORING, model=FLIGHTS)
    reliability = monitored["metrics"].pop("reliability")
    assert reliability
    assert monitored["metrics"].pop("class_recall") == []
    assert newest["metrics"] == monitored["metrics"]
    assert (newest["version"], newest["window"], newest["snapshot_id"]) == ("v1", "1d", monitored["snapshot_id"])
    assert await pages(reading, TREND, "points", model=FLIGHTS, limit=3) == whole["points"]


@pytest.mark.parametrize(("days", "points"), [(1, 1), (2, 2), (DAYS, DAYS), (36_500, DAYS)])
async def test_days_count_back_from_the_newest_snapshot(
    reading: httpx.AsyncClient, days: int, points: int
) -> None:
    assert len((await ask(reading, TREND, model=FLIGHTS, days=days))["points"]) == points


async def test_a_trend_that_is_being_read_is_not_moved_by_a_new_snapshot(
    reading_own: httpx.AsyncClient, world_dsn: str
) -> None:
    asked = {"model": FLIGHTS, "days": 4, "limit": 2}
    first = await ask(reading_own, TREND, **asked)
    world = World(world_dsn, partition=1)
    await world.cut(LAST + DAY)
    second = await ask(reading_own, TREND, cursor=first["next_cursor"], **asked)
    sequences = [point["snapshot_sequence"] for point in first["points"] + second["points"]]
    assert sequences == [DAYS, DAYS - 1, DAYS - 2, DAYS - 3]
    assert second["next_cursor"] is None


async def test_a_dry_run_says_what_the_policy_said_and_does_nothing(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, RETRAIN_POLICY, model=FLIGHTS)
    assert (found["should_retrain"], found["action"], found["mode"]) == (True, "dry-run-noop", "enforce")
    assert set(found["fired"]) == {"accuracy_breach", "brier_breach", "new_labels"}
    assert {reason["trigger"] for reason in found["reasons"]} == set(found["fired"])
    assert found["metrics"] == (await ask(reading, MONITORING, model=FLIGHTS))["metrics"]
    assert found["thresholds"] == {
        "accuracy_below": 0.55,
        "brier_above": 0.25,
        "multiclass_brier_above": None,
        "mae_above": None,
        "new_labels_at_least": 40,
        "min_evaluated": 5,
    }
    assert found["execution"]["dry_run"] is True
    assert found["execution"]["executed"] is False
    assert found["execution"]["job_id"] is None
    assert found["snapshot_sequence"] == DAYS
    assert {alert["alert_id"] for alert in found["standing_alerts"]} == {"accuracy_breach", "brier_breach"}
    assert await ask(reading, RETRAIN_POLICY, model=FLIGHTS, dry_run="true") == found


async def test_jobs_carry_everything_that_they_were_made_on(reading: httpx.AsyncClient) -> None:
    (job,) = (await ask(reading, JOBS))["jobs"]
    assert (job["model"], job["status"]) == (FLIGHTS, "queued")
    assert job["artifact_snapshot"] == ARTIFACT.known()
    assert job["rollback_plan"]["action"] == "revert_to_previous_model_artifact"
    assert job["evidence"]["policy_sha256"] == POLICY.sha256()
    assert job["reasons"]
    assert job["run"] == {"trainer": None, "model_version": None, "message": None, "details": {}}
    assert (await ask(reading, JOBS, model=FLIGHTS, status="queued"))["jobs"] == [job]
    assert (await ask(reading, JOBS, status="failed"))["jobs"] == []
    assert (await ask(reading, JOBS, model=QUIET))["jobs"] == []


async def test_jobs_are_read_on_by_cursor_even_where_many_were_made_at_one_moment(
    reading_own: httpx.AsyncClient, world_dsn: str
) -> None:
    """Copies of the real job, in pairs of one moment."""
    connection = await asyncpg.connect(world_dsn)
    try:
        await connection.execute(
            """
            INSERT INTO retrain.decisions
            SELECT 'decision-' || n, model, 100 + n, asked_by, request_id, as_of, action, document
            FROM retrain.decisions, generate_series(1, 6) AS n
            WHERE decision_id = (SELECT decision_id FROM retrain.jobs);
            INSERT INTO retrain.jobs
            SELECT 'job-' || n, model, 'decision-' || n, 1, 'failed', as_of,
                   created_at + n / 2 * interval '1 minute', updated_at, NULL, false,
                   document || jsonb_build_object('job_id', 'job-' || n, 'status', 'failed')
            FROM retrain.jobs, generate_series(1, 6) AS n
            """
        )
    finally:
        await connection.close()
    whole = (await ask(reading_own, JOBS))["jobs"]
    assert [job["job_id"] for job in whole[:5]] == ["job-6", "job-5", "job-4", "job-3", "job-2"]
    assert len(whole) == 7
    for limit in (1, 2, 3):
        assert await pages(reading_own, JOBS, "jobs", limit=limit) == whole


async def test_policies_are_kept_newest_first(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, "/api/v1/mlops/policies", model=FLIGHTS)
    assert found["in_force"] == POLICY.known()
    assert found["policy_sha256"] == POLICY.sha256() == sha256_of(found["in_force"])
    assert [policy["policy"]["mode"] for policy in found["policies"]] == ["enforce", "observe"]
    paged = await pages(reading, "/api/v1/mlops/policies", "policies", model=FLIGHTS, limit=1)
    assert paged == found["policies"]
    unheard = await ask(reading, "/api/v1/mlops/policies", model=NEWBORN)
    assert (unheard["in_force"], unheard["policies"]) == (None, [])


async def test_models_by_name_with_how_far_each_service_has_come(
    reading_own: httpx.AsyncClient, world_dsn: str
) -> None:
    found = (await ask(reading_own, "/api/v1/models"))["models"]
    assert [model["model"] for model in found] == [FLIGHTS, NEWBORN, QUIET, STRANGE]
    flights, newborn, *_ = found
    assert (flights["champion"], flights["state"]) == ("v1", "incident")
    assert [known["version"] for known in flights["versions"]] == ["v1", "v2"]
    assert flights["unregistered_versions"] == [SHADOW]
    assert newborn["unregistered_versions"] == []
    assert flights["snapshot_sequence"] == {"metrics": DAYS, "alerting": DAYS, "retrain": DAYS}
    assert newborn["snapshot_sequence"] == {"metrics": None, "alerting": None, "retrain": None}
    assert newborn["state"] == "none"
    world = World(world_dsn, partition=1)
    await world.take(MODEL_VERSIONS, *(version(name, "1", "candidate") for name in ("Z", "a" * 128, "é", "😀")))
    names = [model["model"] for model in await pages(reading_own, "/api/v1/models", "models", limit=3)]
    assert names == sorted([FLIGHTS, NEWBORN, QUIET, STRANGE, "Z", "a" * 128, "é", "😀"])


async def test_status_knows_clock_outboxes_inboxes_and_artifacts(reading: httpx.AsyncClient) -> None:
    found = await ask(reading, "/api/v1/system/status")
    assert found["dependencies"]["postgresql"]["ok"] is True
    assert found["clock"]["clock"] == "wall"
    assert (found["clock"]["interval_seconds"], moment(found["clock"]["last_as_of"])) == (86_400, LAST)
    assert found["outbox"]["metrics"] == {"unsent": 0, "oldest_unsent_at": None}
    taken = {(lag["service"], lag["topic"]): lag["next_offset"] for lag in found["consumer_lag"]}
    assert taken["metrics", "predictions"] == DAYS * (A_DAY + 1)
    assert taken["metrics", "labels"] == DAYS * A_DAY
    artifacts = {known["model"]: known for known in found["artifacts"]}
    assert artifacts[FLIGHTS]["artifact"] == ARTIFACT.known()
    assert artifacts[QUIET] == {"model": QUIET, "version": None, "trained_through": None, "artifact": None}


async def test_the_gateways_role_reads_views_and_nothing_else(world_dsn: str) -> None:
    pool = await connect_pool(world_dsn, role="gateway", application_name="test", max_size=1)
    try:
        relations = await pool.fetch(
            """
            SELECT oid::regclass::text AS name, relname, relkind
            FROM pg_class WHERE relnamespace = ANY (ARRAY['metrics', 'alerting', 'retrain']::regnamespace[])
              AND relkind IN ('r', 'v', 'm', 'p', 'S')
            """
        )
        readable = {
            row["relname"]
            for row in relations
            if row["relkind"] != "S"
            and await pool.fetchval("SELECT has_table_privilege($1, 'SELECT')", row["name"])
        }
        assert readable == {row["relname"] for row in relations if row["relname"].startswith("published_")}
        for row in relations:
            if row["relkind"] != "S":
                writable = await pool.fetchval(
                    "SELECT has_table_privilege($1, 'INSERT, UPDATE, DELETE, TRUNCATE')", row["name"]
                )
                assert not writable, row["name"]
    finally:
        await pool.close()


async def pages(client: httpx.AsyncClient, path: str, items: str, **parameters: Any) -> list[Any]:
    """Everything, page after page; every page but the last is full."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = await ask(client, path, **parameters, **({"cursor": cursor} if cursor else {}))
        found += page[items]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
        assert len(page[items]) == parameters["limit"]


def moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    assert found.utcoffset() == timedelta(0)
    return found


@pytest.mark.parametrize("request_id", ["späte Flüge/ü 100%", "a?b#c", "\U0001d54f"])
async def test_a_request_of_any_name_is_pending_at_an_address_that_leads_back(
    reading: httpx.AsyncClient, request_id: str
) -> None:
    answer = await reading.get(f"{REQUESTS}/{quote(request_id, safe='')}", params={"model": QUIET})
    assert answer.status_code == 202
    assert answer.json()["request_id"] == request_id
    again = await reading.get(answer.headers["location"])
    assert (again.status_code, again.json()) == (202, answer.json())
