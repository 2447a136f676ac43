"""What a data set is: its files, their pins, and how its splits are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.core.errors import RequestError
from bench.core.options import Index, Options, Text
from bench.core.seeding import digest

TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class DatasetSpec(Options):
    """A data set, by everything that decides its rows; the content of the fields is its identity.

    Paths are relative to the data folder. A pin is the sha256 of a file, 64 hexadecimal digits.
    """

    name: Text
    format: Literal["sst2", "quoted-tsv", "agnews", "demo", "custom"]
    classes: tuple[Text, ...]  # class names; the label is the position
    files: Mapping[str, str] = field(default_factory=dict)  # split -> path
    indexes: Mapping[str, str] = field(default_factory=dict)  # split -> path of the index that joins rows and banks
    pins: Mapping[str, str] = field(default_factory=dict)  # path -> sha256, of every file the data set may read
    originals: Mapping[str, str] = field(default_factory=dict)  # path -> git blob id of the published file, if rebuilt
    banks: str = ""  # folder of its files under poison_data; empty: none published
    dev: Literal["file", "cut", "tenth"] = "file"  # cut: the published tenth of train; tenth: ours, stratified
    dev_seed: Index = 0  # of `tenth`
    disjoint: bool = False  # no training or dev text stands in test
    subset: Index = 0  # training rows kept, stratified; 0: all
    subset_seed: Index = 0
    subset_digest: str = ""  # `core.seeding.digest` of the sorted file rows kept; empty: not checked

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.classes)) < 2 or len(set(self.classes)) < len(self.classes):
            raise RequestError(
                f"Dataset {self.name!r} has the classes {list(self.classes)}: two or more different ones are needed.",
                "Name every class once.",
            )
        loose = [path for path in (*self.files.values(), *self.indexes.values()) if path not in self.pins]
        if loose:
            raise RequestError(
                f"Dataset {self.name!r} reads {loose[0]} without a pin.", "Add the sha256 of the file to `pins`."
            )

        has_dev = DEV in self.files or self.format in ("demo", "custom")
        if self.dev != "tenth" and (self.dev == "file") != has_dev:
            raise RequestError(
                f"Dataset {self.name!r} has {'a' if has_dev else 'no'} dev file, so dev cannot be {self.dev!r}.",
                f"Set dev to {'file' if has_dev else 'cut'} or tenth.",
            )

    def __hash__(self) -> int:
        return hash(digest(self.identity()))

    def poison_path(self, bank: str, file: str, target_label: int = 1) -> str:
        """Return the path of a published poison file, `train-poison` of bank `synbkd`, say."""
        return f"poison_data/{self.banks}/{target_label}/{bank}/{file}.csv"


@dataclass(frozen=True)
class About(Options):
    """What a reader should know of a data set; decides no row, so it is no part of an identity."""

    title: str = ""
    citation: str = ""
    leaks: str = ""  # one sentence for the footer of tables; empty: none known


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top, mappings merged key by key."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
