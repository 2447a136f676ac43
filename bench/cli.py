"""The command line: parse, call, print. No logic here."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.commands.guard import guard as _guard
from bench.commands.more import add_commands
from bench.commands.narrowing import axes as _axes
from bench.commands.narrowing import narrowed as _narrow
from bench.commands.plain import PlainConsole
from bench.commands.tools import add_tools

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

GridName = Annotated[str, typer.Option("--grid", help="a grid of configs/grids, or a path to a YAML file")]
OutDir = Annotated[Path | None, typer.Option("--out", help="store, records and tables; default runs/GRID")]
Axis = Annotated[str | None, typer.Option(help="comma-separated; replaces the axis of the grid")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="axis.option=value, e.g. model.learning_rate=5e-4")]
Analysis = Annotated[str | None, typer.Option(help="what looks on at each training, e.g. 'fourier(rows=500)'")]
Limit = Annotated[int | None, typer.Option(help="first N training rows: a smoke test that no table takes")]
DataDir = Annotated[str | None, typer.Option("--data", help="folder of the published data; default BENCH_DATA")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


class Kind(StrEnum):
    """What `bench list` lists."""

    attackers = "attackers"
    defenders = "defenders"
    datasets = "datasets"
    models = "models"
    grids = "grids"


def _console() -> Console:
    return PlainConsole(soft_wrap=True)


@app.command()
def run(
    grid: GridName,
    out: OutDir = None,
    datasets: Axis = None,
    attacks: Axis = None,
    defenders: Axis = None,
    models: Axis = None,
    poison_ratios: Axis = None,
    seeds: Axis = None,
    label_rules: Axis = None,
    target_labels: Axis = None,
    recipes: Axis = None,
    precisions: Axis = None,
    analysis: Analysis = None,
    set_: Sets = None,
    limit: Limit = None,
    data: DataDir = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0 ...")] = "auto",
    engine: Annotated[str, typer.Option(help="local, ray, slurm, or inline (this process)")] = "local",
    workers: Annotated[int | None, typer.Option(help="worker processes; default one per core or GPU")] = None,
    keep_weights: Annotated[bool, typer.Option("--keep-weights", help="keep trained weights in the store")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="run failed cells again")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="only GPU kernels whose result repeats")
    ] = False,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: one on this machine")] = None,
    gpus_per_worker: Annotated[float, typer.Option(help="share of a GPU for each worker of Ray")] = 1.0,
    slurm: Annotated[list[str] | None, typer.Option("--slurm", help="parameter=value of submitit")] = None,
    gang: Annotated[int | None, typer.Option(help="trainings that share passes; default 16 on a GPU, else 1")] = None,
    memory: Annotated[str | None, typer.Option(help="of a GPU that is used, 40GB; default 80 %")] = None,
    debug: Debug = False,
) -> None:
    """Run a grid: build what is missing, write a record for each cell, then the tables."""

    def action() -> int:
        from bench.commands.run import Request, run_grid

        placed = (deterministic, address, gpus_per_worker, tuple(slurm or ()), gang, memory)
        asked = (grid, _narrow(locals_), out, data, device, engine, workers, keep_weights, retry_failed)
        return run_grid(Request(*asked, *placed), _console())

    locals_ = dict(locals())
    _guard(action, debug)


@app.command()
def plan(
    grid: GridName,
    out: OutDir = None,
    datasets: Axis = None,
    attacks: Axis = None,
    defenders: Axis = None,
    models: Axis = None,
    poison_ratios: Axis = None,
    seeds: Axis = None,
    label_rules: Axis = None,
    target_labels: Axis = None,
    recipes: Axis = None,
    precisions: Axis = None,
    analysis: Analysis = None,
    set_: Sets = None,
    limit: Limit = None,
    data: DataDir = None,
    device: Annotated[str, typer.Option(help="that the time is for")] = "auto",
    workers: Annotated[int | None, typer.Option(help="that the time is for")] = None,
    calibrate: Annotated[bool, typer.Option(help="measure a few steps of what was never measured here")] = True,
    memory: Annotated[str | None, typer.Option(help="sizes to fit: 24GB,80GB; default 80 % of the device's")] = None,
    length: Annotated[int | None, typer.Option(help="tokens of a padded batch, for the memory; default 128")] = None,
    debug: Debug = False,
) -> None:
    """Print the cells, unique stages, trainings saved, estimated time and memory of a grid; runs nothing."""

    def action() -> int:
        from bench.commands.run import Request, show_plan

        more = {"workers": workers, "calibrate": calibrate, "memory": memory, "length": length}
        return show_plan(Request(grid, _narrow(locals_), out, data, device, **more), _console())

    locals_ = dict(locals())
    _guard(action, debug)


@app.command()
def status(
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    data: DataDir = None,
    debug: Debug = False,
) -> None:
    """Print what of a run is done, running, failed and left, and when it may end; changes nothing."""

    def action() -> int:
        from bench.commands.run import folder_of
        from bench.commands.status import show_status

        return show_status(folder_of(grid, out), grid, data, _console())

    _guard(action, debug)


@app.command()
def clean(
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="free it; without, only say what could be freed")] = False,
    everything: Annotated[bool, typer.Option("--all", help="also what an unfinished run would go on from")] = False,
    debug: Debug = False,
) -> None:
    """Print what a run's folder holds that no record needs, with sizes; `--yes` frees it."""

    def action() -> int:
        from bench.commands.clean import clean_folder
        from bench.commands.run import folder_of

        return clean_folder(folder_of(grid, out), yes, everything, _console())

    _guard(action, debug)


