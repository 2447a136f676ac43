"""`bench export`: the records of a run as a file that other tools read."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console

from bench.core.errors import RequestError
from bench.report.export import to_dataset, to_every_eval_ever, to_pandas
from bench.report.references import resolve

DEFAULTS = {"pandas": "records.parquet", "datasets": "records-dataset", "every-eval-ever": "every-eval-ever"}


def export_records(reference: str, form: str, into: Path | None, console: Console) -> int:
    """Write the records of a run: a Parquet file, a folder of `datasets`, or a folder of Every Eval Ever logs.

    Raises:
        BenchError: there are no records, something is in the way, or it cannot be written.
    """
    records = list(resolve(reference).records)
    target = into if into is not None else Path(DEFAULTS[form])
    if target.exists():
        raise RequestError(f"{target} is already there.", "Name another place with --into.")
    if form == "pandas" and target.suffix != ".parquet":
        raise RequestError(f"{target} does not end in .parquet.", "Name a .parquet file, which keeps every type.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        count = _write(records, form, target)
    except OSError as error:
        raise RequestError(f"{target} cannot be written: {error.strerror or error}.", "Name another place.") from None
    console.print(f"written: {target}, {count} records", markup=False, highlight=False)
    return 0


def _write(records: list, form: str, target: Path) -> int:
    if form == "pandas":
        to_pandas(records).to_parquet(target)
        return len(records)
    if form == "datasets":
        import datasets

        shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            to_dataset(records).save_to_disk(str(target))
        finally:
            if shown:
                datasets.enable_progress_bars()
        return len(records)
    logs = to_every_eval_ever(records, int(time.time()))
    for path, log in logs.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(log, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
    return len(logs)
