"""The command that makes a cell again, from its record."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from bench.core.errors import BenchError
from bench.core.registry import ANALYSES, ATTACKERS, DEFENDERS, Family, plugin_class
from bench.report.records import Record, canonical

_WORD = re.compile(r"[A-Za-z][\w./-]*")
_YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def reproduce(record: Record) -> str:
    """Return one shell command that runs exactly this cell; every axis and every option that is no default is stated.

    A data set or model that is not in `configs` is named as the record names it: a record does not hold where its
    files lie.
    """
    cell = record["cell"]
    return f"{template(record)} --poison-ratios {_text(cell['poison_ratio'])} --seeds {cell['seed']}"


def template(record: Record) -> str:
    """Return the command of a cell up to its poison ratio and its seed."""
    parts = {axis: canonical(record["cell"][axis]) for axis in ("dataset", "attack", "model", "defense")}
    scalars = {name: record["cell"][name] for name in ("label_rule", "target_label", "recipe", "precision", "limit")}
    return _template(canonical(scalars), canonical(record["cell"].get("analysis")), **parts)


@functools.lru_cache(maxsize=4096)
def _template(scalars: str, analysis: str, dataset: str, attack: str, model: str, defense: str) -> str:
    values = json.loads(scalars)
    victim, recipe = json.loads(model), values["recipe"]
    words = ["python -m bench run --grid full"]
    words += ["--datasets", _dataset(json.loads(dataset)), "--attacks", _attack(json.loads(attack), recipe)]
    name, changes = _model(victim)
    words += ["--models", name, "--defenders", _defense(json.loads(defense), victim, recipe)]
    words += [word for key, value in changes.items() for word in ("--set", shlex.quote(f"model.{key}={_text(value)}"))]
    for name, option in (("label_rule", "rules"), ("target_label", "labels")):
        if values[name] is not None:
            words += [f"--{name.partition('_')[0]}-{option}", str(values[name])]
    words += ["--recipes", values["recipe"], "--precisions", values["precision"]]
    words += ["--limit", str(values["limit"])] if values["limit"] is not None else []
    if (watching := json.loads(analysis)) is not None:
        words += ["--analysis", shlex.quote(_named(_called(watching), _changed(watching, _plugin(ANALYSES, watching))))]
    return " ".join(words)


def _defense(part: Mapping[str, Any], model: Mapping[str, Any], recipe: str) -> str:
    """Return the links of a defense, each with the options that it would not take from itself, model or recipe."""
    links = (part.get("options") or {}).get("links")
    shown = []
    for link in links if isinstance(links, list) else [part]:
        plugin = _plugin(DEFENDERS, link)
        try:
            filled = plugin and plugin.for_model(_spec(model), recipe)
        except (BenchError, TypeError):  # the model cannot carry it: the cell failed, and states its options
            filled = plugin
        shown.append(_named(_called(link), _changed(link, filled)))
    return shlex.quote(">".join(shown))


def _attack(part: Mapping[str, Any], recipe: str) -> str:
    plugin = _plugin(ATTACKERS, part)
    return shlex.quote(_named(_called(part), _changed(part, plugin and plugin.for_recipe(recipe))))


def _called(part: Mapping[str, Any]) -> str:
    return str(part.get("source") or part["name"])


def _plugin(family: Family, part: Mapping[str, Any]) -> Any:
    """Return the plug-in with its defaults, or None where it is not installed or an option has no default."""
    try:
        return plugin_class(family, _called(part))()
    except (BenchError, TypeError):
        return None


def _changed(part: Mapping[str, Any], plugin: Any) -> dict[str, Any]:
    defaults = json.loads(canonical(plugin.identity())) if plugin is not None else {}
    options = part.get("options") or {}
    return {name: value for name, value in options.items() if name not in defaults or defaults[name] != value}


def _named(name: str, options: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{key}={_text(value)}" for key, value in sorted(options.items()))
    return f"{name}({inside})" if inside else name


def _dataset(part: Mapping[str, Any]) -> str:
    from bench.data import dataset_names, dataset_spec
    from bench.data.catalog import CHOICES

    name, options = part["name"], part.get("options") or {}
    if name not in dataset_names() or not options:
        return shlex.quote(name)
    defaults = json.loads(canonical(dataset_spec(name).identity()))
    changes = {key: options[key] for key in CHOICES if key in options and options[key] != defaults.get(key)}
    return shlex.quote(_named(name, changes))


def _spec(part: Mapping[str, Any], changed: bool = True) -> Any:
    """Return the spec of a model, with its options or as its name alone gives it."""
    return _spec_of(canonical(part), changed)


@functools.cache
def _spec_of(text: str, changed: bool) -> Any:
    from bench.victim.spec import ModelSpec, model_names, model_spec

    part = json.loads(text)
    name, options = str(part["name"]), {key: value for key, value in _options(part).items() if key != "name"}
    if name in model_names():
        return model_spec(name, options if changed else {})
    own = options if changed else {key: options.get(key) for key in ("hub", "revision", "path")}
    return ModelSpec(**{"path": ".", **own, "name": name})


def _options(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return part.get("options") or {}


def _model(part: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    from bench.victim.spec import model_names

    name, options = str(part["name"]), _options(part)
    if not options:
        return shlex.quote(name), {}
    if name not in model_names():
        name = str(options.get("path") or f"hub:{options.get('hub')}@{options.get('revision')}")
    try:
        defaults = json.loads(canonical(_spec(part, changed=False).identity()))
    except (BenchError, TypeError):  # options of another version: all are stated
        defaults = {}
    changes = {key: value for key, value in options.items() if key not in defaults or defaults[key] != value}
    return shlex.quote(name), dict(sorted(changes.items()))


def _text(value: Any) -> str:
    """Return a value as YAML that reads back as the same value."""
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}" if value else "0"
    return json.dumps(value)
