"""Every benchmark on little data: for errors, not for speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import http_load, peer, results
from deploy.local import apache_kafka

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(
        isinstance(apache_kafka.find(), apache_kafka.Missing), reason="benchmarks need Kafka itself"
    ),
]


def expected_names() -> set[str]:
    """All, but for what compares with something that is not installed here."""
    names = {name for name in results.NAMES if name.partition("drain_vs_")[2] not in uninstalled_peers()}
    if shutil.which("wrk") is None:
        return names - set(http_load.NAMES)
    return names if (http_load.TOOLS_BIN / "granian").exists() else names - {http_load.CONSTANT}


def uninstalled_peers() -> set[str]:
    return {folder.name for folder in peer.FOLDER.glob("*/") if not peer.is_installed(folder.name)}


def test_everything_is_measured_without_an_error(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--results", str(file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert set(found) == expected_names(), done.stdout
    for name, figure in found.items():
        assert set(figure) == {"value", "target", "runs", "unit"}, name
        assert figure["value"] > 0, name
        assert figure["runs"], name
