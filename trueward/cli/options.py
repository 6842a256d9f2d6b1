"""Options that several commands share. This module is loaded for --help: it imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA_DIR = Path(".data")


class ConsumerName(StrEnum):
    """The services that consume topics."""

    metrics = "metrics"
    alerting = "alerting"
    retrain = "retrain"


DataDir = Annotated[
    Path,
    typer.Option(
        envvar="TRUEWARD_DATA_DIR", help="Data directory of `trueward up`, whose endpoints are used by default."
    ),
]
KafkaServers = Annotated[
    str | None,
    typer.Option("--kafka", envvar="TRUEWARD_KAFKA_BOOTSTRAP_SERVERS", help="Kafka's bootstrap servers."),
]
PostgresDsn = Annotated[
    str | None, typer.Option("--postgres", envvar="TRUEWARD_POSTGRES_DSN", help="PostgreSQL's address.")
]
GatewayUrl = Annotated[
    str | None, typer.Option("--http", envvar="TRUEWARD_HTTP_URL", help="The gateway's base URL.")
]
TopicPrefix = Annotated[
    str | None,
    typer.Option(envvar="TRUEWARD_TOPIC_PREFIX", help="What every topic's name begins with.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
Source = Annotated[
    Path, typer.Argument(metavar="FILE.jsonl|-", help="One JSON event a line; - reads standard input.")
]
