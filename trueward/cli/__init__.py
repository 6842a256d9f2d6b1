"""The command line ``trueward``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

OK, AWAY, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0: done; 1: the broker, the database or the gateway is away; 2: the command or its input is wrong. An expected
    error is one line on standard error; a traceback is a mistake of ours.
    """
    if not _is_installed():
        return _say("the command line comes with the services: pip install 'trueward[server]'", WRONG)
    return _run(arguments)


def _is_installed() -> bool:
    """Whether the command line's own dependencies are here: the client does without them."""
    try:
        import typer  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        return False
    return True


def _run(arguments: Sequence[str] | None) -> int:
    import typer  # noqa: PLC0415 (each command loads what it needs: --help must not wait for Kafka's client)

    from trueward.cli.app import app  # noqa: PLC0415

    try:
        # Outside standalone mode Typer leaves errors to us, and returns an early exit's code.
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except typer.TyperException as error:
        return _say(error.format_message(), error.exit_code)
    except typer.Abort:
        return _say("nothing was done", AWAY)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as ended:
        # A service's own; else Typer's, for a broken pipe: who read our output has seen enough (`... | head`).
        code = ended.code if _is_of_a_service(ended) else OK
    except Exception as error:
        expected = _expected(error)
        if expected is None:
            raise
        return expected
    return code if isinstance(code, int) else OK


def _is_of_a_service(ended: SystemExit) -> bool:
    from shared.errors import ServiceExit  # noqa: PLC0415

    return isinstance(ended, ServiceExit)


def _expected(error: Exception) -> int | None:
    """One line and a code for an expected error; None for any other."""
    from shared.errors import TruewardError, UsageError  # noqa: PLC0415
    from trueward.cli.connection import AwayError  # noqa: PLC0415

    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return _expected(error.exceptions[0])
    if isinstance(error, AwayError):
        return _say(str(error), AWAY)
    if isinstance(error, UsageError | TruewardError):
        return _say(str(error), WRONG)
    return None


def _say(message: str, code: int) -> int:
    if message:  # the help that Typer shows for a command without arguments has been printed already
        sys.stderr.write(f"trueward: {_in_one_line(message)}\n")
    return code


def _in_one_line(message: str) -> str:
    """What a file's name or a field's name holds moves no cursor and breaks no line."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in message.strip()
    )