@app.command()
def table(
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    datasets: Axis = None,
    attacks: Axis = None,
    defenders: Axis = None,
    models: Axis = None,
    poison_ratios: Axis = None,
    seeds: Axis = None,
    label_rules: Axis = None,
    target_labels: Axis = None,
    recipes: Axis = None,
    precisions: Axis = None,
    every: Annotated[bool, typer.Option("--every", help="also tables without a record: the paper's numbers")] = False,
    debug: Debug = False,
) -> None:
    """Write the Markdown tables from the records; needs no GPU and no data."""

    def action() -> int:
        from bench.commands.publish import show_tables
        from bench.commands.run import folder_of

        return show_tables(folder_of(grid, out), every, _axes(locals_), _console())

    locals_ = dict(locals())
    _guard(action, debug)


@app.command()
def publish(
    to: Annotated[Path, typer.Option("--to", help="folder to publish into, for example leaderboard/")],
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    debug: Debug = False,
) -> None:
    """Add the records of a run to those already published, and write every table again."""

    def action() -> int:
        from bench.commands.publish import publish_run
        from bench.commands.run import folder_of

        return publish_run(folder_of(grid, out), to, _console())

    _guard(action, debug)


@app.command()
def figures(
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    debug: Debug = False,
) -> None:
    """Draw Figures 1, 2 and 4 to 13 of the records as SVG and PNG into OUT/figures; needs matplotlib."""

    def action() -> int:
        from bench.commands.figures import draw_figures
        from bench.commands.run import folder_of

        return draw_figures(folder_of(grid, out), _console())

    _guard(action, debug)


@app.command("list")
def list_(
    kind: Annotated[Kind | None, typer.Argument(help="default: all of them")] = None, debug: Debug = False
) -> None:
    """List what exists: a line each, what it does, whose work it is, and its options with their defaults."""

    def action() -> int:
        from bench.commands.listing import lines

        for line in lines(kind.value if kind else None):
            typer.echo(line)
        return 0

    _guard(action, debug)


@app.command()
def check(data: DataDir = None, debug: Debug = False) -> None:
    """Tell what this machine has, packages, devices, data, models, and the remedy for what is missing."""

    def action() -> int:
        from bench.commands.check import check_machine

        return check_machine(data, _console())

    _guard(action, debug)


@app.command()
def speed(
    model: Annotated[str, typer.Option(help="a model of configs/models, or a folder")] = "minilm-l6",
    dataset: Annotated[str, typer.Option(help="where rows and sentences come from")] = "sst2-2k",
    data: DataDir = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0 ...")] = "auto",
    defenses: Annotated[str, typer.Option(help="of vanilla, lora, musclelora")] = "vanilla,lora,musclelora",
    precision: Annotated[str, typer.Option(help="of fp32, bf16")] = "fp32",
    gangs: Annotated[str, typer.Option(help="how many victims train together")] = "2,4,8,16",
    steps: Annotated[int, typer.Option(help="optimizer steps timed in a round")] = 20,
    rounds: Annotated[int, typer.Option(help="rounds, each contender once in every one")] = 3,
    threads: Annotated[int, typer.Option(help="threads of a process on a CPU")] = 1,
    training: Annotated[bool, typer.Option(help="measure training")] = True,
    inference: Annotated[bool, typer.Option("--inference", help="also ONION and STRIP, sentences a second")] = False,
    sentences: Annotated[int | None, typer.Option(help="of --inference; default: the whole test split")] = None,
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="also a grid, with and without sharing")] = False,
    published: Annotated[bool, typer.Option("--published", help="the grid also as the published code does")] = False,
    rows: Annotated[int, typer.Option(help="training rows of the grid's cells")] = 320,
    workers: Annotated[int | None, typer.Option(help="of the grid; default one per core or GPU")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="also write the rows to this file")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="also write the tables to this file")] = None,
    debug: Debug = False,
) -> None:
    """Measure training side by side: a bare Trainer, a plain loop, ours; also inference, and a grid end to end."""

    def action() -> int:
        from bench.commands.speed import measure_speed, request_of

        return measure_speed(request_of(locals_), _console())

    locals_ = dict(locals())
    _guard(action, debug)


add_commands(app, _guard)
add_tools(app, _guard)


def main() -> None:
    """Run the command line; UTF-8 output whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    app()
