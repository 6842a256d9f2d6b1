import pytest

from examples.flights.data import Flights, load


@pytest.fixture(scope="session")
def flights() -> Flights:
    """The real flights of 2013."""
    return load()
