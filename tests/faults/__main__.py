"""``python -m tests.faults --rounds 30 --seed 1``: real faults on a real deployment, and what it came to.

Exits with 1 on any breach of a promise, after the command that replays its world, with 3 where Kafka cannot run.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from deploy.local import apache_kafka
from tests.faults.audit import shortened
from tests.faults.campaign import Tally, report, world_of
from tests.faults.world import DISK_BYTES, World
from tests.parts import scratch_folder

CANNOT_RUN = 3
INTERRUPTED = 130
MOST_ROUNDS_OF_A_WORLD = 17
"""A world sees every kind of fault once; the next one begins from nothing, with the next seed."""
CLONE_NEWNS = 0x00020000


def say(line: str) -> None:
    """Told at once, also to whoever reads through a pipe."""
    print(line, flush=True)  # noqa: T201 - a program's output


def own_mounts() -> str | None:
    """Mounts of this program's own, which go with it however it ends; or why there can be none."""
    if sys.platform != "linux":
        return "tmpfs is Linux's"
    if os.geteuid() != 0:
        return "only root may mount a tmpfs"
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        return f"no mounts of one's own here: {os.strerror(ctypes.get_errno())}"
    for command in (["mount", "--make-rprivate", "/"],):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip()
    return None


def make_disk(folder: Path) -> str | None:
    """A small disk in ``folder``, or why there is none."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


def one_world(
    found: apache_kafka.Installation, seed: int, rounds: int, tally: Tally, *, disk: bool, short: bool
) -> None:
    """Run one world; on breaches keep what its processes said."""
    with scratch_folder() as folder:
        small = folder / "disk"
        small.mkdir(mode=0o755)
        if disk and (reason := make_disk(small)):
            say(f"PostgreSQL's disk is not filled: {reason}")
        try:
            asyncio.run(world_of(World(found, folder, small), seed, rounds, tally, say, short=short))
        finally:
            if tally.breaches:
                keep_logs(folder, seed)
            if small.is_mount():
                subprocess.run(["umount", "--lazy", str(small)], check=False)


def keep_logs(folder: Path, seed: int) -> None:
    """What the processes said, where it can be read afterwards."""
    kept = Path(".data") / f"faults-{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        (kept / log.name).write_bytes(log.read_bytes())
    say(f"what the processes said is kept in {kept}")


def main() -> int:
    """Run the campaign that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=MOST_ROUNDS_OF_A_WORLD)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="a handful of kinds, as in the ordinary test run")
    asked = parser.parse_args()
    found = apache_kafka.find()
    if isinstance(found, apache_kafka.Missing):
        say(f"skipped, because {found.why}")
        return CANNOT_RUN
    for name in [name for name in os.environ if name.startswith("TRUEWARD_")]:
        del os.environ[name]
    no_disk = own_mounts()
    if no_disk:
        say(f"PostgreSQL's disk is not filled: {no_disk}")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # whose every refused connection is no news here
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is to be cleared away is
    tally = Tally()
    try:
        run_worlds(found, tally, asked, disk=not no_disk)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return 1 if tally.breaches else 0


def run_worlds(found: apache_kafka.Installation, tally: Tally, asked: argparse.Namespace, *, disk: bool) -> None:
    """One world after the other until there were enough rounds or a breach; after each, the report so far."""
    seed, begun = asked.seed, time.monotonic()
    while tally.rounds < asked.rounds and not tally.breaches:
        rounds = min(asked.rounds - tally.rounds, MOST_ROUNDS_OF_A_WORLD)
        one_world(found, seed, rounds, tally, disk=disk, short=asked.short)
        for breach in shortened(tally.breaches):
            say(f"BREACH: {breach}")
        for line in report(tally, time.monotonic() - begun):
            say(line)
        if tally.breaches:
            arguments = f"ROUNDS={rounds} SEED={seed}" + (" ARGS=--short" if asked.short else "")
            say(f"replay this world with: make faults {arguments}")
        if asked.short:
            break
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
