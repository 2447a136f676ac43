"""The arguments that several commands share, each with the line that `--help` prints of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _tell_version(asked: bool) -> None:
    """Print the versions that a report of a fault should name, and leave."""
    if asked:
        from bench.engine.environment import describe

        typer.echo(", ".join(f"{name} {value}" for name, value in describe().items() if value and name != "date"))
        raise typer.Exit


def folder(text: str) -> Path:
    """Return a folder as it was typed; no text is none: an empty variable would fill the working folder."""
    if not text.strip():
        raise typer.BadParameter("no folder is named; for the working folder write a dot")
    return Path(text)


Version = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="print the versions and leave")
]
KINDS = "attackers, defenders, datasets, models or grids; default: all of them"
Kinds = Annotated[str | None, typer.Argument(help=KINDS)]
Datasets = Annotated[str | None, typer.Option(help="names, table files, folders or hub:ID, comma-separated")]
Attacks = Annotated[str | None, typer.Option(help="names, NAME(option=value) or module:Class")]
Defenders = Annotated[str | None, typer.Option(help="the same; chains as e-pur>fine-mixing")]
Models = Annotated[str | None, typer.Option(help="names, folders in the hub's layout, or hub:ID@COMMIT")]
Ratios = Annotated[str | None, typer.Option(help="poisoned shares of the training set: 0,0.1")]
Seeds = Annotated[str | None, typer.Option(help="whole numbers: 0,1,2")]
Rules = Annotated[str | None, typer.Option(help="of clean, dirty, mix; default the attack's own")]
Targets = Annotated[str | None, typer.Option(help="numbers of the classes that the attacker wants")]
Recipes = Annotated[str | None, typer.Option(help="of released, paper")]
Precisions = Annotated[str | None, typer.Option(help="of fp32, bf16")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="axis.option=value, e.g. model.learning_rate=5e-4")]
Limit = Annotated[int | None, typer.Option(help="first N training rows: a smoke test that no table takes")]
DataDir = Annotated[str | None, typer.Option("--data", help="folder of the published data; default BENCH_DATA")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
