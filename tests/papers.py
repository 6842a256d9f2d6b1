"""The papers' fenced blocks, and a reader who does what they say: types the commands, saves the files, looks.

A block that says "Ctrl-C" runs in a terminal of its own, until the paper is through. A block of text after a
command is what a reader should see; its form is compared, not its figures (see :func:`form`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"`([\w.-]+\.(?:py|yaml|csv))`")
SHELL, SHOWN = "sh", "text"
FILES = ("python", "yaml")
PATIENCE_SECONDS = 150
POLL_SECONDS = 0.2
STOP_SECONDS = 30
DONE = "@@done@@"
WITH_A_DIGIT = re.compile(r"[\w.,:+-]*\d[\w.,:+-]*")
SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, its line, and the file that it is to be saved as."""

    language: str
    text: str
    line: int
    file: str | None

    @property
    def is_endless(self) -> bool:
        return "Ctrl-C" in self.text

    @property
    def makes(self) -> bool:
        """Whether it calls a target of the Makefile, which a test of papers leaves to others."""
        return self.text.startswith("make ")

    @property
    def starts_the_stack(self) -> bool:
        return "trueward up" in self.text


def blocks(paper: str) -> Iterator[Block]:
    """The fenced blocks in their order."""
    end = 0
    for found in FENCE.finditer(paper):
        names = FILE_NAME.findall(paper[end : found.start()].rpartition("\n#")[2])
        language = found["language"]
        end = found.end()
        yield Block(
            language,
            found["text"],
            paper.count("\n", 0, found.start()) + 1,
            names[-1] if names and language in FILES else None,
        )


def form(line: str) -> re.Pattern[str]:
    """What a line like this one looks like: a word with a digit may be any word; spaces, any number of them."""
    words = []
    end = 0
    shown = SPACES.sub(" ", line.strip())
    cut = shown.endswith("...")
    shown = shown.removesuffix("...")
    for word in WITH_A_DIGIT.finditer(shown):
        words += [re.escape(shown[end : word.start()]), r"[\w.,:+-]+"]
        end = word.end()
    return re.compile("".join([*words, re.escape(shown[end:]), ".*" if cut else ""]) + r"\Z")


def shows(said: str, shown: str) -> bool:
    """Whether a text has lines of the form of each line shown, in their order."""
    lines = iter([SPACES.sub(" ", line.strip()) for line in said.splitlines()])
    wanted = [line for line in shown.splitlines() if line.strip() != "..."]
    return all(any(form(line).match(candidate) for candidate in lines) for line in wanted)


@dataclass
class Running:
    """A terminal in which something runs until it is told to stop."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()

    def _listen(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            self.said.extend(lines)

    def stop(self) -> None:
        """As Ctrl-C does; what does not listen is killed."""
        assert self.process.stdin
        self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._ear.join()


class Reader:
    """Follows papers in a folder. ``instead`` says what stands here for what is written: ports that are free.

    ``up_options`` are added to what starts the stack.
    """

    def __init__(self, folder: Path, instead: dict[str, str], up_options: str) -> None:
        self._folder = folder
        self._instead = instead
        self._up_options = up_options
        self._stack: Running | None = None
        self._stack_text = ""
        self._terminals: list[Running] = []
        self._shell: Running | None = None
        (folder / ".venv").symlink_to(sys.prefix)

    def follow(self, paper: str, *, leave_out: str | None = None) -> list[Block]:
        """Do what a paper says. Returns the shell blocks that were run; those with ``leave_out`` are not."""
        followed: list[Block] = []
        left_out = False
        self._shell = self._terminal("bash")
        try:
            last: Block | None = None
            said = ""
            for block in blocks(paper):
                if block.file is not None:
                    (self._folder / block.file).write_text(self._here(block.text), encoding="utf-8")
                elif block.language == SHELL and not block.makes:
                    left_out = leave_out is not None and leave_out in block.text
                    if not left_out:
                        last, said = block, self._run(block)
                        followed.append(block)
                elif block.language == SHOWN and last is not None and not left_out:
                    self._look(block, last, said)
        finally:
            for terminal in [*self._terminals, self._shell]:
                terminal.stop()
            self._terminals = []
        return followed

    def close(self) -> None:
        """Stop the stack."""
        if self._stack is not None:
            self._stack.stop()
            self._stack = None

    def start(self, block: Block) -> None:
        """Start the stack that a block starts, unless it is the one that runs."""
        if self._stack is not None and self._stack_text == block.text:
            return
        self.close()
        text = self._here(block.text).partition("#")[0].strip()
        self._stack = self._terminal(f"exec {text} {self._up_options}")
        self._stack_text = block.text
        self._await(lambda: "everything answers" in self._heard(self._stack), "the stack to come up")

    def _run(self, block: Block) -> str:
        if block.starts_the_stack:
            self.start(block)
            return ""
        if block.is_endless:
            self._terminals.append(self._terminal(self._here(block.text)))
            return ""
        return self._type(block)

    def _type(self, block: Block) -> str:
        """Type a block into the shell; returns what was said. Fails where a command of it fails."""
        shell = self._shell
        assert shell is not None
        assert shell.process.stdin
        before = len(shell.said)
        shell.process.stdin.write(f"{self._here(block.text)}\necho; echo {DONE}\n")
        shell.process.stdin.flush()
        self._await(
            lambda: f"{DONE}\n" in shell.said[before:] or shell.process.poll() is not None,
            f"the commands of line {block.line}",
        )
        said = "".join(shell.said[before:])
        assert DONE in said, f"line {block.line}: a command failed:\n{block.text}\n{said}"
        return said.replace(f"{DONE}\n", "")

    def _look(self, shown: Block, last: Block, said: str) -> None:
        """Find what is shown; look again as a reader would, for everything here may be done twice."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            heard = [said, *(self._heard(terminal) for terminal in self._terminals)]
            if any(shows(text, self._here(shown.text)) for text in heard):
                return
            assert time.monotonic() < deadline, f"line {shown.line}: shown is\n{shown.text}\nsaid was\n{heard}"
            time.sleep(POLL_SECONDS)
            if not last.is_endless and not self._terminals:
                said = self._type(last)

    def _terminal(self, command: str) -> Running:
        # As an interactive shell does not, a failing command ends this one: that is how it is noticed.
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", *(["-c", command] if command != "bash" else ["-s"])],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("TRUEWARD_")},
                "PATH": f"{self._folder / '.venv' / 'bin'}:{os.environ['PATH']}",
                "COLUMNS": "200",
                "PYTHONUNBUFFERED": "1",
            },
        )
        return Running(process)

    def _here(self, text: str) -> str:
        for written, here in self._instead.items():
            text = text.replace(written, here)
        return text

    def _await(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _heard(terminal: Running | None) -> str:
        return "" if terminal is None else "".join(terminal.said)
