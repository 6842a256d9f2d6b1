"""The API does what it says of itself: schemathesis, with every check, against the real gateway.

Two checks find nothing to do: ignored_auth and object_level_authorization, since the API has no users. One is set
beyond reach: max_response_time.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sysconfig
import zlib
from pathlib import Path

import pytest

from deploy.local.broker import Broker
from shared.broker import create_missing_topics
from shared.settings import Settings
from tests.fuzz.turns import SECONDS, SEED
from tests.integration.conftest import Start, free_port

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
HERE = Path(__file__).parent
EXAMPLES = 15
EXAMPLES_OF_A_CAMPAIGN = 1_000
LEAST_OPERATIONS = 16


@pytest.mark.slow
def test_the_api_does_what_it_says(
    start: Start, world_dsn: str, kafka_broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    environment = {
        **kafka_broker.service_environment(),
        "TRUEWARD_TOPIC_PREFIX": topic_prefix,
        "TRUEWARD_POSTGRES_DSN": world_dsn,
        "TRUEWARD_DECISION_WAIT_SECONDS": "0",
    }
    settings = Settings(kafka_bootstrap_servers=kafka_broker.bootstrap_servers, topic_prefix=topic_prefix)
    asyncio.run(create_missing_topics(settings))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = start("service", "gateway", "--http-port", str(port), **environment)
    gateway.wait_until_answers(url)
    report = tmp_path / "report.json"
    tested = subprocess.run(
        [
            str(SCHEMATHESIS),
            "--no-color",
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            f"{url}/openapi.json",
            "--checks=all",
            "--mode=all",
            "--continue-on-failure",
            *thoroughness(),
            "--request-timeout=120",
            "--report=json",
            f"--report-json-path={report}",
        ],
        capture_output=True,
        text=True,
        timeout=280 + SECONDS,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
    )
    assert tested.returncode == 0, tested.stdout + gateway.said()
    check_coverage(report)
    assert "Traceback" not in gateway.said()


def thoroughness() -> list[str]:
    """A few examples, the same every time; in a campaign as many as fit into its time."""
    if SECONDS:
        return [
            f"--max-examples={EXAMPLES_OF_A_CAMPAIGN}",
            f"--max-time={SECONDS:.0f}",
            f"--seed={zlib.crc32(SEED.encode())}",
        ]
    return [f"--max-examples={EXAMPLES}", "--generation-deterministic"]


def check_coverage(report: Path) -> None:
    """Every operation was asked, in every phase that generates, and every one accepted something."""
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["complete"]
    assert document["operations"]["tested"] == document["operations"]["total"] >= LEAST_OPERATIONS
    phases = {name: phase["status"] for name, phase in document["phases"].items()}
    assert phases == {"examples": "success", "coverage": "success", "fuzzing": "success", "stateful": "success"}
    accepted = {
        name: sum(phase["accepted"] for phase in rates.values()) for name, rates in document["valid_rates"].items()
    }
    assert len(accepted) == document["operations"]["total"]
    assert all(accepted.values()), accepted
