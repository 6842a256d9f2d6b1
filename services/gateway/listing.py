"""The list of what can be asked, made from the API's own description."""

from __future__ import annotations

from html import escape
from typing import Any

CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Trueward</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body>
<h1>Trueward</h1>
<p>Keeps machine-learning models true. This gateway answers:</p>
<table>
<thead><tr><th scope="col">Endpoint</th><th scope="col">Answers</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p>The whole description, for people and machines: <a href="/openapi.json">/openapi.json</a>
(OpenAPI {openapi}, Trueward {version}).</p>
</body>
</html>
"""


def render(description: dict[str, Any]) -> str:
    """The page, from an OpenAPI document. It loads nothing, from here or from anywhere."""
    rows = "\n".join(
        _row(method, path, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    )
    return _PAGE.format(
        rows=rows, openapi=escape(description["openapi"]), version=escape(description["info"]["version"])
    )


def _row(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    shown = path + ("?" + "&".join(f"{name}=" for name in parameters) if parameters else "")
    said = operation.get("description", "").split("\n\n")[0]
    plain = method == "get" and "{" not in path and not _needs_something(operation)
    name = f'<a href="{escape(path)}">{escape(shown)}</a>' if plain else escape(shown)
    return f"<tr><td><code>{method.upper()} {name}</code></td><td>{escape(said)}</td></tr>"


def _needs_something(operation: dict[str, Any]) -> bool:
    return any(parameter.get("required") for parameter in operation.get("parameters", []))
