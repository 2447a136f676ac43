"""The axes that the command line replaces, as a grid file would name them."""

from __future__ import annotations

from typing import Any

from bench.core.errors import RequestError


def axes(given: dict[str, Any]) -> dict[str, Any]:
    """Return the axes that the command line names, as a grid file would."""
    from bench.engine.plugins import split_list, value_of

    changes: dict[str, Any] = {}
    for axis in ("datasets", "attacks", "defenders", "models", "label_rules", "recipes", "precisions"):
        if given[axis] is not None:
            changes[axis] = tuple(split_list(given[axis]))
    for axis in ("poison_ratios", "seeds", "target_labels"):
        if given[axis] is not None:
            changes[axis] = tuple(value_of(item) for item in split_list(given[axis]))
    return changes


def narrowed(given: dict[str, Any]) -> dict[str, Any]:
    """Return the axes that the command line replaces, its limit and its settings."""
    from bench.engine.plugins import value_of

    changes = axes(given)
    changes |= {name: given[name] for name in ("limit", "analysis") if given.get(name) is not None}
    settings = {}
    for item in given["set_"] or ():
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--set {item!r} has no value.", "Write axis.option=value.")
        settings[name.strip()] = value_of(value)
    if settings:
        changes["set"] = settings
    return changes
