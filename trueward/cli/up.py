"""``trueward up``: what it takes. What it does is in ``deploy.local.up``."""

# ruff: noqa: PLC0415
# Loaded when it runs: --help must not wait for clients of Kafka and PostgreSQL.

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trueward.cli.options import DEFAULT_DATA_DIR

LAST_PORT = 65_535


class Clock(StrEnum):
    """What time snapshots follow."""

    wall = "wall"
    event = "event"


class BrokerKind(StrEnum):
    """Which broker to run."""

    auto = "auto"
    kafka = "kafka"
    tansu = "tansu"


def up(
    *,
    clock: Annotated[Clock, typer.Option(help="wall: real time. event: the events' own, to replay history.")] = (
        Clock.wall
    ),
    snapshot_interval: Annotated[str, typer.Option(help="Time between snapshots: 60s, 5m, 1h, 1d.")] = "60s",
    http_port: Annotated[int, typer.Option(min=0, max=LAST_PORT, help="The gateway's; 0: a free one.")] = 8080,
    kafka_port: Annotated[int, typer.Option(min=0, max=LAST_PORT, help="The broker's; 0: a free one.")] = 9092,
    postgres_port: Annotated[int, typer.Option(min=0, max=LAST_PORT, help="PostgreSQL's; 0: a free one.")] = 5432,
    data_dir: Annotated[
        Path, typer.Option(envvar="TRUEWARD_DATA_DIR", help="Where data are kept, and endpoints.json.")
    ] = DEFAULT_DATA_DIR,
    broker: Annotated[
        BrokerKind, typer.Option(help="auto: Apache Kafka where Java and its jars are, else Tansu, in memory.")
    ] = BrokerKind.auto,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Use a broker that runs already.")] = None,
    postgres: Annotated[
        str | None, typer.Option(metavar="DSN", help="Use a PostgreSQL that runs already.")
    ] = None,
    topic_prefix: Annotated[str, typer.Option(help="What every topic's name begins with.")] = "trueward.",
) -> None:
    """Run the local stack: a broker, PostgreSQL and the four services, until Ctrl-C.

    What dies is started again. When everything answers, DATA_DIR/endpoints.json says where.
    """
    import asyncio

    from deploy.local.up import UpOptions
    from deploy.local.up import up as run

    options = UpOptions(
        clock=clock.value,
        snapshot_interval=snapshot_interval,
        http_port=http_port,
        kafka_port=kafka_port,
        postgres_port=postgres_port,
        data_dir=data_dir,
        broker=broker.value,
        kafka=kafka,
        postgres=postgres,
        topic_prefix=topic_prefix,
    )
    asyncio.run(run(options))
