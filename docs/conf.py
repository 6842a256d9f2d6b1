"""The site that `make docs` builds of these pages. Warnings are errors; nothing is loaded from outside."""

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.parsers.rst import Directive

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Trueward"
author = "The Trueward authors"
version = release = version_of("trueward")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = True

# Headings get GitHub's anchors, so that a link works on both.
myst_heading_anchors = 4
# GitHub draws these; the site shows the text version that stands beside each.
myst_fence_as_directive = ["mermaid"]

html_theme = "furo"
html_title = "Trueward"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
# Summaries of what was found would be fetched, which a browser refuses to pages that are read from a disk.
html_show_search_summary = False
html_theme_options = {"footer_icons": []}


class DrawnElsewhere(Directive):
    """A diagram that only GitHub draws."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Nothing: what draws it would have to be loaded from outside."""
        return []


TOCTREE = """
```{{toctree}}
:hidden:
{options}

{pages}
```
"""


def complete(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Give a place to pages that no table of contents names: decisions, and what index.md does not list."""
    if docname == "decisions/README":
        source[0] += TOCTREE.format(options=":glob:", pages="[!R]*")
    if docname == "index":
        named = set(source[0].split())
        rest = sorted(page.stem for page in app.srcdir.glob("*.md") if page.stem not in {"index", *named})
        if rest:
            source[0] += TOCTREE.format(options=":caption: More", pages="\n".join(rest))


def setup(app: "Sphinx") -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("mermaid", DrawnElsewhere)
    app.connect("source-read", complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
