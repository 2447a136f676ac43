"""`bench speed`: how fast this machine trains, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from tabulate import tabulate

from bench.core.errors import RequestError
from bench.engine.preflight import choose_device, data_folder

COLUMNS = ("name", "defense", "precision", "samples_per_second", "peak_memory_mb", "trainable_parameters")


def measure_speed(
    model: str,
    dataset: str,
    data: str | None,
    device: str,
    precision: str,
    steps: int,
    file: Path | None,
    console: Console,
) -> int:
    """Measure vanilla, LoRA and MuScleLoRA side by side; print Markdown, write JSON where a file is named."""
    from bench.data import dataset_spec, load_dataset
    from bench.victim.spec import model_spec
    from bench.victim.speed import speed_rows

    if file is not None and not file.parent.is_dir():
        raise RequestError(f"--json {file} lies in no folder.", "Name a file in a folder that exists.")
    if steps < 1:
        raise RequestError(f"--steps is {steps}: at least 1 is needed.", "Leave it out for 20.")
    rows = speed_rows(
        model_spec(model),
        load_dataset(dataset_spec(dataset), data_folder(data)).train,
        steps=steps,
        device=choose_device(device)[0],
        precision=precision,
    )
    shown = [[_shown(row[column]) for column in COLUMNS] for row in rows]
    title = f"{model} on {dataset}, batch {rows[0]['batch_size']}, {rows[0]['threads']} thread, {rows[0]['device']}\n"
    console.print(title, markup=False, highlight=False)
    console.print(tabulate(shown, COLUMNS, tablefmt="pipe", disable_numparse=True), markup=False, highlight=False)
    if file is not None:
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _shown(value: float | str) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
