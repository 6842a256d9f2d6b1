"""``make fuzz``: every attack on bad input, one after the other, each for so many seconds; says what was found."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.fuzz.turns import FOUND

# No target names a file of tests here: atheris has attacked those already.
ATTACKS = (
    "tests/fuzz/test_handlers.py",
    "tests/fuzz/test_command_line.py",
    "tests/integration/test_gateway_bad_input.py",
    "tests/integration/test_gateway_openapi.py",
)
WITHOUT_ATHERIS = "tests/fuzz/test_targets.py"


def main() -> int:
    """Run everything; returns 1 where something was found."""
    seconds, seed = int(sys.argv[1]), sys.argv[2]
    print(f"seed {seed}; findings go to {FOUND}", flush=True)
    attacks = list(ATTACKS)
    if importlib.util.find_spec("atheris") is None:
        print(
            "atheris is not here (its wheels are for Linux on x86-64): the targets are attacked without guidance"
        )
        attacks.insert(0, WITHOUT_ATHERIS)
        failed = []
    else:
        failed = [target for target in TARGETS if not guided(target, seconds)]
    for attack in attacks:
        if not unguided(attack, seconds, seed):
            failed.append(attack)
    print(f"findings in: {', '.join(failed)}" if failed else "nothing was found")
    return 1 if failed else 0


def guided(target: str, seconds: int) -> bool:
    """Attack a target with atheris; whether it stood."""
    log = FOUND / f"{target}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.fuzz.campaign", target, str(seconds)]
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    executed = re.findall(rb"number_of_executed_units: (\d+)", log.read_bytes())
    inputs = sum(not path.name.startswith(("crash-", "timeout-")) for path in (FOUND / target).iterdir())
    print(
        f"{target}: {int(executed[-1]) if executed else 0:,} executions, {inputs} inputs kept,"
        f" {'nothing found' if code == 0 else f'a finding: {log}'}",
        flush=True,
    )
    return code == 0


def unguided(attack: str, seconds: int, seed: str) -> bool:
    """Run an attack that is a test, for longer; whether it passed."""
    environment = {**os.environ, "TRUEWARD_FUZZ_SECONDS": str(seconds), "TRUEWARD_FUZZ_SEED": seed}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--no-header", "--timeout=0", str(Path(attack))]
    log = FOUND / f"{Path(attack).stem}.log"
    with log.open("wb") as output:
        code = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    for line in re.findall(rb"^.+ turns in .+$", log.read_bytes(), re.MULTILINE):
        print(line.decode())
    print(f"{attack}: {'nothing found' if code == 0 else f'a finding: {log}'}", flush=True)
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
