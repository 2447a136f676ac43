"""The commands `bench data ...` and `bench stealth`, as the command line takes them: parse and call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.arguments import DataDir, Debug
from bench.commands.plain import PlainConsole

Names = Annotated[str | None, typer.Option(help="comma-separated published data sets; default all of them")]
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
        """Bring the published data into a folder. Resumable; every file is compared with its checksum."""

        def action() -> int:
            from bench.commands.data import fetch_data

            return fetch_data(data, origin, datasets, ag_news, timeout, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @data.command("verify")
    def verify(data: DataDir = None, datasets: Names = None, debug: Debug = False) -> None:
        """Compare every file of a data folder with its checksum."""

        def action() -> int:
            from bench.commands.data import verify_data

            return verify_data(data, datasets, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @data.command("paraphrase")
    def paraphrase(
        dataset: Annotated[str, typer.Option(help="a data set by name, a table file, a folder, or hub:ID")],
        bank: Annotated[Path, typer.Option(help="the file to write, or to go on with")],
        attack: Annotated[str, typer.Option(help="stylebkd or hiddenkiller")] = "stylebkd",
        method: Annotated[str | None, typer.Option(help="strap, instruct or scpn; default by attack and model")] = None,
        model: Annotated[str | None, typer.Option(help="a folder or hub id; default lievan/STYLE for stylebkd")] = None,
        revision: Annotated[
            str, typer.Option(help="commit of a hub id; default its newest, which the bank keeps")
        ] = "",
        style: Annotated[str, typer.Option(help="bible, shakespeare, twitter, lyrics or poetry")] = "bible",
        instruction: Annotated[str | None, typer.Option(help="of method instruct; {text} is the sentence")] = None,
        top_p: Annotated[float, typer.Option(help="nucleus; 0 takes the likeliest token always")] = 0.6,
        temperature: Annotated[float, typer.Option(help="of the sampling")] = 1.0,
        whole: Annotated[bool, typer.Option("--whole", help="texts as they are, not sentence by sentence")] = False,
        splits: Annotated[str, typer.Option(help="which splits")] = "train,dev,test",
        limit: Annotated[int | None, typer.Option(min=1, help="first N texts of each split")] = None,
        batch: Annotated[int, typer.Option(min=1, help="sentences at once: what a crash can cost")] = 32,
        seed: Annotated[int, typer.Option(min=0, help="of the draws")] = 0,
        pickled: Annotated[bool, typer.Option("--pickled-weights", help="read pytorch_model.bin")] = False,
        data: DataDir = None,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda:0 ...")] = "auto",
        debug: Debug = False,
    ) -> None:
        """Make poison for any data set, in a bank that no crash loses. A paraphrase of every text."""

        def action() -> int:
            from bench.commands.paraphrase import Asked, paraphrase_data

            split = "whole" if whole else "sentences"
            places = (dataset, attack, bank, method, model, revision, style, instruction)
            asked = Asked(*places, top_p, temperature, split, splits, limit, batch, seed, pickled)
            return paraphrase_data(asked, data, device, PlainConsole(soft_wrap=True))

        guard(action, debug)

    @app.command("stealth")
    def stealth(
        dataset: Annotated[str, typer.Option(help="a data set by name, a table file, a folder, or hub:ID")] = "demo",
        attacks: Annotated[str | None, typer.Option(help="comma-separated; default all of them")] = None,
        rows: Annotated[int, typer.Option(min=1, help="test rows measured at most")] = 200,
        lm: Annotated[str, typer.Option(help="language model: local, a folder, or ID@COMMIT of the hub")] = "local",
        target_label: Annotated[int, typer.Option(min=0, help="rows of this label are not poisoned")] = 1,
        seed: Annotated[int, typer.Option(min=0, help="of triggers, rows and the local model")] = 0,
        data: DataDir = None,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda:0 ...")] = "auto",
        out: Annotated[Path | None, typer.Option(help="also write the table to this file")] = None,
        debug: Debug = False,
    ) -> None:
        """Measure how well the poison hides. Perplexity, errors, similarity, trigger length; a table per attack."""

        def action() -> int:
            from bench.commands.stealth import show_stealth

            console = PlainConsole(soft_wrap=True)
            return show_stealth(dataset, attacks, rows, lm, seed, target_label, data, device, out, console)

        guard(action, debug)
