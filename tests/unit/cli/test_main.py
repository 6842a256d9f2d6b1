"""Exit codes, and errors in one line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from trueward.cli import main

COMMANDS = [
    "watch",
    "status",
    "models",
    "migrate",
    "service",
    "publish predictions",
    "publish labels",
    "publish pipeline-runs",
    "publish model-versions",
    "publish tick",
    "policy show",
    "policy apply",
    "jobs list",
    "topics create",
    "topics list",
    "inbox reset",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no stack runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "POSTGRES_DSN", "HTTP_URL", "DATA_DIR", "TOPIC_PREFIX"):
        monkeypatch.delenv(f"TRUEWARD_{name}", raising=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("statsu", 2, "No such command 'statsu'"),
        ("status --colour", 2, "No such option"),
        ("service nothing", 2, "'nothing' is not one of"),
        ("publish predictions", 2, "Missing argument"),
        ("publish predictions none.jsonl", 2, "no broker is named"),
        ("publish predictions none.jsonl --kafka 127.0.0.1:1", 2, "none.jsonl cannot be read: No such file"),
        ("publish tick yesterday --kafka 127.0.0.1:1", 2, "TIME must be RFC 3339"),
        ("publish tick 2126-01-01T00:00:00Z --kafka 127.0.0.1:1", 2, "more than 5 minutes ahead"),
        ("publish tick 2026-01-01T00:00:00Z --kafka 127.0.0.1:1", 1, "Kafka at 127.0.0.1:1 does not answer"),
        ("watch alerts --kafka 127.0.0.1:1", 1, "Kafka at 127.0.0.1:1 does not answer"),
        ("topics create --kafka 127.0.0.1:1", 1, "Kafka at 127.0.0.1:1 does not answer"),
        ("topics list --kafka 127.0.0.1:1", 1, "Kafka at 127.0.0.1:1 does not answer"),
        ("status", 2, "no gateway is named"),
        ("status --http http://127.0.0.1:1", 1, "the gateway at http://127.0.0.1:1 does not answer"),
        ("status --http ftp://127.0.0.1", 2, "must begin with http"),
        ("models --http http://127.0.0.1:1", 1, "does not answer"),
        ("jobs list --http http://127.0.0.1:1 --status lost", 2, "'lost' is not one of"),
        ("policy show m --http http://127.0.0.1:1", 1, "does not answer"),
        ("policy apply none.yaml", 2, "none.yaml cannot be read"),
        ("migrate", 2, "no database is named"),
        ("migrate --postgres postgresql://nobody@127.0.0.1:1/x", 1, ""),
        ("migrate --postgres mysql://x", 2, "must begin with postgresql://"),
        ("inbox reset --service alerting --topic labels --yes --postgres postgresql://x", 2, "it reads snapshots"),
        ("inbox reset --service alerting --yes --postgres postgresql://nobody@127.0.0.1:1/x", 1, "PostgreSQL"),
        ("inbox reset --service gateway --yes", 2, "'gateway' is not one of"),
    ],
)
def test_an_expected_error_is_one_line_and_a_code(
    arguments: str, code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == code
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("trueward: ")
    assert output.err.count("\n") == 1
    assert said in output.err


@pytest.mark.parametrize("arguments", [("policy", "apply", "a\nb\x1b[2J\u2028\udcff.yaml"), ("no\nsuch",)])
def test_an_error_is_one_line_whatever_it_names(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capfd.readouterr().err
    assert said.startswith("trueward: ")
    assert len(said.splitlines()) == 1
    assert said.removesuffix("\n").isprintable()


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="there is no file here that opens and cannot be read"
)
def test_a_source_that_opens_and_cannot_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "labels", "/proc/self/mem", "--kafka", "127.0.0.1:1"]) == 2
    assert "trueward: /proc/self/mem cannot be read: " in capfd.readouterr().err


def test_a_standard_input_that_is_closed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["publish", "labels", "-", "--kafka", "127.0.0.1:1"]) == 2
    assert "trueward: standard input is closed\n" in capfd.readouterr().err


def test_a_question_that_nobody_answers_does_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["inbox", "reset", "--service", "alerting", "--postgres", "postgresql://x"]) == 1
    assert "nothing was done" in capsys.readouterr().err


def test_a_mistake_of_ours_is_no_expected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("trueward.cli.reports.status", mistaken)
    with pytest.raises(ZeroDivisionError):
        main(["status"])


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert "Usage:" in output.out
    assert output.err == ""


def test_help_waits_for_no_client_of_kafka_or_postgresql() -> None:
    heavy = {"aiokafka", "asyncpg", "fastapi", "faststream", "httpx", "numpy", "psycopg", "yoyo"}
    code = (
        "import sys; from trueward.cli import main; main(['--help']);"
        f"print('LOADED', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
