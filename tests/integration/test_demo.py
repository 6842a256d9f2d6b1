"""The demo itself, as a person starts it: the real stack, the real flights, processes killed on the way."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from examples.flights import data, model, stream, thresholds
from tests import parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DAYS = 56
"""Long enough for the first retraining, on the data as they are, and some days of the version it makes."""
SEED = 2013
RETRAINED_ON_DAY = 53


@dataclass(frozen=True)
class Told:
    """What a run of the demo left behind."""

    exit_code: int
    output: str
    folder: Path

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Every figure that the API showed at the end."""
        document: dict[str, dict[str, Any]] = json.loads((self.folder / "figures.json").read_bytes())
        return document


def command(*options: str) -> list[str]:
    demo = ["-m", "examples.flights", "--seed", str(SEED), "--broker", parts.broker_choice()]
    return [sys.executable, *demo, *options]


def tell(folder: Path, *options: str) -> Told:
    done = subprocess.run(
        command("--exit", "--data-dir", str(folder), *options), capture_output=True, text=True, check=False
    )
    return Told(done.returncode, done.stdout + done.stderr, folder)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with parts.scratch_folder() as scratch:
        yield scratch


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Told:
    return tell(folder / "undisturbed", "--days", str(DAYS))


@dataclass(frozen=True)
class Foretold:
    """What the closed loop comes to without Trueward: each version's first day, predictions, evaluations."""

    days: list[str]
    predictions: list[int]
    evaluated: list[int]
    brier_scores: list[float]


def foretell(days: int) -> Foretold:
    """Play the closed loop through in memory, by the policy's own rules."""
    flights, begin = data.load(), stream.midnight(stream.FIRST_DAY)
    chosen = thresholds.choose(flights, begin, SEED)
    versions = [(begin, model.train(flights, begin, SEED).classifier)]
    probability, by = np.full(len(flights), np.nan), np.full(len(flights), -1)
    for day in stream.days(flights, days):
        probability[day.departing] = model.probabilities(versions[-1][1], flights.features[day.departing])
        by[day.departing] = len(versions) - 1
        window = flights.landed_within(day.end - timedelta(days=7), day.end)
        judged = window[by[window] == len(versions) - 1]
        if len(judged) >= chosen.min_evaluated and breached(flights, probability, judged, chosen):
            versions.append((day.end, model.train(flights, day.end, SEED).classifier))
    landed = flights.landed_within(begin, begin + timedelta(days=days))
    evaluated = [landed[by[landed] == number] for number in range(len(versions))]
    return Foretold(
        days=[f"{since:%Y-%m-%d}" for since, _ in versions],
        predictions=[int((by == number).sum()) for number in range(len(versions))],
        evaluated=[len(rows) for rows in evaluated],
        brier_scores=[float(np.mean((probability[rows] - flights.late[rows]) ** 2)) for rows in evaluated],
    )


def breached(
    flights: data.Flights, probability: data.Matrix, rows: np.ndarray, chosen: thresholds.Thresholds
) -> bool:
    late = flights.late[rows]
    accuracy = np.mean((probability[rows] >= 0.5) == late)
    brier_score = np.mean((probability[rows] - late) ** 2)
    return bool(accuracy < chosen.accuracy_below or brier_score > chosen.brier_above)


def test_the_story_is_the_one_that_the_data_and_the_policy_bring(undisturbed: Told) -> None:
    assert undisturbed.exit_code == 0, undisturbed.output
    foretold = foretell(DAYS)
    shown = {
        name.removesuffix(" all"): each for name, each in undisturbed.figures.items() if name.endswith(" all")
    }
    versions = sorted(name for name in shown if name.startswith("trained-"))
    assert len(foretold.days) == 2
    assert [name.removeprefix("trained-")[:10] for name in versions] == foretold.days
    assert [shown[name]["predictions"] for name in versions] == foretold.predictions
    assert [shown[name]["evaluated_predictions"] for name in versions] == foretold.evaluated
    assert [shown[name]["brier_score"] for name in versions] == pytest.approx(foretold.brier_scores, abs=1e-9)


def test_a_person_sees_what_happened(undisturbed: Told) -> None:
    lines = undisturbed.output.splitlines()
    assert any(re.match(r"2013-04-23  alert     brier_breach opened", line) for line in lines)
    assert any(re.match(r"2013-04-23  state     none -> watch", line) for line in lines)
    jobs = [line for line in lines if re.match(r"2013-04-23  retrain   job \S+: Brier score", line)]
    assert len(jobs) == 1
    assert any("trained-2013-03-01 -> trained-2013-04-23-" in line for line in lines)
    assert any(line.startswith("States that never occurred: ") and "incident" in line for line in lines)
    assert sum("verified: " in line for line in lines) == 1
    assert "WRONG" not in undisturbed.output
    assert "refused" not in undisturbed.output


def test_processes_that_are_killed_on_the_way_change_no_number(undisturbed: Told, folder: Path) -> None:
    # The last two die while the records of the day are published whose snapshot brings the retraining.
    kills = [
        "metrics@12",
        "gateway@24",
        "alerting@36",
        f"retrain@{RETRAINED_ON_DAY}",
        f"trainer@{RETRAINED_ON_DAY}",
    ]
    options = [argument for each in kills for argument in ("--kill", each)]
    killed = tell(folder / "killed", "--days", str(DAYS), *options)
    assert killed.exit_code == 0, killed.output
    assert killed.output.count("kill -9") == len(kills)
    assert killed.figures == undisturbed.figures
    assert events(killed) == events(undisturbed)


def events(told: Told) -> list[str]:
    """The lines of the story, by day, but for those about processes."""
    return [line for line in told.output.splitlines() if re.match(r"2013-\d\d-\d\d  ", line)]


@contextmanager
def staying(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "staying.log").open("w") as log:
        demo = subprocess.Popen(
            command("--days", "2", *options), stdout=log, stderr=log, text=True, start_new_session=True
        )
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.send_signal(signal.SIGTERM)
            demo.wait(60)


def test_the_stack_stays_up_until_ctrl_c_and_leaves_nothing_behind(folder: Path) -> None:
    with staying(folder) as demo:
        output = (folder / "staying.log").read_text
        deadline = time.monotonic() + 300
        while "They stay up until Ctrl-C." not in output():
            assert demo.poll() is None, output()
            assert time.monotonic() < deadline, output()
            time.sleep(0.1)
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) >= 7  # up, broker, database, four services, trainer (some with children of their own)
        addresses = re.findall(r"^  (http://\S+)$", output(), re.MULTILINE)
        assert len(addresses) >= 5
        for address in addresses:
            assert httpx.get(address, timeout=30).status_code == httpx.codes.OK, address
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_a_mistake_is_told_in_one_line(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "something").touch()
    told = tell(folder / "full")
    assert told.exit_code == 1
    assert "is not empty" in told.output
    assert "Traceback" not in told.output


def test_a_demo_that_is_killed_leaves_nothing_running(folder: Path) -> None:
    with staying(folder, "--data-dir", str(folder / "killed outright")) as demo:
        deadline = time.monotonic() + 300
        while len(children := psutil.Process(demo.pid).children(recursive=True)) < 4:
            assert demo.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        demo.kill()
        demo.wait(60)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []
