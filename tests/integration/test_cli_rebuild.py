"""``trueward rebuild metrics`` as a process, on a database that the real handlers have filled."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import psycopg

from tests.gateway_world import FLIGHTS

Run = Callable[..., subprocess.CompletedProcess[str]]
EVERYTHING = (
    "SELECT b::text FROM metrics.bucket AS b UNION ALL SELECT l::text FROM metrics.label_bucket AS l ORDER BY 1"
)


def rows(dsn: str) -> list[tuple[str, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(EVERYTHING).fetchall()


def damage(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE metrics.bucket SET correct = correct + 1 WHERE width = 86400 AND evaluated > 0")


def test_a_healthy_database_is_left_as_it_is(run: Run, world_dsn: str) -> None:
    before = rows(world_dsn)
    for options in ((), ("--check",)):
        done = run("rebuild", "metrics", "--postgres", world_dsn, *options)
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.splitlines()
        assert said
        assert all(line.endswith("raw predictions; nothing differs") for line in said)
    assert rows(world_dsn) == before


def test_damage_is_reported_by_a_check_and_mended_without(run: Run, world_dsn: str) -> None:
    before = rows(world_dsn)
    damage(world_dsn)
    damaged = rows(world_dsn)
    checked = run("rebuild", "metrics", "--postgres", world_dsn, "--check", "--json")
    assert checked.returncode == 1
    assert rows(world_dsn) == damaged != before
    document = json.loads(checked.stdout)
    flights = next(one for one in document["models"] if one["model"] == FLIGHTS)
    assert document["check"] is True
    assert flights["differing"] > 0
    assert flights["raw_predictions"] > 0
    assert flights["differences"][0]["what"] == "bucket"
    assert flights["differences"][0]["figures"] == ["correct"]
    assert flights["differences"][0]["start"].endswith("00:00:00Z")
    mended = run("rebuild", "metrics", "--postgres", world_dsn)
    assert mended.returncode == 0
    assert f"{FLIGHTS}: " in mended.stdout
    assert "differed and are mended" in mended.stdout
    assert "of 86400 s from" in mended.stdout
    assert sorted(rows(world_dsn)) == sorted(before)
    assert run("rebuild", "metrics", "--postgres", world_dsn, "--check").returncode == 0


def test_one_model_alone(run: Run, world_dsn: str) -> None:
    damage(world_dsn)
    done = run("rebuild", "metrics", "--postgres", world_dsn, "--model", FLIGHTS, "--json")
    assert (done.returncode, [one["model"] for one in json.loads(done.stdout)["models"]]) == (0, [FLIGHTS])


def test_what_cannot_be_done_is_one_line(run: Run, world_dsn: str) -> None:
    done = run("rebuild", "metrics", "--postgres", world_dsn, "--model", "nobody")
    assert done.returncode == 2
    assert done.stderr.startswith("trueward: no model 'nobody' is known here; known are ")
    away = run("rebuild", "metrics", "--postgres", "postgresql://postgres@127.0.0.1:1/trueward")
    assert away.returncode == 1
    assert away.stderr.startswith("trueward: PostgreSQL does not answer as needed")
    assert away.stderr.count("\n") == 1
