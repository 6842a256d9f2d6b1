"""Where everything answers: options go before TRUEWARD_* variables, those before a running ``trueward up``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import TruewardError, UsageError
from shared.settings import Settings
from trueward.cli.options import DEFAULT_DATA_DIR

ENDPOINTS_FILE = "endpoints.json"
KAFKA, POSTGRES = "TRUEWARD_KAFKA_BOOTSTRAP_SERVERS", "TRUEWARD_POSTGRES_DSN"
TOPIC_PREFIX = "TRUEWARD_TOPIC_PREFIX"
FALLBACK_BROKER = "tansu"
"""The fallback broker has no idempotent producers and no true end offsets."""


class AwayError(TruewardError):
    """The broker, the database or the gateway does not answer: exit code 1."""


class Endpoints(BaseModel):
    """What a running ``trueward up`` says of itself."""

    model_config = ConfigDict(extra="ignore")

    http: str
    kafka: str
    postgres: str
    broker: str
    topic_prefix: str | None = None

    def of_the_broker(self) -> dict[str, str]:
        """The variables by which a client adapts to the stack's broker."""
        found = {KAFKA: self.kafka}
        if self.topic_prefix is not None:
            found[TOPIC_PREFIX] = self.topic_prefix
        if FALLBACK_BROKER in self.broker.lower():
            found["TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER"] = "false"
            found["TRUEWARD_KAFKA_TRUE_END_OFFSETS"] = "false"
        return found


@dataclass(frozen=True, slots=True)
class Connection:
    """What the user said, beside what a running stack says."""

    data_dir: Path = DEFAULT_DATA_DIR
    kafka: str | None = None
    postgres: str | None = None
    http: str | None = None
    topic_prefix: str | None = None

    def settings(self) -> Settings:
        """Settings for talking to the broker. Raises ``UsageError`` where nothing names one."""
        environment = self.environment()
        if KAFKA not in {**os.environ, **environment}:
            raise self._unnamed("broker", "--kafka HOST:PORT", KAFKA)
        return _settings({name.removeprefix("TRUEWARD_").lower(): value for name, value in environment.items()})

    def dsn(self) -> str:
        """PostgreSQL's address. Raises ``UsageError`` where nothing names it."""
        environment = {**os.environ, **self.environment()}
        if POSTGRES not in environment:
            raise self._unnamed("database", "--postgres DSN", POSTGRES)
        return environment[POSTGRES]

    def url(self) -> str:
        """The gateway's base URL, without a slash at the end. Raises ``UsageError`` where nothing names it."""
        url = self.http
        if url is None:
            endpoints = self.endpoints()
            if endpoints is None:
                raise self._unnamed("gateway", "--http URL", "TRUEWARD_HTTP_URL")
            url = endpoints.http
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"the gateway's URL must begin with http:// or https://, not {url!r}")
        return url.rstrip("/")

    def environment(self) -> dict[str, str]:
        """TRUEWARD_* variables that the options, and a running stack where nothing else is said, stand for.

        The stack is asked only for what neither options nor variables say; its topics' prefix and what its broker
        cannot do go with its broker.
        """
        said = {KAFKA: self.kafka, POSTGRES: self.postgres, TOPIC_PREFIX: self.topic_prefix}
        given = {name: value for name, value in said.items() if value is not None}
        known = {**os.environ, **given}
        if KAFKA in known and POSTGRES in known:
            return given
        endpoints = self.endpoints()
        if endpoints is None:
            return given
        found = {POSTGRES: endpoints.postgres}
        if KAFKA not in known:
            found |= endpoints.of_the_broker()
        return {**{name: value for name, value in found.items() if name not in known}, **given}

    def endpoints(self) -> Endpoints | None:
        """What ``trueward up`` wrote; None where there is no such file. Raises ``UsageError`` for a broken one."""
        path = self.data_dir / ENDPOINTS_FILE
        try:
            return Endpoints.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError, json.JSONDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {_first_line(error)}") from error

    def _unnamed(self, what: str, option: str, variable: str) -> UsageError:
        return UsageError(
            f"no {what} is named: give {option}, set {variable}, or start `trueward up`"
            f" (there is no {self.data_dir / ENDPOINTS_FILE})"
        )


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        raise wrong_setting(error) from error


def wrong_setting(error: ValidationError) -> UsageError:
    """The first setting that is wrong, by the name of its variable."""
    first = error.errors(include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    return UsageError(f"TRUEWARD_{name}: {first['msg'].removeprefix('Value error, ')}")


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'not JSON'}: {first['msg']}"
    return str(error).splitlines()[0]
