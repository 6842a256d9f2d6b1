"""The job on Pathway, with persistence of its input, as it is without a licence key."""

from __future__ import annotations

import job
import pathway as pw


class Prediction(pw.Schema):
    prediction_id: str
    model: str
    predicted_at: str
    probability: float


class Label(pw.Schema):
    entity_id: str
    outcome: int
    observed_at: str


def build(told: job.Job) -> None:
    consumer = {
        "bootstrap.servers": told.servers,
        "group.id": told.output,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": "false",
    }
    arrived = pw.io.kafka.read(
        consumer, topic=told.predictions, format="json", schema=Prediction, name="predictions"
    )
    said = pw.io.kafka.read(consumer, topic=told.labels, format="json", schema=Label, name="labels")
    predictions = arrived.groupby(pw.this.prediction_id).reduce(
        pw.this.prediction_id,
        model=pw.reducers.any(pw.this.model),
        predicted_at=pw.reducers.any(pw.this.predicted_at),
        probability=pw.reducers.any(pw.this.probability),
    )
    newest = said.groupby(pw.this.entity_id).reduce(
        pw.this.entity_id, label=pw.reducers.max(pw.make_tuple(pw.this.observed_at, pw.this.outcome))
    )
    labels = newest.select(
        pw.this.entity_id,
        observed_at=pw.declare_type(str, pw.this.label[0]),
        outcome=pw.declare_type(int, pw.this.label[1]),
    )
    evaluated = predictions.join(labels, pw.left.prediction_id == pw.right.entity_id).select(
        pw.left.model,
        minute=pw.if_else(
            pw.left.predicted_at > pw.right.observed_at, pw.left.predicted_at, pw.right.observed_at
        ).str.slice(0, job.LENGTH_OF_A_MINUTE),
        correct=pw.cast(int, (pw.left.probability >= job.EVEN_CHANCE) == (pw.right.outcome == 1)),
        squared_error=(pw.left.probability - pw.right.outcome) ** 2,
    )
    minutes = evaluated.groupby(pw.this.model, pw.this.minute).reduce(
        pw.this.model,
        pw.this.minute,
        evaluated=pw.reducers.count(),
        correct=pw.reducers.sum(pw.this.correct),
        squared_error=pw.reducers.sum(pw.this.squared_error),
    )
    pw.io.kafka.write(minutes, {"bootstrap.servers": told.servers}, told.output, format="json")


if __name__ == "__main__":
    told = job.arguments()
    build(told)
    pw.run(
        monitoring_level=pw.MonitoringLevel.NONE,
        persistence_config=pw.persistence.Config(
            pw.persistence.Backend.filesystem(told.state), snapshot_interval_ms=5_000
        ),
    )
