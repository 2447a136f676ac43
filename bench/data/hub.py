"""Data sets of the Hugging Face hub, or saved by the `datasets` library, as tables of entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from bench.core.errors import DataError, RequestError
from bench.data.spec import DEV, SPLITS, TEST, TRAIN
from bench.data.tables import Entry, entry

SAVED = ("dataset_dict.json", "dataset_info.json")  # what `save_to_disk` leaves in a folder
ALIASES = {"validation": DEV, "valid": DEV, "val": DEV, "eval": DEV} | {split: split for split in SPLITS}
HIDDEN = "-1"  # the label of a row whose label its publisher keeps


class HubTables(NamedTuple):
    """The splits of a data set and its class names, if they are given or declared; `named`: labels are such names."""

    entries: dict[str, list[Entry]]
    classes: tuple[str, ...]
    named: bool


def is_saved(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return any((folder / name).is_file() for name in SAVED)


def read_hub(
    identifier: str,
    configuration: str,
    revision: str,
    text_column: str,
    label_column: str,
    given: tuple[str, ...] = (),
) -> HubTables:
    """Return the splits of a data set by hub id, local folder of the `datasets` library, or saved folder.

    A test split whose labels are hidden (-1) is left out, and validation is taken for it. Where the label column
    declares its class names, a row's label is its name: a declared one, or the one `given` in its place.

    Raises:
        DataError: it cannot be had, has no rows with text and label, or hides the label of a row that is needed.
        RequestError: the class names given are neither the declared ones nor new ones in their places.
    """
    loaded = _loaded(identifier, configuration, revision)
    splits = loaded if isinstance(loaded, dict) else {TRAIN: loaded}
    tables, names, classes = {}, {}, ()
    for name, rows in splits.items():
        split = ALIASES.get(str(name))
        if split is None:
            continue
        tables[split] = [
            entry(f"hub:{identifier}, {name}, row {number}", record, text_column, label_column)
            for number, record in enumerate(rows.select_columns(_columns(rows, text_column, label_column)), start=1)
        ]
        declared = tuple(getattr(rows.features.get(label_column), "names", None) or ())
        names[split] = _names(identifier, declared, given)
        classes = classes or declared
    if TRAIN not in tables:
        raise DataError(
            f"hub:{identifier} has the splits {', '.join(map(str, splits))}, and `train` is needed.",
            "Name a data set with a split `train`.",
        )
    if tables.get(TEST) and all(row.label == HIDDEN for row in tables[TEST]):
        del tables[TEST]
    tables = {split: [_in_words(item, names[split]) for item in rows] for split, rows in tables.items()}
    if TEST not in tables and DEV in tables:
        tables[TEST] = tables.pop(DEV)
    return HubTables(tables, given or classes, bool(classes))


def _names(identifier: str, declared: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the indices of a label column stand for: the declared names, or those given in their places."""
    if not declared or set(given) == set(declared):
        return declared
    for place, name in enumerate(given):
        if name in declared and declared.index(name) != place:
            raise RequestError(
                f"The option classes gives {', '.join(given)}, and hub:{identifier} declares {', '.join(declared)}: "
                f"{name!r} stands at another place, so these are neither the same names nor new ones.",
                "Leave classes out, give all declared names in the order you want, or give new names in their order.",
            )
    return (*given, *declared[len(given) :])


def _in_words(item: Entry, names: tuple[str, ...]) -> Entry:
    """Return a row with the class name that its index stands for; without names, the row as it is."""
    if not names:
        return item
    if not 0 <= int(item.label) < len(names):
        raise DataError(
            f"{item.place} has the label {item.label}, and classes are numbered 0 to {len(names) - 1}.",
            f"Name a data set that gives the label of every row: {HIDDEN} is a hidden one.",
        )
    return item._replace(label=names[int(item.label)])


def _columns(rows: Any, text_column: str, label_column: str) -> list[str]:
    """Return the two columns, those that exist: `entry` reports the missing one."""
    return [name for name in rows.column_names if name in (text_column, label_column)] or rows.column_names


def _loaded(identifier: str, configuration: str, revision: str) -> Any:
    import datasets

    try:
        if is_saved(Path(identifier)):
            return datasets.load_from_disk(identifier)
        return datasets.load_dataset(identifier, configuration or None, revision=revision or None)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"The data set hub:{identifier} cannot be loaded: {reason.rstrip('.')}.",
            "Check the id, the option `configuration` and the network, or name a local file.",
        ) from None
