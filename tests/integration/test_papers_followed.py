"""A reader types every command of the README, the quickstart and the page on alerts, and sees what they show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.processes import free_port
from tests import parts
from tests.papers import FILES, SHELL, SHOWN, Reader, blocks, form, shows

ROOT = Path(__file__).parents[2]
README, QUICKSTART, ALERTS = (
    ROOT / name for name in ("README.md", "docs/quickstart.md", "docs/alerts-to-incidents.md")
)
WITHOUT_KCAT = None if shutil.which("kcat") else "kcat"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """Somebody with an installed Trueward, at work in a folder of his own."""
    http, kafka, postgres = free_port(), free_port(), free_port()
    with parts.scratch_folder() as folder:
        found = Reader(
            folder,
            {
                "127.0.0.1:8080": f"127.0.0.1:{http}",
                "127.0.0.1:9092": f"127.0.0.1:{kafka}",
                "--snapshot-interval 10s": "--snapshot-interval 2s",
            },
            f"--http-port {http} --kafka-port {kafka} --postgres-port {postgres} --broker {parts.broker_choice()}",
        )
        yield found
        found.close()


def text(paper: Path) -> str:
    return paper.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_readme_can_be_followed(reader: Reader) -> None:
    assert len(reader.follow(text(README))) > 3


@pytest.mark.slow
def test_the_page_on_alerts_can_be_followed(reader: Reader) -> None:
    up = next(block for block in blocks(text(README)) if block.starts_the_stack)
    reader.start(up)
    assert len(reader.follow(text(ALERTS), leave_out=WITHOUT_KCAT)) > 3


@pytest.mark.slow
def test_the_quickstart_can_be_followed(reader: Reader) -> None:
    assert len(reader.follow(text(QUICKSTART), leave_out=WITHOUT_KCAT)) > 5


@pytest.mark.parametrize("paper", [QUICKSTART, ALERTS], ids=lambda paper: paper.name)
def test_kcat_was_there_to_be_tried(paper: Path) -> None:
    assert any("kcat" in block.text for block in blocks(text(paper)) if block.language == SHELL)
    if WITHOUT_KCAT:
        pytest.skip("no kcat here, so its commands were left out: install Debian's package kcat")


@pytest.mark.parametrize("paper", [README, QUICKSTART, ALERTS], ids=lambda paper: paper.name)
def test_every_block_says_what_it_is_so_that_none_is_passed_over(paper: Path) -> None:
    found = list(blocks(text(paper)))
    assert text(paper).count("```") == 2 * len(found)
    assert {block.language for block in found} <= {SHELL, SHOWN, *FILES}


def test_a_file_has_the_name_that_the_words_before_it_give() -> None:
    paper = "# A\n`old.py`\n## B\nSave this as `new.py`:\n\n```python\nx\n```\n\nand\n\n```yaml\ny\n```\n"
    assert [(block.language, block.text, block.file, block.line) for block in blocks(paper)] == [
        ("python", "x\n", "new.py", 6),
        ("yaml", "y\n", None, 12),
    ]


@pytest.mark.parametrize(
    ("shown", "said", "alike"),
    [
        ("at 12:00 42 came", "at 13:01   7 came", True),
        ("at 12:00 42 came", "at 13:01 7 went", False),
        ("at 12:00 42 came", "at 13:01 came", False),
        ('{"accepted":1,"refused":[]}', '{"accepted":40,"refused":[]}', True),
        ('{"accepted":1,"refused":[]}', '{"accepted":1,"refused":[2]}', False),
        ("one...", "one and more", True),
        ("one", "one and more", False),
    ],
)
def test_the_form_of_a_line(shown: str, said: str, alike: bool) -> None:
    assert bool(form(shown).match(" ".join(said.split()))) is alike


def test_lines_are_shown_in_their_order() -> None:
    assert shows("a\nb 1\nc\n", "a\n...\nb 2\n")
    assert not shows("b\na\n", "a\nb\n")
    assert shows("a\nb\n", "a\n...\nb\n")
