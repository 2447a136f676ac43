"""The commands new, compare, explain, export, adapter and docs, as the command line takes them: parse and call."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.commands import arguments as given
from bench.commands.narrowing import narrowed
from bench.commands.plain import PlainConsole
from bench.core.errors import BenchError

Reference = Annotated[str, typer.Argument(help="RUN, RUN#KEY or RUN#axis=value; RUN: a run's folder or a records file")]
Guard = Callable[[Callable[[], int], bool], None]


class Plugin(StrEnum):
    """What `bench new` writes."""

    attacker = "attacker"
    defender = "defender"
    model = "model"


class Form(StrEnum):
    """What `bench export` writes."""

    pandas = "pandas"
    datasets = "datasets"
    every_eval_ever = "every-eval-ever"


def add_tools(app: typer.Typer, guard: Guard) -> None:
    """Add the commands of this file to the command line; `guard` runs an action and turns errors into sentences."""

    @app.command()
    def new(kind: Plugin, name: str, debug: given.Debug = False) -> None:
        """Write a new attacker or defender with its test, or a random model."""

        def action() -> int:
            if kind is Plugin.model:
                from bench.commands.new_model import write_model

                return write_model(name, PlainConsole(soft_wrap=True))
            from bench.commands.new import write_new

            return write_new(kind.value, name, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @app.command()
    def compare(
        first: Reference,
        second: Reference,
        json_: Annotated[Path | None, typer.Option("--json", help="also write the comparison to this file")] = None,
        debug: given.Debug = False,
    ) -> None:
        """Tell what changed between two runs or records, with tests. The tests are paired."""

        def action() -> int:
            from bench.commands.compare import show_comparison

            return show_comparison(first, second, json_, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @app.command()
    def explain(
        cell: Annotated[
            str | None, typer.Argument(help="RUN#KEY, a cell of a run; or leave it out and name options")
        ] = None,
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
        set_: given.Sets = None,
        limit: given.Limit = None,
        data: given.DataDir = None,
        debug: given.Debug = False,
    ) -> None:
        """Tell what a cell does, stage by stage, in words."""

        def action() -> int:
            from bench.commands.explain import explain_options, explain_record

            changes = narrowed(locals_)
            if cell is None:
                return explain_options(changes, data, PlainConsole(soft_wrap=True))
            if changes:
                raise BenchError("A cell of a run and options are both given.", "Give one of them.")
            return explain_record(cell, PlainConsole(soft_wrap=True))

        locals_ = dict(locals())
        guard(action, debug)

    @app.command()
    def export(
        run: Reference,
        to: Annotated[Form, typer.Option("--to", help="a Parquet file, a folder of datasets, or Every Eval Ever logs")],
        into: Annotated[
            Path | None, typer.Option("--into", help="file or folder to write; it must not be there")
        ] = None,
        debug: given.Debug = False,
    ) -> None:
        """Write the records of a run in a form that other tools read."""

        def action() -> int:
            from bench.commands.export import export_records

            return export_records(run, to.value, into, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @app.command()
    def adapter(
        cell: Annotated[str, typer.Argument(help="RUN#KEY, a cell of a run made with --keep-weights")],
        to: Annotated[Path, typer.Option("--to", help="new folder to write")],
        debug: given.Debug = False,
    ) -> None:
        """Write the trained LoRA of a cell in PEFT's layout. A model card warns of it."""

        def action() -> int:
            from bench.commands.adapter import export_adapter

            return export_adapter(cell, to, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @app.command()
    def docs(
        to: Annotated[Path, typer.Option("--to", help="folder of the pages")] = Path("docs"), debug: given.Debug = False
    ) -> None:
        """Write the pages of docs/ that come from the code. Attackers, defenders and grids."""

        def action() -> int:
            from bench.commands.docs import write_docs

            return write_docs(to, PlainConsole(soft_wrap=True))

        guard(action, debug)
