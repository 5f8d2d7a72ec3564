"""Reads and changes the model version in the text of a Serve config file, and nothing else of it.

The text is edited where the values stand, so comments and order stay and a diff shows what changes. KubeRay submits
the whole text again when it changes at all.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from services.errors import ConfigurationError
from services.rollout.version import Version

FIELD = "spec.serveConfigV2"
MAX_BYTES = 1 << 20
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_PLAIN = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_OPTIONAL = "vqgan"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def version_in(text: str, application: str) -> Version:
    """The version that `application` serves.

    Raises:
        ConfigurationError: the text is no Serve config file, or lacks the application or its arguments.
    """
    args = _args(_load(text), application)
    values = {name: args.get(name) for name in ("checkpoint", "model_id", _OPTIONAL)}
    for name, value in values.items():
        if not isinstance(value, str) and not (value is None and name == _OPTIONAL):
            raise ConfigurationError(
                f"the application {application} names no {name}, so no model can be rolled out",
                field=f"{FIELD}: applications[].args.{name}",
            )
    return Version(str(values["checkpoint"]), str(values["model_id"]), values[_OPTIONAL] or "")


def with_version(text: str, application: str, version: Version) -> str:
    """`text` with the version of `application` replaced.

    Raises:
        ConfigurationError: as `version_in`; or the arguments are written so that they cannot be edited in place
            (flow style, anchors).
    """
    wanted = _unshared(_load(text))
    args = _args(wanted, application)
    args.pop(_OPTIONAL, None)
    args.update(version.settings)
    made = text
    for name in ("model_id", "checkpoint", _OPTIONAL):
        made = _edit(made, application, name, version.settings.get(name))
    try:
        good = _load(made) == wanted
    except ConfigurationError:
        good = False
    if not good:
        raise ConfigurationError("the arguments must be written one a line, without anchors", field=FIELD)
    return made


def _edit(text: str, application: str, name: str, value: str | None) -> str:
    """`text` with one argument set, added below `checkpoint`, or taken away (None)."""
    found: Any = None
    checkpoint: Any = None
    for key, node in _args_node(text, application).value:
        if key.value == name:
            found = key, node
        if key.value == "checkpoint":
            checkpoint = key, node
    if found is None:
        if value is None:
            return text
        at = _line_end(text, checkpoint[1].end_mark.index)
        return f"{text[:at]}\n{' ' * checkpoint[0].start_mark.column}{name}: {_scalar(value)}{text[at:]}"
    key, node = found
    if value is None:
        start = text.rfind("\n", 0, key.start_mark.index) + 1
        return text[:start] + text[_line_end(text, node.end_mark.index) + 1 :]
    if node.value == value:
        return text
    return text[: node.start_mark.index] + _scalar(value) + text[node.end_mark.index :]


def _line_end(text: str, index: int) -> int:
    at = text.find("\n", index)
    return len(text) if at < 0 else at


def _scalar(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_PLAIN
    if plain:
        return value
    # Escapes of eight digits: YAML does not read the surrogate pairs that JSON writes.
    return (
        '"'
        + "".join(
            f"\\{char}" if char in '"\\' else char if " " <= char <= "~" else f"\\U{ord(char):08x}"
            for char in value
        )
        + '"'
    )


def _unshared(value: Any) -> Any:
    """A copy in which nothing is in two places, as an anchor and its aliases are."""
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value


def _load(text: str) -> dict[str, Any]:
    if len(text.encode()) > MAX_BYTES:
        raise ConfigurationError(f"is larger than {MAX_BYTES:,} bytes", field=FIELD)
    try:
        found = yaml.load(text, _LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        raise ConfigurationError(
            f"is no YAML{f' (line {where.line + 1})' if where else ''}", field=FIELD
        ) from None
    if not isinstance(found, dict):
        raise ConfigurationError("must be a mapping with applications", field=FIELD)
    return found


def _args(config: dict[str, Any], application: str) -> dict[str, Any]:
    applications = config.get("applications")
    for each in applications if isinstance(applications, list) else []:
        if isinstance(each, dict) and each.get("name") == application:
            args = each.get("args")
            if not isinstance(args, dict):
                raise ConfigurationError(f"the application {application} has no args", field=FIELD)
            return args
    raise ConfigurationError(f"has no application {application}", field=FIELD)


def _args_node(text: str, application: str) -> yaml.MappingNode:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for each in _value(root, "applications").value:
        if _value(each, "name").value == application:
            node: yaml.MappingNode = _value(each, "args")
            return node
    raise ConfigurationError(f"has no application {application}", field=FIELD)


def _value(node: Any, name: str) -> Any:
    return next(value for key, value in node.value if key.value == name)
