"""The job in Flink SQL, on both cores, with a checkpoint every five seconds."""

from __future__ import annotations

from pathlib import Path

import job
from pyflink.table import EnvironmentSettings, TableEnvironment

JARS = Path(__file__).with_name("target") / "jars"
STATEMENTS = Path(__file__).with_name("job.sql")


def build(told: job.Job) -> TableEnvironment:
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    settings = {
        "pipeline.jars": ";".join(jar.as_uri() for jar in sorted(JARS.glob("*.jar"))),
        "parallelism.default": "2",
        "execution.checkpointing.interval": "5 s",
        "execution.checkpointing.dir": (Path(told.state) / "checkpoints").as_uri(),
        # What Flink's guide to tuning tells of joins and aggregates in streams.
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "1 s",
        "table.exec.mini-batch.size": "5000",
    }
    for name, value in settings.items():
        tables.get_config().set(name, value)
    return tables


if __name__ == "__main__":
    told = job.arguments()
    tables = build(told)
    text = STATEMENTS.read_text(encoding="utf-8")
    for name, value in vars(told).items():
        text = text.replace("{" + name + "}", value)
    *definitions, insert = filter(None, map(str.strip, text.split(";")))
    for definition in definitions:
        tables.execute_sql(definition)
    tables.execute_sql(insert).wait()
