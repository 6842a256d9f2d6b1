"""A kind of import-linter contract that names what may be imported, where the built-in ones name what may not."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.domain.helpers import module_expressions_to_modules

# What a pure module has no use for: clocks, chance, input and output, concurrency.
IMPURE = frozenset(
    [
        "asyncio",
        "concurrent",
        "ctypes",
        "fileinput",
        "ftplib",
        "getpass",
        "glob",
        "http",
        "imaplib",
        "importlib",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "poplib",
        "random",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "smtplib",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "webbrowser",
    ]
)


class AllowedImports(Contract):  # type: ignore[misc]  # import-linter's base class is untyped
    """The modules below ``source_modules`` import nothing but one another, the standard library and ``allowed``.

    With ``pure`` the standard library is taken without its clocks, randomness, input, output and concurrency.
    """

    type_name = "allowed_imports"

    source_modules = fields.SetField(subfield=fields.ModuleExpressionField())
    allowed = fields.SetField(subfield=fields.StringField(), required=False, default=frozenset())
    pure = fields.BooleanField(required=False, default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 (import-linter's signature)
        sources = [module.name for module in module_expressions_to_modules(graph, self.source_modules)]
        imports = [
            (importer, imported)
            for source in sources
            for importer in sorted({source, *graph.find_descendants(source)})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not _is_below(imported, (source,)) and not self._allows(imported)
        ]
        metadata: dict[str, Any] = {"imports": imports, "sources": sources}
        return ContractCheck(kept=bool(sources) and not imports, metadata=metadata)

    def render_broken_contract(self, check: ContractCheck) -> None:
        if not check.metadata["sources"]:
            output.print_error("No module matches source_modules: the contract guards nothing.")
        for importer, imported in check.metadata["imports"]:
            output.print_error(f"{importer} is not allowed to import {imported}")

    def _allows(self, imported: str) -> bool:
        top = imported.partition(".")[0]
        standard = top in sys.stdlib_module_names and not (self.pure and top in IMPURE)
        return standard or _is_below(imported, self.allowed)


def _is_below(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
