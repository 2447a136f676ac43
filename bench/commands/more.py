"""The commands `bench data ...`, as the command line takes them: parse and call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

DataDir = Annotated[str | None, typer.Option("--data", help="folder of the published data; default BENCH_DATA")]
Names = Annotated[str | None, typer.Option(help="comma-separated published data sets; default all of them")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
Guard = Callable[[Callable[[], int], bool], None]


def add_commands(app: typer.Typer, guard: Guard) -> None:
    """Add the commands of this file to the command line; `guard` runs an action and turns errors into sentences."""
    data = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(data, name="data", help="Fetch, verify and paraphrase data.")

    @data.command("fetch")
    def fetch(
        data: DataDir = None,
        origin: Annotated[
            str | None,
            typer.Option("--from", help="a folder, a zip or tar file, or an http(s) address; default GitHub"),
        ] = None,
        datasets: Names = None,
        ag_news: Annotated[
            Path | None, typer.Option(help="the full AG News train.csv (120,000 rows): the mini set is made from it")
        ] = None,
        timeout: Annotated[
            float, typer.Option(min=0.1, help="seconds of silence after which a transfer is broken")
        ] = 30.0,
        debug: Debug = False,
    ) -> None:
        """Bring the published data into a folder: resumable, every file compared with its checksum."""

        def action() -> int:
            from bench.commands.data import fetch_data

            return fetch_data(data, origin, datasets, ag_news, timeout, Console(soft_wrap=True))

        guard(action, debug)

    @data.command("verify")
    def verify(data: DataDir = None, datasets: Names = None, debug: Debug = False) -> None:
        """Compare every file of a data folder with its checksum."""

        def action() -> int:
            from bench.commands.data import verify_data

            return verify_data(data, datasets, Console(soft_wrap=True))

        guard(action, debug)
