"""The named data sets: one YAML file each in `configs/datasets`, and what else a name can mean."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from bench.core.errors import unknown
from bench.core.options import build
from bench.core.paths import is_file, is_folder
from bench.data.custom import custom_spec
from bench.data.spec import About, DatasetSpec, merged
from bench.data.tables import SUFFIXES

# What a user may set of a named data set: which of its rows make up train and dev.
CHOICES = ("dev", "dev_seed", "disjoint", "subset", "subset_seed", "subset_digest")
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@functools.cache
def dataset_names() -> tuple[str, ...]:
    """Return the names of the data sets with a file in `configs/datasets`, sorted."""
    folder = files("configs") / "datasets"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


@functools.cache
def _content(name: str) -> Mapping[str, Any]:
    """Return the fields that the YAML file of a data set gives, those it inherits by `extends` included."""
    if name not in dataset_names():
        raise unknown("dataset", name, dataset_names())
    text = (files("configs") / "datasets" / f"{name}.yaml").read_text(encoding="utf-8")
    own = yaml.safe_load(text)
    base = own.pop("extends", None)
    return merged(_content(base), own) if base else own


def is_custom(name: str) -> bool:
    """Return whether a name means the user's own data: `hub:ID`, a table file, or a folder."""
    if name in dataset_names():
        return False
    path = Path(name)
    known = path.suffix.lower() in SUFFIXES or is_folder(path) or is_file(path)  # a file of no table says so itself
    return name.startswith("hub:") or "/" in name or known


def dataset_spec(name: str, options: Mapping[str, Any] = NO_OPTIONS) -> DatasetSpec:
    """Return the spec of a data set by name, `hub:ID` or local path, with some options changed.

    A custom data set is read here, since its content is its identity.

    Raises:
        RequestError: no such data set (with the nearest name), or a wrong option.
        DataError: a custom data set that cannot be read.
    """
    if is_custom(name):
        return custom_spec(name, options)
    for key in options:
        if key not in CHOICES:
            raise unknown(f"option of dataset {name!r}", key, CHOICES)
    content = {key: value for key, value in _content(name).items() if key != "about"} | {"name": name}
    spec, plain = (build(DatasetSpec, {**content, **given}, "dataset", name) for given in (options, NO_OPTIONS))
    if "subset_digest" not in options and spec != plain:
        return replace(spec, subset_digest="")  # it is that of the rows which the unchanged spec draws
    return spec


def about(name: str) -> About:
    """Return title, citation and known leaks of a data set; a custom one has none."""
    if name not in dataset_names():
        return About(title=name)
    return build(About, _content(name).get("about", {}), "dataset", name)
