import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from examples.flights import model
from examples.flights.data import Flights, to_numpy
from shared.contracts.models import ModelVersion

FEBRUARY = datetime(2013, 2, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def trained(flights: Flights) -> model.Trained:
    return model.train(flights, FEBRUARY, seed=1)


def test_training_knows_only_what_had_landed(flights: Flights) -> None:
    rows = model.recent_labels(flights, FEBRUARY, days=7)
    assert (flights.landed_at[rows] < to_numpy(FEBRUARY)).all()
    assert (flights.landed_at[rows] >= to_numpy(FEBRUARY - WEEK)).all()
    in_the_air = (flights.scheduled_at < to_numpy(FEBRUARY)) & (flights.landed_at >= to_numpy(FEBRUARY))
    assert in_the_air.any()
    assert not set(np.flatnonzero(in_the_air)) & set(rows)


def test_training_says_what_it_learned_from(trained: model.Trained, flights: Flights) -> None:
    rows = model.recent_labels(flights, FEBRUARY)
    assert trained.labels == len(rows)
    assert trained.trained_through == datetime(2013, 1, 31, 23, 59, tzinfo=UTC)
    assert to_numpy(trained.trained_through) == flights.landed_at[rows].max()


def test_the_same_seed_trains_the_same_model(trained: model.Trained, flights: Flights) -> None:
    again = model.train(flights, FEBRUARY, seed=1)
    other = model.train(flights, FEBRUARY, seed=2)
    some = flights.features[30_000:40_000]
    assert (model.probabilities(trained.classifier, some) == model.probabilities(again.classifier, some)).all()
    assert (model.probabilities(trained.classifier, some) != model.probabilities(other.classifier, some)).any()


def test_the_model_has_learned_something(trained: model.Trained, flights: Flights) -> None:
    rows = flights.landed_within(FEBRUARY, FEBRUARY + WEEK)
    late = flights.late[rows]
    brier = np.mean((model.probabilities(trained.classifier, flights.features[rows]) - late) ** 2)
    assert brier < np.mean((np.mean(late) - late) ** 2)


def test_probabilities_are_published_to_six_decimals(trained: model.Trained, flights: Flights) -> None:
    values = model.probabilities(trained.classifier, flights.features[:1000])
    assert ((values >= 0) & (values <= 1)).all()
    assert [round(value, 6) for value in values.tolist()] == values.tolist()
    assert model.probabilities(trained.classifier, flights.features[:0]).tolist() == []


def test_an_artifact_is_read_back_as_it_was_stored(
    trained: model.Trained, flights: Flights, tmp_path: Path
) -> None:
    stored = model.store(trained.classifier, tmp_path / "artifacts of mine" / "first.pickle")
    restored = model.restore(stored.uri, stored.sha256)
    some = flights.features[:1000]
    assert (model.probabilities(restored, some) == model.probabilities(trained.classifier, some)).all()
    assert [path.name for path in (tmp_path / "artifacts of mine").iterdir()] == ["first.pickle"]


def test_an_artifact_with_other_bytes_is_refused(trained: model.Trained, tmp_path: Path) -> None:
    path = tmp_path / "first.pickle"
    stored = model.store(trained.classifier, path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(model.ArtifactError, match="is not the one registered"):
        model.restore(stored.uri, stored.sha256)


def test_an_artifact_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "FEATURES", ("something", "else"))
    stored = model.store(None, tmp_path / "other.pickle")
    monkeypatch.undo()
    with pytest.raises(model.ArtifactError, match="other features"):
        model.restore(stored.uri, stored.sha256)


def test_a_registration_is_what_the_contract_asks_for(trained: model.Trained, tmp_path: Path) -> None:
    stored = model.store(trained.classifier, tmp_path / "first.pickle")
    version = model.retrained_version(FEBRUARY, "job-1")
    event = model.registration(version, trained, stored, FEBRUARY, job_id="job-1", seed=1)
    taken = ModelVersion.model_validate_json(json.dumps(event))
    assert taken.stage == "champion"
    assert taken.changed_at == FEBRUARY
    assert taken.trained_through == trained.trained_through
    assert taken.artifact is not None
    assert taken.artifact.sha256 == stored.sha256
    assert taken.job_id == "job-1"


def test_a_version_is_named_by_its_job() -> None:
    name = model.retrained_version(FEBRUARY, "job-1")
    assert name.startswith("trained-2013-02-01-")
    assert name == model.retrained_version(FEBRUARY, "job-1")
    assert name != model.retrained_version(FEBRUARY, "job-2")
    assert model.first_version(FEBRUARY) == "trained-2013-02-01"
