"""The short form of the campaigns: what a change must pass. Longer ones: ``make simulate``, docs/guarantees.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import COMPACT_SEED

ROOT = Path(__file__).parents[2]
WORLDS = 96
"""Twelve histories: models of every kind on both clocks."""
ONE_CRASH_POINT_IN = 7
"""Of a world's, in the short form; all of them with ``make simulate SEEDS=16-16 ARGS=--every-crash-point``."""
LONGEST_SECONDS = 1_500
"""For a machine that is busy with other things; a free one with two processors needs about a minute."""
pytestmark = pytest.mark.timeout(LONGEST_SECONDS)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a campaign as a person does, in processes of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@pytest.mark.slow
def test_worlds_keep_every_promise(postgres_server: str) -> None:
    ran = simulate("--seeds", str(WORLDS), "--dsn", postgres_server)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{WORLDS} worlds" in ran.stdout


@pytest.mark.slow
def test_a_crash_before_any_effect_changes_nothing(postgres_server: str) -> None:
    seed = f"{COMPACT_SEED}-{COMPACT_SEED}"
    ran = simulate(
        "--seeds", seed, "--every-crash-point", "--one-in", f"{ONE_CRASH_POINT_IN}", "--dsn", postgres_server
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "crash)" in ran.stdout


def test_a_seed_is_the_same_world_every_time(postgres_server: str) -> None:
    first, second = (simulate("--seeds", "4-4", "--show", "--dsn", postgres_server) for _ in range(2))
    for ran in (first, second):
        assert ran.returncode == 0, ran.stdout[-2_000:] + ran.stderr
    assert first.stdout == second.stdout
    assert "FAULT" in first.stdout
