"""Settings that every service has, read from the environment (prefix ``TRUEWARD_``)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DAY_SECONDS = 86_400


def parse_duration(value: object) -> object:
    """Read "60s", "5m", "1h" or "1d" as a timedelta; leave anything else to pydantic."""
    match = re.fullmatch(r"\s*(\d+)\s*([smhd])\s*", value) if isinstance(value, str) else None
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else value
    except OverflowError as error:
        raise ValueError("must be shorter than three million years") from error


def _divides_the_day(interval: timedelta) -> timedelta:
    seconds = interval.total_seconds()
    if seconds < 1 or seconds != int(seconds) or (DAY_SECONDS % seconds and seconds % DAY_SECONDS):
        raise ValueError("must be whole seconds that divide a day, or whole days: 1s, 60s, 5m, 1h, 1d, ...")
    return interval


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
SnapshotInterval = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_divides_the_day)]


class Settings(BaseSettings):
    """What every service is told by its deployment."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="TRUEWARD_", frozen=True)

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Kafka's bootstrap servers, separated by commas."
    )
    kafka_idempotent_producer: bool = Field(
        default=True, description="Off only for a broker that has no idempotent producers."
    )
    kafka_true_end_offsets: bool = Field(
        default=True, description="Off only for a broker whose log-end offsets cannot be believed."
    )
    postgres_dsn: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:5432/trueward"), description="PostgreSQL's address."
    )
    topic_prefix: str = Field("trueward.", description="What every topic's name begins with.")
    create_topics: bool = Field(default=True, description="Create missing topics at start.")
    topic_replication_factor: int = Field(
        0, ge=0, description="Replicas of a topic that is created; 0: three, or as many as there are brokers."
    )
    clock: Literal["wall", "event"] = Field("wall", description="What time snapshots follow.")
    snapshot_interval: SnapshotInterval = Field(
        timedelta(seconds=60), description="Time between snapshots: 60s, 5m, 1h, 1d, ..."
    )
    http_host: str = Field("127.0.0.1", description="Address that HTTP is served on.")
    http_port: int = Field(8080, ge=0, le=65535, description="Port that HTTP is served on.")
    max_batch_records: int = Field(20_000, gt=0, description="Most records in one transaction.")
    breaker_min_refused: int = Field(
        100,
        ge=0,
        description="Dead letters of a topic, within the window or in one batch, from which on the breaker may "
        "stop the intake; 0: never.",
    )
    breaker_min_share: float = Field(
        0.5, gt=0, le=1, description="The share of the records that they must be for it to do so."
    )
    breaker_window: Duration = Field(
        timedelta(minutes=10), gt=timedelta(0), description="How long dead letters are counted together."
    )
    session_timeout_seconds: int = Field(10, gt=0, description="Silence after which Kafka gives a consumer up.")
    graceful_timeout_seconds: int = Field(10, gt=0, description="Time a batch in flight has at a stop.")
    tracing: bool = Field(
        default=False,
        description="Carry W3C traceparent from what is read to what is published (OpenTelemetry). "
        "Spans are exported where the process was started by opentelemetry-instrument.",
    )
    log_format: Literal["console", "json"] = Field("console", description="Logs for people or for machines.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
