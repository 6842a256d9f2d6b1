"""Errors as RFC 9457 problem documents: every error of the gateway has this shape, whoever raised it."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

PROBLEM_JSON = "application/problem+json"
URN = "urn:trueward:problem:"
BODY_UNREADABLE = 400
"""What FastAPI says of a body that is no text at all; to a client it is one more invalid field."""


class BrokenRule(BaseModel):
    """One field of a request that broke a rule."""

    field: str = Field(description="The parameter, header or body field.")
    rule: str = Field(description="The rule that it broke, in words.")


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="What kind of error this is: a URN, or about:blank where the status says all.")
    title: str = Field(description="The kind of error, for people.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="What happened this time, and what to do about it.")
    instance: str = Field(description="The path that was asked.")
    errors: list[BrokenRule] | None = Field(None, description="The fields that broke a rule; only where some did.")
    check: list[str] | None = Field(None, description="What to look at, in this order; only where that helps.")


class Problem(Exception):  # noqa: N818 (RFC 9457's word for it)
    """An expected error with its answer. ``kind`` ends the problem's URN; None is about:blank."""

    def __init__(
        self,
        status: int,
        kind: str | None,
        detail: str,
        *,
        title: str | None = None,
        errors: Sequence[BrokenRule] = (),
        check: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.title = title or http.HTTPStatus(status).phrase
        self.detail = detail
        self.errors = tuple(errors)
        self.check = tuple(check)
        self.headers = dict(headers or {})

    def document(self, path: str) -> dict[str, Any]:
        """The problem document, about a request to ``path``."""
        document: dict[str, Any] = {
            "type": "about:blank" if self.kind is None else URN + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": quote(path, errors="replace"),
        }
        if self.errors:
            document["errors"] = [error.model_dump() for error in self.errors]
        if self.check:
            document["check"] = list(self.check)
        return document

    def response(self, request: Request) -> Response:
        """The answer to a request."""
        # ASCII only: what a client sent may hold characters that UTF-8 cannot say (lone surrogates).
        body = json.dumps(self.document(request.scope["path"])).encode("ascii")
        return Response(body, self.status, media_type=PROBLEM_JSON, headers=self.headers)


def unknown_model(model: str, topic_prefix: str) -> Problem:
    """A 404 that lists what to check."""
    check = (
        "the spelling: GET /api/v1/models lists every model that is known",
        (
            f"that something was published for it, to the topics {topic_prefix}predictions,"
            f" {topic_prefix}model-versions or {topic_prefix}policies"
        ),
        f"that it was not refused: the topic {topic_prefix}dead-letters says why a record was",
        "that the metrics service is ready and has no lag: GET /api/v1/system/status",
    )
    listed = "; ".join(f"({number}) {item}" for number, item in enumerate(check, 1))
    return Problem(
        404,
        "unknown-model",
        f"No model named {model!r} is known. Check {listed}.",
        title="Unknown model",
        check=check,
    )


def our_mistake(error: Exception) -> Problem:
    """What nobody expected. The server logs the error itself, with its traceback."""
    return Problem(500, None, f"The gateway made a mistake ({type(error).__name__}); its log has the cause.")


def describe(error: BaseException) -> str:
    """An error in one line, its kind first."""
    kind = type(error).__name__
    first = next(iter(str(error).splitlines()), "").removeprefix(f"{kind}: ")
    return f"{kind}: {first}" if first else kind


def rules_broken(error: RequestValidationError) -> list[BrokenRule]:
    """The fields that broke a rule, without the values: those may be anything."""
    return [
        BrokenRule(field=_printable(_field(broken)), rule=_printable(broken["msg"])) for broken in error.errors()
    ]


def _field(broken: Mapping[str, Any]) -> str:
    # The first part says where it stood (query, header, body); the rest is the field.
    place, *path = broken["loc"]
    return str(place) if broken["type"] == "json_invalid" or not path else ".".join(map(str, path))


def _printable(text: str) -> str:
    return text.removeprefix("Value error, ").encode("utf-8", "replace").decode("utf-8")


def _invalid(request: Request, error: Exception) -> Response:
    return _rules_problem(rules_broken(cast(RequestValidationError, error))).response(request)


def _rules_problem(broken: Sequence[BrokenRule]) -> Problem:
    said = "; ".join(f"{rule.field}: {rule.rule}" for rule in broken)
    return Problem(422, "invalid-request", said, title="Invalid request", errors=broken)


def _http(request: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    if raised.status_code == BODY_UNREADABLE:
        return _rules_problem([BrokenRule(field="body", rule="must be JSON in UTF-8")]).response(request)
    details = {
        404: "There is nothing at this path. GET /openapi.json lists what there is.",
        405: f"{request.method} is not among what this path allows.",
    }
    detail = details.get(raised.status_code, str(raised.detail))
    return Problem(raised.status_code, None, detail, headers=raised.headers).response(request)


def _problem(request: Request, error: Exception) -> Response:
    return cast(Problem, error).response(request)


def install(app: FastAPI) -> None:
    """Make every expected error of ``app`` a problem document; the others are left to the middleware."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
