"""`bench speed`: how fast this machine trains, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tabulate import tabulate

from bench.core.errors import RequestError
from bench.engine.preflight import choose_device, data_folder, default_workers

COLUMNS = {
    "training": (
        *("name", "defense", "precision", "samples_per_second", "against_reference", "against_fp32", "against_ours"),
        *("seconds_per_cell", "peak_memory_mb", "peak_share"),
    ),
    "inference": (
        *("name", "defense", "model", "sentences", "calibration_rows", "seconds", "sentences_per_second"),
        *("against_one_at_a_time", "peak_memory_mb"),
    ),
    "grid": (
        "name",
        "cells",
        "failed",
        "trainings",
        "seconds",
        "against_alone",
        "against_published",
        "mean_cacc",
        "mean_asr",
    ),
}
TITLES = {
    "training": "Training: {model} on {dataset}, batch {batch}, {threads} thread(s), {device}. Median of {rounds} "
    "rounds of {steps} steps; a ratio is the median of those of the same round; the peak share is useful work over "
    "this machine's own matmul peak.",
    "inference": "Defenses at inference on the first {sentences} test sentences of {dataset}, {threads} thread(s), "
    "{device}; what a detector calibrates on is in its seconds. Other ways to the same suspicions of ONION take turns "
    "with ours on a sample:",
    "grid": "A grid of 4 attacks x 13 defenders on {rows} training rows of {dataset} for 1 epoch, {model}, {workers} "
    "worker(s), {device}:",
}


@dataclass(frozen=True)
class SpeedRequest:
    """One call of `bench speed`."""

    model: str = "minilm-l6"
    dataset: str = "sst2-2k"
    data: str | None = None
    device: str = "auto"
    defenses: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    gangs: tuple[int, ...] = ()
    steps: int = 20
    rounds: int = 3
    threads: int = 1
    training: bool = True
    inference: bool = False
    sentences: int | None = None
    sample: int = 40
    end_to_end: bool = False
    sides: tuple[str, ...] = ("ours", "alone")
    rows: int = 320
    workers: int | None = None
    json_file: Path | None = None
    markdown_file: Path | None = None


def names(given: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, each once."""
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def sizes(given: str) -> tuple[int, ...]:
    """Return the whole numbers of a comma-separated list, each once; RequestError for anything else."""
    found = names(given)
    wrong = next((name for name in found if not name.isdecimal()), None)
    if wrong is not None:
        raise RequestError(f"--gangs has {wrong!r}, which is no whole number.", "Write 2,4,8,16 for example.")
    return tuple(dict.fromkeys(int(name) for name in found))


def request_of(given: Mapping[str, Any]) -> SpeedRequest:
    """Return the request that the options of the command line make."""
    options = {name: given[name] for name in SpeedRequest.__dataclass_fields__ if name in given}
    options |= {
        "defenses": names(given["defenses"]),
        "precisions": names(given["precision"]),
        "sides": names(given["sides"]),
    }
    options |= {"gangs": sizes(given["gangs"]), "json_file": given["json_"], "markdown_file": given["markdown"]}
    return SpeedRequest(**options)


def measure_speed(request: SpeedRequest, console: Console) -> int:
    """Measure what is asked for; print Markdown, write JSON and Markdown where files are named."""
    from bench.data import dataset_spec, load_dataset
    from bench.victim.spec import model_spec

    for option, file in (("--json", request.json_file), ("--markdown", request.markdown_file)):
        if file is not None and not file.parent.is_dir():
            raise RequestError(f"{option} {file} lies in no folder.", "Name a file in a folder that exists.")
    for option, value in (("--sentences", request.sentences), ("--rows", request.rows), ("--workers", request.workers)):
        if value is not None and value < 1:
            raise RequestError(f"{option} is {value}: at least 1 is needed.", "Leave it out for the default.")
    if request.sample < 0:
        raise RequestError(f"--sample is {request.sample}: at least 0 is needed.", "Leave it out for the default.")
    if not (request.training or request.inference or request.end_to_end):
        raise RequestError("Nothing is to be measured.", "Add --inference or --end-to-end, or leave --no-training out.")
    if request.end_to_end:
        _check_sides(request.sides)
    spec, device = model_spec(request.model), choose_device(request.device)[0]
    folder = data_folder(request.data)
    data = load_dataset(dataset_spec(request.dataset), folder)
    found: dict[str, Any] = {}
    pages: list[str] = []
    if request.training:
        found |= _training(request, spec, data, device, console, pages)
    if request.inference:
        found |= _inference(request, spec, data, device, console, pages)
    if request.end_to_end:
        found |= _grid(request, folder, device, console, pages)
    if request.json_file is not None:
        request.json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if request.markdown_file is not None:
        request.markdown_file.write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    return 0


