"""Options go before variables, those before a running stack."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shared.errors import UsageError
from trueward.cli.connection import Connection

KAFKA, POSTGRES = "TRUEWARD_KAFKA_BOOTSTRAP_SERVERS", "TRUEWARD_POSTGRES_DSN"
STACK: dict[str, Any] = {
    "http": "http://127.0.0.1:8080/",
    "kafka": "127.0.0.1:9092",
    "postgres": "postgresql://stack/trueward",
    "broker": "Apache Kafka",
    "processes": {"gateway": 1},
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TRUEWARD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write(tmp_path, STACK)
    return tmp_path


def write(folder: Path, document: object) -> None:
    (folder / "endpoints.json").write_text(json.dumps(document), encoding="utf-8")


def test_a_running_stack_is_found(data_dir: Path) -> None:
    found = Connection(data_dir)
    assert found.settings().kafka_bootstrap_servers == "127.0.0.1:9092"
    assert found.settings().kafka_idempotent_producer is True
    assert found.dsn() == "postgresql://stack/trueward"
    assert found.url() == "http://127.0.0.1:8080"


def test_variables_go_before_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KAFKA, "kafka:1")
    monkeypatch.setenv(POSTGRES, "postgresql://variable")
    found = Connection(data_dir)
    assert found.settings().kafka_bootstrap_servers == "kafka:1"
    assert found.dsn() == "postgresql://variable"


def test_options_go_before_all(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KAFKA, "kafka:1")
    monkeypatch.setenv("TRUEWARD_TOPIC_PREFIX", "variable.")
    found = Connection(data_dir, "kafka:2", "postgresql://option", "https://gateway/", "option.")
    assert found.settings().kafka_bootstrap_servers == "kafka:2"
    assert found.settings().topic_prefix == "option."
    assert found.dsn() == "postgresql://option"
    assert found.url() == "https://gateway"


def test_the_fallback_broker_is_talked_to_as_it_needs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(data_dir, {**STACK, "broker": "Tansu 0.5 (memory)"})
    assert Connection(data_dir).settings().kafka_idempotent_producer is False
    assert Connection(data_dir).settings().kafka_true_end_offsets is False
    assert Connection(data_dir, kafka="elsewhere:1").settings().kafka_idempotent_producer is True
    assert Connection(data_dir, kafka="elsewhere:1").dsn() == STACK["postgres"]
    monkeypatch.setenv("TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER", "true")
    assert Connection(data_dir).settings().kafka_idempotent_producer is True


@pytest.mark.parametrize("ask", [Connection.settings, Connection.dsn, Connection.url])
def test_nothing_named_is_said_with_the_three_ways_to_name_it(tmp_path: Path, ask: Any) -> None:
    with pytest.raises(UsageError, match=r"give --.*, set TRUEWARD_.*, or start `trueward up`"):
        ask(Connection(tmp_path))


def test_the_stacks_prefix_goes_with_its_broker(data_dir: Path) -> None:
    write(data_dir, {**STACK, "topic_prefix": "stack."})
    assert Connection(data_dir).settings().topic_prefix == "stack."
    assert Connection(data_dir, topic_prefix="option.").settings().topic_prefix == "option."
    assert Connection(data_dir, kafka="elsewhere:1").settings().topic_prefix == "trueward."


def test_a_file_that_is_not_needed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{", encoding="utf-8")
    found = Connection(tmp_path, "kafka:1", "postgresql://x", "http://x")
    assert found.settings().kafka_bootstrap_servers == "kafka:1"
    assert (found.dsn(), found.url()) == ("postgresql://x", "http://x")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"http": 1}'])
def test_a_broken_endpoints_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoints.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"endpoints\.json cannot be read") as raised:
        Connection(tmp_path).url()
    assert "\n" not in str(raised.value)


def test_a_url_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must begin with http"):
        Connection(tmp_path, http="localhost:8080").url()


def test_a_wrong_setting_is_named_by_its_variable(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEWARD_SNAPSHOT_INTERVAL", "7s")
    with pytest.raises(UsageError, match="TRUEWARD_SNAPSHOT_INTERVAL: must be whole seconds"):
        Connection(data_dir).settings()
