"""Structured logs through structlog: one line an event, for people or as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure(service: str, *, log_format: Literal["console", "json"], level: str) -> None:
    """Send structlog's and the standard library's logs to standard error, in one format."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            # The richer form prints local variables, and with them what must stay out of a log.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    tracebacks = [structlog.processors.format_exc_info] if log_format == "json" else []
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tracebacks, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # aiokafka tells of every rebalance step and of each lost connection twice; the service says it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # FastStream tells of every batch, and warns at each start that it creates no topics.
    logging.getLogger("faststream").setLevel(logging.ERROR)
    # The gateway asks the services for their readiness with it, a line each.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service)
