"""A client of Trueward, in one line: ``Trueward("http://localhost:8080").monitoring("fraud")``.

It needs httpx alone; publishing to topics and hearing from them (``Topics``) needs aiokafka too, which
``pip install 'trueward[kafka]'`` brings. Answers are the API's own JSON, typed; times are RFC 3339 strings.
"""

from trueward.client.errors import (
    AwayError,
    ClientError,
    EventsRefusedError,
    NotDecidedError,
    RequestRefusedError,
)
from trueward.client.gateway import Trueward
from trueward.client.publishing import Receipt, Refused
from trueward.client.topics import Topics

__all__ = [
    "AwayError",
    "ClientError",
    "EventsRefusedError",
    "NotDecidedError",
    "Receipt",
    "Refused",
    "RequestRefusedError",
    "Topics",
    "Trueward",
]
