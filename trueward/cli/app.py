"""The commands: what they are called, what they take. What they do is in the module that each one loads."""

# ruff: noqa: PLC0415
# Each command loads what it needs when it runs: --help must not wait for clients of Kafka and PostgreSQL.

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trueward.cli.letters_app import breaker, dead_letters
from trueward.cli.options import (
    DEFAULT_DATA_DIR,
    AsJson,
    ConsumerName,
    DataDir,
    GatewayUrl,
    KafkaServers,
    PostgresDsn,
    Source,
    TopicPrefix,
)
from trueward.cli.up import up

app = typer.Typer(
    name="trueward",
    help="Keeps machine-learning models true: watches their live quality, and decides on the record.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
publishing = typer.Typer(help="Publish events to the input topics.", no_args_is_help=True)
policies = typer.Typer(help="A model's policy: how it is judged.", no_args_is_help=True)
job_list = typer.Typer(help="Retraining jobs.", no_args_is_help=True)
topic_list = typer.Typer(help="The topics.", no_args_is_help=True)
inboxes = typer.Typer(help="How far services have read.", no_args_is_help=True)
rebuilds = typer.Typer(help="Hold stored sums against what they are of, and mend them.", no_args_is_help=True)
for group, name in (
    (publishing, "publish"),
    (policies, "policy"),
    (job_list, "jobs"),
    (topic_list, "topics"),
    (dead_letters, "dead-letters"),
    (breaker, "breaker"),
    (inboxes, "inbox"),
    (rebuilds, "rebuild"),
):
    app.add_typer(group, name=name)
app.command("up")(up)


class ServiceName(StrEnum):
    """The services."""

    metrics = "metrics"
    alerting = "alerting"
    retrain = "retrain"
    gateway = "gateway"


class WatchSubject(StrEnum):
    """What can be watched."""

    alerts = "alerts"
    jobs = "jobs"
    decisions = "decisions"
    snapshots = "snapshots"


class Status(StrEnum):
    """The states of a job."""

    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"


@publishing.command("predictions")
def publish_predictions(
    source: Source,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Publish predictions. Every line is checked first; if one is bad, nothing is sent."""
    from trueward.cli import publish
    from trueward.cli.connection import Connection

    publish.lines("predictions", source, Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json)


@publishing.command("labels")
def publish_labels(
    source: Source,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Publish labels: what happened. Every line is checked first; if one is bad, nothing is sent."""
    from trueward.cli import publish
    from trueward.cli.connection import Connection

    publish.lines("labels", source, Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json)


@publishing.command("pipeline-runs")
def publish_pipeline_runs(
    source: Source,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Publish finished pipeline runs, in the plain form or as OpenLineage RunEvents."""
    from trueward.cli import publish
    from trueward.cli.connection import Connection

    publish.lines("pipeline-runs", source, Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json)


@publishing.command("model-versions")
def publish_model_versions(
    source: Source,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Publish model versions: registered, promoted or retired."""
    from trueward.cli import publish
    from trueward.cli.connection import Connection

    publish.lines(
        "model-versions", source, Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json
    )


@publishing.command("tick")
def publish_tick(
    time: Annotated[str, typer.Argument(help="How far event time has come, such as 2013-04-01T00:00:00Z.")],
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Tell the event clock the time: one tick to every partition of predictions, labels and pipeline-runs."""
    from trueward.cli import publish
    from trueward.cli.connection import Connection

    publish.tick(time, Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json)


@app.command("watch")
def watch_events(
    subject: Annotated[
        WatchSubject | None, typer.Argument(help="What to watch. Default: transitions, of alerts and of jobs.")
    ] = None,
    *,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="What was before too.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Print what the services publish, one line an event, as it comes. Ctrl-C ends it."""
    from trueward.cli import watch
    from trueward.cli.connection import Connection

    watch.watch(
        subject.value if subject else None,
        Connection(data_dir, kafka, topic_prefix=topic_prefix),
        model=model,
        from_beginning=from_beginning,
        count=count,
        as_json=as_json,
    )


@app.command("status")
def show_status(http: GatewayUrl = None, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Show how everything is: services, dependencies, clock, lag, and every model at a glance."""
    from trueward.cli import reports
    from trueward.cli.connection import Connection

    reports.status(Connection(data_dir, http=http), as_json=as_json)


@app.command("models")
def list_models(http: GatewayUrl = None, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """List the models known: state, champion, and how far each service has come."""
    from trueward.cli import reports
    from trueward.cli.connection import Connection

    reports.models(Connection(data_dir, http=http), as_json=as_json, most=None)


@job_list.command("list")
def list_jobs(
    *,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs to list.")] = 50,
    http: GatewayUrl = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List retraining jobs, newest first."""
    from trueward.cli import reports
    from trueward.cli.connection import Connection

    asked = status.value if status else None
    reports.jobs(Connection(data_dir, http=http), model=model, status=asked, most=limit, as_json=as_json)


@policies.command("show")
def show_policy(
    model: Annotated[str, typer.Argument(help="The model.")],
    http: GatewayUrl = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show a model's policy in force, defaults filled in."""
    from trueward.cli import policy
    from trueward.cli.connection import Connection

    policy.show(model, Connection(data_dir, http=http), as_json=as_json)


@policies.command("apply")
def apply_policy(
    path: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A policy; several as YAML documents.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file, send nothing.")] = False,
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Bring a policy into force. A key that no policy has is an error: a typo must not weaken it in silence."""
    from trueward.cli import policy
    from trueward.cli.connection import Connection

    policy.apply(path, Connection(data_dir, kafka, topic_prefix=topic_prefix), dry_run=dry_run, as_json=as_json)


@topic_list.command("create")
def create_topics(
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Create the topics that the broker lacks, with partitions and retention as the registry says."""
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    operations.create_topics(Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json)


@topic_list.command("list")
def list_topics(
    kafka: KafkaServers = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List the topics: key, partitions, retention, who writes, who reads."""
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    operations.list_topics(Connection(data_dir, kafka, topic_prefix=topic_prefix), as_json=as_json)


@inboxes.command("reset")
def reset_inbox(
    *,
    service: Annotated[ConsumerName, typer.Option(help="The service; stop it first.")],
    topic: Annotated[str | None, typer.Option(help="Only this topic (without prefix); default all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    postgres: PostgresDsn = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Forget how far a service has read: the way out after a topic was recreated or the broker lost its data.

    The service reads the topic again from its beginning. What it took in before stays; where the old records are
    still there they are taken for new ones, so do this only where they are gone.
    """
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    if not yes:
        typer.confirm(f"Forget how far {service.value} has read {topic or 'every topic'}?", abort=True, err=True)
    operations.reset_inbox(service.value, topic, Connection(data_dir, postgres=postgres), as_json=as_json)


@inboxes.command("adopt")
def adopt_topics(
    *,
    service: Annotated[ConsumerName, typer.Option(help="The service.")],
    topic: Annotated[str | None, typer.Option(help="Only this topic (without prefix); default all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    postgres: PostgresDsn = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Take the topics that the broker has now for those that a service has read, though they have new ids.

    Right only where the same records stand at the same offsets, as after Kafka itself was restored from a copy;
    where they do not, reset.
    """
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    if not yes:
        question = (
            f"Are these the records that {service.value} has read, at the same offsets: {topic or 'all topics'}?"
        )
        typer.confirm(question, abort=True, err=True)
    operations.adopt_topics(service.value, topic, Connection(data_dir, postgres=postgres), as_json=as_json)


@rebuilds.command("metrics")
def rebuild_metrics(
    *,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be given several times.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 where something differs.")
    ] = False,
    postgres: PostgresDsn = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Compare every bucket with the raw predictions and labels, and mend those that differ.

    The services may run: figures of a model go from wrong to right at once. For rows that retention has removed
    counts what was kept when they went.
    """
    from trueward.cli import rebuild
    from trueward.cli.connection import Connection

    found = rebuild.metrics(Connection(data_dir, postgres=postgres), model or [], check=check, as_json=as_json)
    if not found:
        raise typer.Exit(1)


@app.command("migrate")
def migrate_database(
    postgres: PostgresDsn = None, data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False
) -> None:
    """Bring the database's schemas up to date."""
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    operations.migrate(Connection(data_dir, postgres=postgres), as_json=as_json)


@app.command("service")
def run_service(
    service: Annotated[ServiceName, typer.Argument(help="The service.")],
    *,
    http_host: Annotated[
        str | None, typer.Option(envvar="TRUEWARD_HTTP_HOST", help="Address to serve on.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(envvar="TRUEWARD_HTTP_PORT", min=0, max=65535, help="Port to serve on.")
    ] = None,
    kafka: KafkaServers = None,
    postgres: PostgresDsn = None,
    topic_prefix: TopicPrefix = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run one service in this process, as the containers do. Every setting is a TRUEWARD_* variable."""
    from trueward.cli import operations
    from trueward.cli.connection import Connection

    given = {"TRUEWARD_HTTP_HOST": http_host, "TRUEWARD_HTTP_PORT": http_port}
    operations.run_service(
        service.value,
        Connection(data_dir, kafka, postgres, topic_prefix=topic_prefix),
        {name: str(value) for name, value in given.items() if value is not None},
    )
