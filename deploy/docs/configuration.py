"""The page of settings, made from the services' own settings classes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from deploy.docs.tables import NOTE, table
from shared.settings import Settings
from shared.topics import Service

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def configuration_page() -> str:
    """Every environment variable that a service reads: its default, its values, what it means."""
    headings = ("variable", "default", "what")
    sections = [f"## Every service\n\n{table(headings, _rows(Settings, set(Settings.model_fields)))}"]
    for service in get_args(Service):
        settings = settings_of(service)
        own = set(settings.model_fields) - set(Settings.model_fields)
        if own:
            sections.append(f"## {service.capitalize()}\n\n{table(headings, _rows(settings, own))}")
    introduction = (
        "Services are told by environment variables alone; `trueward up` sets them for its own processes."
    )
    return f"# Configuration\n\n{NOTE} {introduction}\n\n" + "\n".join(sections)


def settings_of(service: Service) -> type[Settings]:
    """The settings class of a service. Raises ``LookupError`` where its module does not define just one."""
    module = importlib.import_module(f"services.{service}.settings")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Settings) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise LookupError(f"services.{service}.settings defines {len(found)} settings classes")
    return found[0]


def _rows(settings: type[Settings], names: set[str]) -> Iterator[tuple[str, str, str]]:
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        if name in names:
            yield f"`{prefix}{name.upper()}`", _default(field.default), _words(field)


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, timedelta):
        value = _duration(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _duration(value: timedelta) -> str:
    """As a setting spells it, in the largest unit that takes no fraction."""
    seconds = value.total_seconds()
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"{int(seconds // size)}{unit}"


def _words(field: FieldInfo) -> str:
    values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    choice = f" One of {', '.join(f'`{value}`' for value in values)}." if values else ""
    return f"{field.description or ''}{choice}"
