"""The page's files and the reads that only it needs, on a world made by the real handlers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway_world import DAYS, FLIGHTS, NEWBORN, QUIET, STRANGE

OVERVIEW = "/api/v1/overview"


async def get(reading: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await reading.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_overview_tells_standing_figures_and_thresholds(reading: httpx.AsyncClient) -> None:
    overview = await get(reading, OVERVIEW)
    by_name = {model["model"]: model for model in overview["models"]}
    assert set(by_name) == {FLIGHTS, QUIET, NEWBORN, STRANGE}
    flights = by_name[FLIGHTS]
    monitoring = await get(reading, "/api/v1/mlops/monitoring", model=FLIGHTS)
    assert overview["models"][0] == flights, "the worst comes first"
    assert flights["standing"] == flights["state"] == monitoring["escalation"]["state"] == "incident"
    assert flights["metrics"]["accuracy"] == monitoring["metrics"]["accuracy"]
    assert flights["thresholds"] == monitoring["thresholds"]
    assert flights["alerts"] == monitoring["alerts"]
    assert flights["longest_streak"] == max(alert["breach_streak"] for alert in monitoring["alerts"])
    assert flights["sparkline"] == [1.0] * 4 + [0.0] * 4
    assert flights["last_job"]["status"] == "queued"
    assert by_name[NEWBORN]["standing"] == "waiting"
    assert by_name[NEWBORN]["as_of"] is None
    assert by_name[NEWBORN]["metrics"]["accuracy"] is None


async def test_the_overview_counts_whatever_state_is_asked_for(reading: httpx.AsyncClient) -> None:
    everything = await get(reading, OVERVIEW)
    assert sum(everything["counts"].values()) == len(everything["models"]) == 4
    incidents = await get(reading, OVERVIEW, state="incident")
    assert [model["model"] for model in incidents["models"]] == [FLIGHTS]
    assert incidents["counts"] == everything["counts"]
    nothing = await get(reading, OVERVIEW, q="nothing of this name")
    assert nothing["models"] == []
    assert set(nothing["counts"].values()) == {0}


@pytest.mark.parametrize("text", ["FLÜGE/Ü 100%", "späte"])
async def test_the_overview_finds_any_text_as_it_stands(reading: httpx.AsyncClient, text: str) -> None:
    found = await get(reading, OVERVIEW, q=text)
    assert [model["model"] for model in found["models"]] == [STRANGE]


@pytest.mark.parametrize("sort", ["worst", "name", "accuracy", "brier", "freshness", "streak"])
async def test_the_overview_is_the_same_in_pages(reading: httpx.AsyncClient, sort: str) -> None:
    whole = [model["model"] for model in (await get(reading, OVERVIEW, sort=sort))["models"]]
    paged: list[str] = []
    cursor: dict[str, str] = {}
    for _ in whole:
        page = await get(reading, OVERVIEW, sort=sort, limit=1, **cursor)
        paged += [model["model"] for model in page["models"]]
        cursor = {"cursor": page["next_cursor"]}
    assert cursor == {"cursor": None}
    assert paged == whole
    if sort != "name":
        assert whole[0] == FLIGHTS


async def test_a_series_is_thinned_from_the_newest_on(reading: httpx.AsyncClient) -> None:
    whole = await get(reading, "/api/v1/mlops/monitoring/series", model=FLIGHTS)
    assert whole["every"] == 1
    assert [point["snapshot_sequence"] for point in whole["points"]] == list(range(1, DAYS + 1))
    thin = await get(reading, "/api/v1/mlops/monitoring/series", model=FLIGHTS, points=3)
    assert thin["every"] == 3
    assert [point["snapshot_sequence"] for point in thin["points"]] == [2, 5, 8]
    assert thin["points"][-1] == whole["points"][-1]
    recent = await get(reading, "/api/v1/mlops/monitoring/series", model=FLIGHTS, days=2)
    assert [point["snapshot_sequence"] for point in recent["points"]] == [7, 8]
    unborn = await get(reading, "/api/v1/mlops/monitoring/series", model=NEWBORN)
    assert (unborn["as_of"], unborn["every"], unborn["points"]) == (None, 1, [])


async def test_segments_agree_with_monitoring(reading: httpx.AsyncClient) -> None:
    answer = await get(reading, "/api/v1/mlops/monitoring/segments", model=FLIGHTS)
    assert [part["segment"] for part in answer["segments"]] == ["carrier:AA", "carrier:UA", "carrier:other"]
    for part in answer["segments"]:
        one = await get(reading, "/api/v1/mlops/monitoring", model=FLIGHTS, segment=part["segment"])
        assert part["metrics"] == one["metrics"]
    assert (await get(reading, "/api/v1/mlops/monitoring/segments", model=QUIET))["segments"] == []


@pytest.mark.parametrize(
    ("path", "items", "number"),
    [
        ("/api/v1/mlops/alerts/transitions", "transitions", "alert_sequence"),
        ("/api/v1/mlops/retrain/decisions", "decisions", "decision_sequence"),
    ],
)
async def test_histories_are_whole_and_newest_first(
    reading: httpx.AsyncClient, path: str, items: str, number: str
) -> None:
    seen: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = await get(reading, path, model=FLIGHTS, limit=2, **cursor)
        seen += [item[number] for item in page[items]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == list(range(len(seen), 0, -1))
    assert len(seen) > 2
    assert (await get(reading, path, model=NEWBORN))[items] == []


async def test_decisions_are_found_by_what_they_did(reading: httpx.AsyncClient) -> None:
    found = await get(reading, "/api/v1/mlops/retrain/decisions", model=FLIGHTS, action="queued-retrain")
    assert {decision["action"] for decision in found["decisions"]} == {"queued-retrain"}
    jobs = await get(reading, "/api/v1/mlops/retrain/jobs", model=FLIGHTS)
    assert {one["decision_id"] for one in found["decisions"]} == {job["decision_id"] for job in jobs["jobs"]}


@pytest.mark.parametrize(
    "path", ["monitoring/series", "monitoring/segments", "alerts/transitions", "retrain/decisions"]
)
async def test_an_unknown_model_is_a_404_with_what_to_check(reading: httpx.AsyncClient, path: str) -> None:
    answer = await reading.get(f"/api/v1/mlops/{path}", params={"model": "nobody"})
    assert answer.status_code == 404
    assert answer.json()["check"]


async def test_the_page_loads_nothing_from_elsewhere(reading: httpx.AsyncClient) -> None:
    page = await reading.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    loaded = [part.split('"')[1] for part in page.text.replace("href=", "src=").split("src=")[1:]]
    for address in loaded:
        assert address.startswith(("/", "#")), address
        if address.startswith("/page/"):
            asset = await reading.get(address)
            assert asset.status_code == 200, address
            assert asset.headers["x-content-type-options"] == "nosniff"
    assert "/page/app.js" in loaded
    assert "<style" not in page.text
    assert " style=" not in page.text


async def test_files_are_kept_by_browsers_until_they_change(reading: httpx.AsyncClient) -> None:
    first = await reading.get("/page/app.js")
    again = await reading.get("/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await reading.get("/page/app.js", headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "..%2fassets.py", "queries.sql"])
async def test_nothing_but_the_page_is_served(reading: httpx.AsyncClient, name: str) -> None:
    assert (await reading.get(f"/page/{name}")).status_code == 404


async def test_the_charting_library_is_the_one_it_says(reading: httpx.AsyncClient) -> None:
    library = (await reading.get("/page/uplot.js")).text
    assert library.startswith("/*! https://github.com/leeoniya/uPlot (v1.6.")
    assert ".u-over" in (await reading.get("/page/uplot.css")).text
