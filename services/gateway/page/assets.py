"""The page's files: our own, and the charting library out of the package that carries it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served. Browsers keep it and ask each time whether it still is the same."""

    content: bytes
    media_type: str
    etag: str

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        return {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-cache",
            "ETag": self.etag,
        }


def _asset(file: Traversable) -> Asset:
    content = file.read_bytes()
    return Asset(
        content=content,
        media_type=MEDIA_TYPES[file.name.rpartition(".")[2]],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )


def _assets() -> dict[str, Asset]:
    own = resources.files(__package__).joinpath("static")
    library = resources.files("youplot").joinpath("vendor")
    return {
        **{file.name: _asset(file) for file in own.iterdir() if file.name.rpartition(".")[2] in MEDIA_TYPES},
        "uplot.js": _asset(library.joinpath("uplot.iife.min.js")),
        "uplot.css": _asset(library.joinpath("uplot.min.css")),
    }


ASSETS = _assets()
"""Every file, by the name that it has below /page/. Nothing else is served, whatever a path says."""
