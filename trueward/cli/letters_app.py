"""The commands for what was refused: dead letters, and the breaker that a flood of them trips."""

# ruff: noqa: PLC0415
# Each command loads what it needs when it runs: --help must not wait for clients of Kafka and PostgreSQL.

from __future__ import annotations

from typing import Annotated

import typer

from trueward.cli.options import (
    DEFAULT_DATA_DIR,
    AsJson,
    ConsumerName,
    DataDir,
    KafkaServers,
    PostgresDsn,
    TopicPrefix,
)

dead_letters = typer.Typer(help="Input that was refused: look at it, send it again.", no_args_is_help=True)
breaker = typer.Typer(help="What stops a service's intake in a flood of dead letters.", no_args_is_help=True)

OfTopic = Annotated[str | None, typer.Option("--topic", help="Only of this topic (without prefix).")]
OfReason = Annotated[str | None, typer.Option("--reason", help="Only refused for this reason, such as invalid.")]
OfService = Annotated[ConsumerName | None, typer.Option("--service", help="Only refused by this service.")]
Since = Annotated[
    str | None, typer.Option(help="Only received since then: 2026-01-31T12:00:00Z, or 2h for two hours ago.")
]
Until = Annotated[str | None, typer.Option(help="Only received before then; as --since.")]


@dead_letters.command("list")
def list_letters(
    *,
    topic: OfTopic = None,
    reason: OfReason = None,
    service: OfService = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="Most letters to list, the newest of them.")] = 50,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first: why each was refused, and when it was replayed."""
    from trueward.cli import dead_letters as letters
    from trueward.cli import moments
    from trueward.cli.connection import Connection
    from trueward.cli.letters import wanted_by

    wanted = wanted_by(
        topic=topic, reason=reason, service=service, since=moments.read(since), until=moments.read(until)
    )
    letters.show_all(wanted, Connection(data_dir, kafka, topic_prefix=topic_prefix), most=limit, as_json=as_json)


@dead_letters.command("show")
def show_letter(
    letter: Annotated[str, typer.Argument(help="The letter, as the list names it.")],
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,  # noqa: ARG001 (a letter is shown as JSON in any case)
) -> None:
    """Show a dead letter with all that it carries, as JSON: bytes as base64, and as text where they are text."""
    from trueward.cli import dead_letters as letters
    from trueward.cli.connection import Connection

    letters.show_one(letter, Connection(data_dir, kafka, topic_prefix=topic_prefix))


@dead_letters.command("replay")
def replay_letters(
    letters: Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="Letters by name.")] = None,
    *,
    topic: OfTopic = None,
    reason: OfReason = None,
    service: OfService = None,
    since: Since = None,
    until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="Every letter that was not replayed yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those too that were replayed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Send dead letters' records to their topics again, byte for byte, once the cause is mended.

    What was replayed before is left out. A record that is sent twice changes nothing twice.
    """
    from shared.errors import UsageError
    from trueward.cli import dead_letters as work
    from trueward.cli import moments
    from trueward.cli.connection import Connection
    from trueward.cli.letters import wanted_by

    wanted = wanted_by(
        ids=letters or (),
        topic=topic,
        reason=reason,
        service=service,
        since=moments.read(since),
        until=moments.read(until),
    )
    if not (every or wanted.says_something):
        raise UsageError("say which letters: by name, by --topic, --reason, --service, --since, --until, or --all")
    connection = Connection(data_dir, kafka, topic_prefix=topic_prefix)
    work.replay(wanted, connection, again=again, dry_run=dry_run, yes=yes, as_json=as_json)


@breaker.command("show")
def show_breaker(
    postgres: PostgresDsn = None, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False
) -> None:
    """Show each service's breaker: whether it takes records in, and if not, why."""
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    operations.show_breakers(Connection(data_dir, postgres=postgres), as_json=as_json)


@breaker.command("reset")
def reset_breaker(
    *,
    service: Annotated[ConsumerName, typer.Option(help="The service; it need not be stopped.")],
    let_pass: Annotated[
        str | None, typer.Option(help="Let every dead letter pass for that long: 10m, 1h, 1d.")
    ] = None,
    postgres: PostgresDsn = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Let a service take records in again, once the cause of the flood is mended.

    Where the flood is what it is, and shall go to the dead letters: --let-pass.
    """
    from trueward.cli import moments, operations
    from trueward.cli.connection import Connection

    until = moments.ahead(let_pass)
    operations.reset_breaker(service.value, until, Connection(data_dir, postgres=postgres), as_json=as_json)
