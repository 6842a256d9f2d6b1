"""``trueward policy``: show a model's policy, or bring one into force from a YAML file."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from shared.contracts.base import unknown_fields
from shared.contracts.models import Policy
from shared.decoding import refusal_of
from shared.errors import UsageError
from shared.settings import Settings
from shared.topics import MAX_RECORD_BYTES, POLICIES
from trueward.cli import broker, output
from trueward.cli.connection import Connection
from trueward.cli.http import ask
from trueward.cli.lines import Keyed


class _Loader(yaml.SafeLoader):
    """Plain data as JSON has it: times stay text for the contract to read, and no key may stand twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What a node stands for. PyYAML lets what Python says of a bad number or a bad time through."""
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            tag = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"this is no {tag}", problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys differ."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def apply(path: Path, connection: Connection, *, dry_run: bool, as_json: bool) -> None:
    """Check a file's policies, and publish them.

    Raises ``UsageError`` for a file that is no policy, unknown keys included; ``AwayError`` without a broker.
    """
    policies = read(path)
    if not dry_run:
        asyncio.run(_send(connection.settings(), policies))
    if as_json:
        said = [
            {"model": policy.model, "policy_sha256": policy.sha256(), "policy": policy.known()}
            for policy in policies
        ]
        output.answer({"sent": not dry_run, "policies": said})
        return
    for policy in policies:
        begins = (
            "as soon as it is received"
            if policy.effective_at is None
            else f"from {policy.effective_at.isoformat()}"
        )
        done = "is valid (not sent)" if dry_run else f"sent, in force {begins}"
        output.say(f"policy of {policy.model} {done}; SHA-256 {policy.sha256()}")


def show(model: str, connection: Connection, *, as_json: bool) -> None:
    """Print a model's policy in force, defaults filled in, as a file that ``apply`` would take."""
    found = ask(connection, "/api/v1/mlops/policies", {"model": model})
    if as_json:
        output.answer(found)
        return
    newest = found["policies"][0] if found["policies"] else None
    if found["in_force"] is not None:
        output.say(f"# in force; SHA-256 {found['policy_sha256']}")
    elif newest is None:
        output.say("# the defaults: none was received, and no snapshot was made yet")
    if newest is not None and newest["policy_sha256"] != found["policy_sha256"]:
        output.say(f"# not in force yet: SHA-256 {newest['policy_sha256']}, {_received(newest)}")
    shown = found["in_force"] or (newest["policy"] if newest else Policy(model=model).known())
    output.say(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())


def _received(policy: dict[str, Any]) -> str:
    effective = f", effective from {policy['effective_at']}" if policy["effective_at"] else ""
    return f"received {policy['received_at']}{effective}; it comes into force with a snapshot"


def read(path: Path) -> list[Policy]:
    """The policies of a YAML file: one document each. Raises ``UsageError`` for the first thing that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return policies_of(content, str(path))


def policies_of(content: bytes, source: str) -> list[Policy]:
    """The policies that a YAML file holds. Raises ``UsageError`` for the first thing that is wrong."""
    try:
        documents = list(yaml.load_all(content.decode("utf-8"), Loader=_Loader))
    except RecursionError as error:
        raise UsageError(f"{source} nests too deeply") from error
    except (yaml.YAMLError, ArithmeticError, ValueError) as error:
        raise UsageError(f"{source} is no YAML: {_one_line(error)}") from error
    policies = [_policy(source, document) for document in documents if document is not None]
    if not policies:
        raise UsageError(f"{source} holds no policy")
    return policies


def _policy(source: str, document: object) -> Policy:
    if not isinstance(document, dict):
        raise UsageError(f"{source}: a policy is a mapping that begins with `model:`")
    try:
        policy = Policy.model_validate_json(_as_json(document))
    except ValidationError as error:
        refusal = refusal_of(error)
        said = f"{refusal.field}: {refusal.detail}" if refusal.field else refusal.detail
        raise UsageError(f"{source}: {said}") from error
    except RecursionError as error:
        raise UsageError(f"{source}: it nests too deeply") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: {error}") from error
    if ambiguity := policy.ambiguity():
        raise UsageError(f"{source}: segments: {ambiguity}")
    if unknown := unknown_fields(policy):
        raise UsageError(f"{source}: a policy has no {', '.join(map(_with_suggestion, unknown))}")
    return policy


def _as_json(document: object) -> str:
    """JSON, written out no further than a topic takes it: a few lines of aliases may stand for a billion words.

    Raises ``ValueError``, ``TypeError`` or ``RecursionError`` for what is no JSON.
    """
    parts, size = [], 0
    for part in json.JSONEncoder(check_circular=False).iterencode(document):
        size += len(part)
        if size > MAX_RECORD_BYTES:
            raise ValueError(f"it is larger than a topic takes ({MAX_RECORD_BYTES} bytes)")
        parts.append(part)
    return "".join(parts)


def _with_suggestion(field: str) -> str:
    close = difflib.get_close_matches(field.rsplit(".", 1)[-1], set(_known_names(Policy)), n=1)
    return f"{field!r} (did you mean {close[0]!r}?)" if close else repr(field)


def _known_names(contract: type[BaseModel]) -> Iterator[str]:
    for name, field in contract.model_fields.items():
        yield name
        for part in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _known_names(part)


async def _send(settings: Settings, policies: list[Policy]) -> None:
    broker.quiet()
    records = [Keyed(policy.model.encode(), policy.to_json()) for policy in policies]
    with broker.one_line(settings, lambda: "no policy, or not every one, was sent: apply the file again"):
        await broker.existing(settings, [POLICIES])
        async with broker.producing(settings) as producer:
            await broker.send_all(producer, settings.topic_prefix + POLICIES.name, records, lambda _: None)


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())
