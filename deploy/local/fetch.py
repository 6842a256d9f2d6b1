"""Fetch Kafka's own jars with Maven, at install time: ``python -m deploy.local.fetch``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local import apache_kafka

_STAMP = "pom.xml.fetched"


def fetch(folder: Path = apache_kafka.PARTS) -> str:
    """Copy the jars that ``folder/pom.xml`` names to ``folder/target/jars``; returns one line on how it went.

    Never an error: without Java, Maven or its repository the stack runs on the fallback broker.
    """
    java, maven = apache_kafka.find_java(), shutil.which("mvn")
    if isinstance(java, apache_kafka.Missing):
        return _fallback(java.why)
    if maven is None:
        return _fallback("Maven (mvn) is missing")
    pom, target = folder / "pom.xml", folder / "target"
    stamp = target / _STAMP
    if not stamp.exists() or stamp.read_bytes() != pom.read_bytes():
        shutil.rmtree(target, ignore_errors=True)
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's own mvn
        if done.returncode != 0:
            words = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
            return _fallback(f"Maven could not fetch Kafka: {words[0][:200]}")
        stamp.write_bytes(pom.read_bytes())
    found = apache_kafka.find(target / "jars")
    if isinstance(found, apache_kafka.Missing):
        return _fallback(found.why)
    return f"broker: Apache Kafka {found.version} will be used, on Java {found.java_version}"


def _fallback(why: str) -> str:
    return f"broker: the fallback from PyPI (in memory only) will be used, because {why}"


if __name__ == "__main__":
    sys.stdout.write(fetch() + "\n")
