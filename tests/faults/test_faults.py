"""The short form of the campaign: a handful of different faults, in the ordinary test run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.local import apache_kafka
from deploy.local.processes import ManagedProcess, ProcessSpec
from tests.faults.world import until

ROOT = Path(__file__).parents[2]
SEED = 7
DEADLINE_SECONDS = 800.0


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE_SECONDS + 60)
async def test_nothing_is_lost_and_nothing_counted_twice_whatever_happens(tmp_path: Path) -> None:
    """The very program that ``make faults ARGS=--short SEED=7`` runs; it dies with this process."""
    found = apache_kafka.find()
    if isinstance(found, apache_kafka.Missing):
        pytest.skip(f"three brokers need Apache Kafka itself, and {found.why}")
    command = (sys.executable, "-m", "tests.faults", "--short", "--seed", str(SEED))
    campaign = ManagedProcess(ProcessSpec(name="campaign", argv=command, cwd=ROOT), tmp_path / "campaign.log")
    campaign.start()

    async def ended() -> int | None:
        return campaign.exit_code

    try:
        code = await until(ended, lambda code: code is not None, "the campaign's end", seconds=DEADLINE_SECONDS)
    finally:
        campaign.stop()
    assert code == 0, campaign.log_path.read_text(encoding="utf-8")
