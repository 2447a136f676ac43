"""`bench figures`: the pictures of a run, or of a folder of published records."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.core.errors import RequestError
from bench.report.figures.catalog import render_figures
from bench.report.records import load_records


def draw_figures(out: Path, console: Console) -> int:
    """Write every figure that has data into `out`/figures, and say which records the others want."""
    if not ((out / "records").is_dir() or (out / "records.jsonl").is_file()):
        raise RequestError(f"There are no records under {out}.", "Run a grid first, or name its folder with --out.")
    drawn = render_figures(load_records(out))
    folder = out / "figures"
    try:
        if drawn.files:
            folder.mkdir(parents=True, exist_ok=True)
        for name, content in drawn.files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise RequestError(f"{folder} cannot be written: {error.strerror}.", "Name a folder that can be.") from None
    for name in drawn.files:
        console.print(f"figure: {folder / name}", markup=False, highlight=False)
    for line in drawn.skipped:
        console.print(f"skipped: {line}", markup=False, highlight=False)
    return 0
