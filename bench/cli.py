"""The command line: parse, call, print. No logic here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.commands import arguments as given
from bench.commands.guard import guard as _guard
from bench.commands.more import add_commands
from bench.commands.narrowing import axes as _axes
from bench.commands.narrowing import narrowed as _narrow
from bench.commands.plain import PlainConsole
from bench.commands.tools import add_tools

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

GridName = Annotated[str, typer.Option("--grid", help="a name of `list grids`, or a path to a YAML file")]
Out = typer.Option("--out", parser=given.folder, help="store, records and tables; default runs/GRID")
OutDir = Annotated[Path | None, Out]
Analysis = Annotated[str | None, typer.Option(help="what looks on at each training, e.g. 'fourier(rows=500)'")]


@app.callback()
def about(version: given.Version = False) -> None:
    """Which defense works, against which attack, on which model, at what cost? Begin with `run --grid demo`."""


def _console() -> Console:
    return PlainConsole(soft_wrap=True)


@app.command()
def run(
    grid: GridName,
    out: OutDir = None,
    datasets: given.Datasets = None,
    attacks: given.Attacks = None,
    defenders: given.Defenders = None,
    models: given.Models = None,
    poison_ratios: given.Ratios = None,
    seeds: given.Seeds = None,
    label_rules: given.Rules = None,
    target_labels: given.Targets = None,
    recipes: given.Recipes = None,
    precisions: given.Precisions = None,
    analysis: Analysis = None,
    set_: given.Sets = None,
    limit: given.Limit = None,
    data: given.DataDir = None,
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
    gang: Annotated[int | None, typer.Option(help="cells that share passes; default 16 on a GPU, else 1")] = None,
    memory: Annotated[str | None, typer.Option(help="of a GPU that is used, 40GB; default 80 %")] = None,
    debug: given.Debug = False,
) -> None:
    """Run a grid: a record for every cell, then the tables. What is there already is not done again."""

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
    datasets: given.Datasets = None,
    attacks: given.Attacks = None,
    defenders: given.Defenders = None,
    models: given.Models = None,
    poison_ratios: given.Ratios = None,
    seeds: given.Seeds = None,
    label_rules: given.Rules = None,
    target_labels: given.Targets = None,
    recipes: given.Recipes = None,
    precisions: given.Precisions = None,
    analysis: Analysis = None,
    set_: given.Sets = None,
    limit: given.Limit = None,
    data: given.DataDir = None,
    device: Annotated[str, typer.Option(help="that the time is for")] = "auto",
    workers: Annotated[int | None, typer.Option(help="that the time is for")] = None,
    calibrate: Annotated[bool, typer.Option(help="measure a few steps of what was never measured here")] = True,
    memory: Annotated[str | None, typer.Option(help="sizes to fit: 24GB,80GB; default 80 % of the device's")] = None,
    length: Annotated[int | None, typer.Option(help="tokens of a padded batch, for the memory; default 128")] = None,
    debug: given.Debug = False,
) -> None:
    """Count the cells and stages of a grid, its time and memory. Runs nothing."""

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
    data: given.DataDir = None,
    debug: given.Debug = False,
) -> None:
    """Tell what of a run is done, failed and left, and when it may end. Changes nothing."""

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
    debug: given.Debug = False,
) -> None:
    """Tell what of a run's folder no record needs. `--yes` frees it."""

    def action() -> int:
        from bench.commands.clean import clean_folder
        from bench.commands.run import folder_of

        return clean_folder(folder_of(grid, out), yes, everything, _console())

    _guard(action, debug)


@app.command()
def table(
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    datasets: given.Datasets = None,
    attacks: given.Attacks = None,
    defenders: given.Defenders = None,
    models: given.Models = None,
    poison_ratios: given.Ratios = None,
    seeds: given.Seeds = None,
    label_rules: given.Rules = None,
    target_labels: given.Targets = None,
    recipes: given.Recipes = None,
    precisions: given.Precisions = None,
    every: Annotated[bool, typer.Option("--every", help="also tables without a record: the paper's numbers")] = False,
    debug: given.Debug = False,
) -> None:
    """Write the Markdown tables from the records alone. Needs no GPU and no data."""

    def action() -> int:
        from bench.commands.publish import show_tables
        from bench.commands.run import folder_of

        return show_tables(folder_of(grid, out), every, _axes(locals_), _console())

    locals_ = dict(locals())
    _guard(action, debug)


@app.command()
def publish(
    to: Annotated[Path, typer.Option("--to", parser=given.folder, help="folder to publish into: leaderboard/")],
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    debug: given.Debug = False,
) -> None:
    """Add a run to what is published, and write all of it again."""

    def action() -> int:
        from bench.commands.publish import publish_run
        from bench.commands.run import folder_of

        return publish_run(folder_of(grid, out), to, _console())

    _guard(action, debug)


@app.command()
def figures(
    out: OutDir = None,
    grid: Annotated[str | None, typer.Option("--grid", help="the grid whose default folder is meant")] = None,
    debug: given.Debug = False,
) -> None:
    """Draw the figures that the records fill, as SVG and PNG. 1, 2 and 4 to 13, into OUT/figures; needs matplotlib."""

    def action() -> int:
        from bench.commands.figures import draw_figures
        from bench.commands.run import folder_of

        return draw_figures(folder_of(grid, out), _console())

    _guard(action, debug)


@app.command("list")
def list_(kind: given.Kinds = None, debug: given.Debug = False) -> None:
    """List what exists, a line each. What it does, whose work it is, its options with their defaults."""

    def action() -> int:
        from bench.commands.listing import lines

        for line in lines(kind):
            typer.echo(line)
        return 0

    _guard(action, debug)


@app.command()
def check(data: given.DataDir = None, debug: given.Debug = False) -> None:
    """Tell what this machine has, and the remedy for what is missing. Packages, devices, data and models."""

    def action() -> int:
        from bench.commands.check import check_machine

        return check_machine(data, _console())

    _guard(action, debug)


@app.command()
def speed(
    model: Annotated[str, typer.Option(help="a model of configs/models, or a folder")] = "minilm-l6",
    dataset: Annotated[str, typer.Option(help="where rows and sentences come from")] = "sst2-2k",
    data: given.DataDir = None,
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
    sample: Annotated[int, typer.Option(help="of --inference; sentences that ONION reads in other ways too")] = 40,
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="also a grid, with and without sharing")] = False,
    sides: Annotated[str, typer.Option(help="of the grid: ours, ours-bf16, alone, published")] = "ours,alone",
    rows: Annotated[int, typer.Option(help="training rows of the grid's cells")] = 320,
    workers: Annotated[int | None, typer.Option(help="of the grid; default one per core or GPU")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="also write the rows to this file")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="also write the tables to this file")] = None,
    debug: given.Debug = False,
) -> None:
    """Measure training beside a bare Trainer and a plain loop. Also inference, and a grid end to end."""

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
