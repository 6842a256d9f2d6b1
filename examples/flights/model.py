"""The model: will this flight arrive more than 15 minutes late? Trained, kept as a file, and read again."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import ThreadpoolController

from examples.flights.data import CATEGORIES, FEATURES, Flights, Matrix, from_numpy

MODEL = "flight-late"
TRAINING_DAYS = 60
"""A version learns from the labels of the last 60 days: about what January and February are for the first."""
PROBABILITY_DECIMALS = 6

# On so little data a second thread gains nothing, and where the machine is busy, threads that spin for one another
# cost seven times the time.
_THREADS = ThreadpoolController()


class ArtifactError(RuntimeError):
    """An artifact's bytes are not those that were registered."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted classifier, with what it was fitted on."""

    classifier: HistGradientBoostingClassifier
    labels: int
    trained_from: datetime
    trained_through: datetime


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """Where an artifact lies and how to tell its bytes from others."""

    uri: str
    sha256: str
    size_bytes: int


def fit(features: Matrix, late: Matrix, seed: int) -> HistGradientBoostingClassifier:
    """Fit the classifier. It stops by itself, on a tenth of the rows that ``seed`` picks."""
    classifier = HistGradientBoostingClassifier(
        categorical_features=list(range(len(CATEGORIES))),
        learning_rate=0.1,
        max_iter=100,
        max_leaf_nodes=15,
        min_samples_leaf=60,
        l2_regularization=5.0,
        early_stopping=True,
        n_iter_no_change=10,
        random_state=seed,
    )
    with _THREADS.limit(limits=1, user_api="openmp"):
        return classifier.fit(features, late)


def recent_labels(flights: Flights, as_of: datetime, days: int = TRAINING_DAYS) -> NDArray[np.intp]:
    """Rows of the flights that landed in the last ``days`` before ``as_of``: what a trainer may know then."""
    return flights.landed_within(as_of - timedelta(days=days), as_of)


def train(flights: Flights, as_of: datetime, seed: int) -> Trained:
    """Train on the recent labels known at ``as_of``; a flight still in the air then is not known."""
    # In the order of departure, so that the same labels are the same matrix.
    rows = np.sort(recent_labels(flights, as_of))
    landed = flights.landed_at[rows]
    return Trained(
        classifier=fit(flights.features[rows], flights.late[rows], seed),
        labels=len(rows),
        trained_from=from_numpy(landed.min()),
        trained_through=from_numpy(landed.max()),
    )


def probabilities(classifier: HistGradientBoostingClassifier, features: Matrix) -> Matrix:
    """The probability of a late arrival for each row, as it is published: to six decimals."""
    if len(features) == 0:
        return np.empty(0)
    return np.round(positive(classifier, features), PROBABILITY_DECIMALS)


def positive(classifier: HistGradientBoostingClassifier, features: Matrix) -> Matrix:
    """The probability of a late arrival for each row, as the classifier has it."""
    with _THREADS.limit(limits=1, user_api="openmp"):
        said: Matrix = classifier.predict_proba(features)[:, 1]
    return said


def store(classifier: HistGradientBoostingClassifier, path: Path) -> StoredArtifact:
    """Write the artifact whole or not at all."""
    content = pickle.dumps({"model": MODEL, "features": FEATURES, "classifier": classifier}, protocol=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return describe(path)


def describe(path: Path) -> StoredArtifact:
    """What to register of the artifact at ``path``."""
    content = path.read_bytes()
    return StoredArtifact(path.resolve().as_uri(), hashlib.sha256(content).hexdigest(), len(content))


def restore(uri: str, sha256: str) -> HistGradientBoostingClassifier:
    """Read an artifact back. Raises :class:`ArtifactError` unless its bytes are the registered ones."""
    content = Path(unquote(urlsplit(uri).path)).read_bytes()
    # A pickle runs what it says, so nothing is unpickled but the very bytes that the trainer registered.
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(f"the artifact at {uri} is not the one registered (sha256 {sha256})")
    document = pickle.loads(content)  # noqa: S301 (its digest was just checked)
    if document["model"] != MODEL or document["features"] != FEATURES:
        raise ArtifactError(f"the artifact at {uri} was made for {document['model']} with other features")
    return document["classifier"]


def registration(
    version: str, trained: Trained, artifact: StoredArtifact, as_of: datetime, *, job_id: str | None, seed: int
) -> dict[str, object]:
    """The ``model-versions`` event that puts a version into service at ``as_of``."""
    event: dict[str, object] = {
        "model": MODEL,
        "version": version,
        "stage": "champion",
        "registered_at": rfc_3339(as_of),
        "changed_at": rfc_3339(as_of),
        "trained_through": rfc_3339(trained.trained_through),
        "artifact": {
            "uri": artifact.uri,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
            "created_at": rfc_3339(as_of),
        },
        "training": {
            "labels": trained.labels,
            "trained_from": rfc_3339(trained.trained_from),
            "window_days": TRAINING_DAYS,
            "seed": seed,
            "iterations": int(trained.classifier.n_iter_),
        },
    }
    if job_id is not None:
        event["job_id"] = job_id
    return event


def first_version(as_of: datetime) -> str:
    """The name of the version that is trained before the stream begins."""
    return f"trained-{as_of:%Y-%m-%d}"


def retrained_version(as_of: datetime, job_id: str) -> str:
    """The name of the version that a job makes: the same job always makes the same one."""
    return f"trained-{as_of:%Y-%m-%d}-{hashlib.sha256(job_id.encode()).hexdigest()[:6]}"


def rfc_3339(moment: datetime) -> str:
    """A moment as the topics spell it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