def _check_sides(sides: Sequence[str]) -> None:
    from bench.core.errors import unknown
    from bench.engine.grid_cost import SIDES

    for side in sides:
        if side not in SIDES:
            raise unknown("side of the grid", side, SIDES)
    if not sides:
        raise RequestError("--sides names none.", f"Write {','.join(SIDES)}, or some of them.")


def _training(
    request: SpeedRequest, spec: Any, data: Any, device: str, console: Console, pages: list[str]
) -> dict[str, Any]:
    from bench.victim.contenders import Setting
    from bench.victim.speed import DEFENSES, check, speed_rows, surroundings

    setting = Setting(spec, tuple(data.train), request.steps, request.rounds, device, request.threads)
    defenses = request.defenses or DEFENSES
    check(setting, defenses, request.precisions, request.gangs)
    around = surroundings(setting, defenses, request.precisions)
    rows = speed_rows(
        setting,
        around,
        defenses=defenses,
        precisions=request.precisions,
        gangs=request.gangs,
        tell=lambda text: _tell(console, text),
    )
    words = {
        **vars(request),
        "device": device,
        "batch": spec.batch_size,
    }
    text = "Padding: a text has {mean_tokens:.1f} tokens, with its batch's padding {mean_padded_tokens:.1f}; to leave "
    text += "it out makes a loop at most {bound:.2f} times as fast."
    peaks = ", ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in around["matmul_peak"].items())
    bound = f"{text.format(**around['padding'])} The matmul peak is {peaks}."
    _show("training", rows, words, console, pages, bound)
    return {"rows": rows, **around}


def _inference(
    request: SpeedRequest, spec: Any, data: Any, device: str, console: Console, pages: list[str]
) -> dict[str, Any]:
    from bench.engine.inference_cost import inference_rows

    texts = [example.text for example in data.test[: request.sentences]]
    asked = {"device": device, "threads": request.threads, "sample": request.sample}
    rows = inference_rows(spec, data.dev, texts, **asked)
    _show("inference", rows, {**vars(request), "device": device, "sentences": len(texts)}, console, pages)
    return {"inference": rows}


def _grid(
    request: SpeedRequest, folder: Path | None, device: str, console: Console, pages: list[str]
) -> dict[str, Any]:
    from bench.engine.expand import expand
    from bench.engine.grid_cost import grid_cost, small_grid
    from bench.engine.plan import Plan, make_plan
    from bench.engine.work import Machine

    def plan_at(precision: Any) -> Plan:
        plan = make_plan(expand([small_grid(request.model, request.dataset, request.rows, precision)], folder))
        if plan.impossible:
            error = next(iter(plan.impossible.values()))
            raise RequestError(
                f"The grid has a cell that cannot be: {error.problem}", "Name another model or data set."
            )
        return plan

    workers = request.workers or default_workers([device])
    rows = grid_cost(
        plan_at,
        Machine(folder, device),
        workers=workers,
        sides=request.sides,
        tell=lambda text: _tell(console, text),
    )
    sides = "\n".join(f"* `{row['name']}`: {row['does']}" for row in rows)
    words = {**vars(request), "device": device, "workers": workers}
    _show("grid", rows, words, console, pages, f"{sides}\n\n{_spent(rows)}")
    return {"grid": rows}


def _spent(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the seconds of each side's stages, by kind, as a table."""
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["stage_seconds"]))
    body = [[row["name"], *(f"{row['stage_seconds'].get(kind, 0.0):.1f}" for kind in kinds)] for row in rows]
    table = tabulate(body, ("stage seconds", *kinds), tablefmt="pipe", disable_numparse=True)
    return f"What the stages took, by kind, summed over the workers:\n\n{table}"


def _tell(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _show(
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    words: Mapping[str, Any],
    console: Console,
    pages: list[str],
    after: str = "",
) -> None:
    columns = COLUMNS[kind]
    shown = [[_shown(column, row.get(column)) for column in columns] for row in rows]
    table = tabulate(shown, columns, tablefmt="pipe", disable_numparse=True)
    pages.append("\n\n".join(filter(None, (TITLES[kind].format(**words), table, after))))
    console.print(f"\n{pages[-1]}\n", markup=False, highlight=False)


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "—"
    if not isinstance(value, float):
        return str(value)
    if column.startswith("against"):
        return f"{value:.2f}x"
    if column == "sentences_per_second":
        return f"{value:.2f}"
    return f"{100 * value:.1f} %" if column in ("peak_share", "mean_cacc", "mean_asr") else f"{value:.1f}"
