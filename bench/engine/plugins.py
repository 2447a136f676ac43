"""From a name with options to a constructed plug-in and to the `Part` that stands for it in a cell."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from bench.core import registry
from bench.core.errors import RequestError
from bench.core.options import build
from bench.core.paths import absolute
from bench.core.registry import ANALYSES, ATTACKERS, DEFENDERS, Family
from bench.core.spec import Part
from bench.core.yaml_text import read_yaml
from bench.engine.plugin_code import check_on_disk, check_planned, pinned_code
from bench.victim.spec import ModelSpec

INLINE = re.compile(r"^(?P<name>[^()]+?)\s*(?:\((?P<options>.*)\))?$", re.DOTALL)


def parse(text: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return name and options of `name`, `name(option=value, ...)` or `{name: ..., option: value}`.

    Values are YAML. Raises:
        RequestError: neither of these forms.
    """
    if isinstance(text, Mapping):
        options = dict(text)
        name = options.pop("name", None)
        if not isinstance(name, str) or not all(isinstance(key, str) for key in options):
            raise RequestError(f"{dict(text)!r} has no name.", "Write {name: NAME, option: value}.")
        return name, options
    match = INLINE.match(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise RequestError(f"{text!r} is no name.", "Write NAME or NAME(option=value, option=value).")
    options = {}
    for item in split_outside_brackets(match["options"] or "", ","):
        option, equals, value = item.partition("=")
        if not equals or not option.strip().isidentifier():
            raise RequestError(f"{item!r} in {text!r} is no option.", "Write option=value.")
        if option.strip() in options:
            raise RequestError(f"{text!r} sets {option.strip()} twice.", "Set it once.")
        options[option.strip()] = value_of(value)
    return match["name"].strip(), options


def value_of(text: str) -> Any:
    """Return the YAML value of a piece of text.

    Raises:
        RequestError: it is not YAML.
    """
    try:
        return read_yaml(text)
    except ValueError as error:
        raise RequestError(f"{text!r} is no value: {error}.", "Write a number, a word or [a, b].") from None


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split at the separators that stand outside brackets and quotes."""
    pieces, depth, quote, current = [], 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if char == separator and depth == 0 and not quote:
            pieces.append(current)
            current = ""
        else:
            current += char
    pieces.append(current)
    return [piece.strip() for piece in pieces if piece.strip()]


def split_list(text: str) -> list[str]:
    """Return the items of a comma-separated list; commas in brackets belong to an item."""
    return split_outside_brackets(text, ",")


def construct(family: Family, name: str, options: Mapping[str, Any]) -> Any:
    """Return the plug-in `name` with its options; one object for equal arguments."""
    return _construct(registry.plugin_class(family, name), family, name, json.dumps(options, sort_keys=True))


def chosen(family: Family, name: str, options: Mapping[str, Any]) -> Any:
    """Return the plug-in that a request names.

    Raises:
        RequestError: one from elsewhere, whose file has changed since this process imported it.
    """
    plugin = construct(family, name, options)
    if _from_file(_source(family, plugin, name)):
        check_on_disk(type(plugin), name)
    return plugin


@functools.lru_cache(maxsize=4096)
def _construct(found: type, family: Family, name: str, options: str) -> Any:
    try:
        return build(found, json.loads(options), family.kind, name)
    except TypeError as error:  # somebody else's class, with a constructor of its own
        reason = f"{family.kind} {name!r} cannot be constructed from its options: {error}."
        raise RequestError(reason, "Make its options fields of the dataclass, and write no __init__.") from error


def part_of(family: Family, plugin: Any, name: str) -> Part:
    """Return the part that stands for a constructed plug-in."""
    source = _source(family, plugin, name)
    code = pinned_code(type(plugin)) if _from_file(source) else {}
    if family is ANALYSES:  # it pins nothing else and reads no file
        return Part(plugin.name, plugin.identity(), source, plugin.version, code)
    # A worker may have another working folder.
    place = {option: absolute(path) for option, path in plugin.place().items()}
    return Part(plugin.name, plugin.identity(), source, plugin.version, {**plugin.pins(), **code}, place)


def _source(family: Family, plugin: Any, name: str) -> str:
    """Return the name by which a plug-in from elsewhere was asked for, nothing for one of the suite's own."""
    return "" if registry.own_plugins(family).get(plugin.name) is type(plugin) else name


def _from_file(source: str) -> bool:
    """Tell whether one file holds the code behind a source: a bridged class pins the whole of its package instead."""
    return bool(source) and not source.startswith(registry.RESERVED)


def restore(family: Family, part: Part | Mapping[str, Any]) -> Any:
    """Return the plug-in that a part, or its JSON, stands for.

    Raises:
        CellError: the file that holds its code is not the one that was planned with.
    """
    content = part.payload() if isinstance(part, Part) else part
    options, name = {**content["options"], **content.get("place", {})}, content.get("source") or content["name"]
    plugin = construct(family, name, options)
    check_planned(type(plugin), name, content.get("pins", {}))
    return plugin


def model(part: Part | Mapping[str, Any]) -> ModelSpec:
    """Return the spec of the model that a part stands for."""
    content = part.payload() if isinstance(part, Part) else part
    return build(ModelSpec, {**content["options"], **content.get("place", {})}, "model", content["name"])


def attacker(part: Part | Mapping[str, Any]) -> Any:
    """Return the attacker that a part stands for."""
    return restore(ATTACKERS, part)


def analysis(part: Part | Mapping[str, Any]) -> Any:
    """Return the analysis that a part stands for."""
    return restore(ANALYSES, part)


def defender(part: Part | Mapping[str, Any]) -> Any:
    """Return the defender that a part stands for."""
    return restore(DEFENDERS, part)
