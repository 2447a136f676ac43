"""`bench data fetch` and `bench data verify`: the published data into a folder, and whether it is what it should be."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from rich.console import Console

from bench.core.errors import RequestError, unknown
from bench.engine.preflight import data_folder


def fetch_data(
    data: str | None,
    origin: str | None,
    datasets: str | None,
    ag_news: Path | None,
    timeout: float,
    console: Console,
) -> int:
    """Fetch the pinned files that are missing or altered; return 0 when all are there afterwards, else 1."""
    from bench.data.agnews_mini import PATH, rebuilt
    from bench.data.fetch import ABSENT, FAILED, HERE, Outcome, fetch, install_bytes, wanted_files
    from bench.data.sources import PUBLISHED, source_of

    folder = _target(data)
    wanted = wanted_files(_names(datasets))
    if ag_news is not None:
        content = rebuilt(ag_news)
        install_bytes(folder, PATH, content)
        _say(console, f"made     {PATH}: the published file, git blob id checked")
    source = source_of(origin, [item.path for item in wanted], timeout)
    _say(console, f"{len(wanted)} files into {folder} from {origin or PUBLISHED}")

    def report(outcome: Outcome) -> None:
        if outcome.state != HERE:
            _say(console, f"{outcome.state:8} {outcome.path}" + (f": {outcome.reason}" if outcome.reason else ""))

    states = Counter(outcome.state for outcome in fetch(folder, wanted, source, report))
    _say(console, ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    if states[FAILED] + states[ABSENT]:
        _say(console, "Run the same command again for what failed; what is absent comes with --from another source.")
    return 1 if states[FAILED] + states[ABSENT] else 0


def verify_data(data: str | None, datasets: str | None, console: Console) -> int:
    """Compare every pinned file of a folder with its checksum; return 0 when all are right, else 1."""
    from bench.data.check import OK, state_of
    from bench.data.fetch import wanted_files

    folder = data_folder(data)
    if folder is None:
        raise RequestError("No data folder was given.", "Name it with --data or BENCH_DATA.")
    states = {}
    for item in wanted_files(_names(datasets)):
        states[item.path] = state_of(folder / item.path, item.pin, item.original)
    for path, state in states.items():
        if state != OK:
            _say(console, f"{state:8} {path}")
    counts = Counter(states.values())
    _say(console, f"{len(states)} pinned files in {folder}: " + _counted(counts))
    if counts[OK] < len(states):
        chosen = f" --datasets {datasets}" if datasets else ""
        _say(console, f"Remedy: python -m bench data fetch --data {folder}{chosen}")
        return 1
    return 0


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _names(datasets: str | None) -> tuple[str, ...]:
    """Return the published data sets that a comma-separated list names."""
    from bench.data.catalog import dataset_names, dataset_spec

    published = [name for name in dataset_names() if dataset_spec(name).files]
    names = tuple(name.strip() for name in (datasets or "").split(",") if name.strip())
    for name in names:
        if name not in published:
            raise unknown("published dataset", name, published)
    return names


def _target(data: str | None) -> Path:
    name = data or os.environ.get("BENCH_DATA")
    if not name:
        raise RequestError("No folder was named for the data.", "Name one with --data or BENCH_DATA; it is made.")
    if Path(name).exists() and not Path(name).is_dir():
        raise RequestError(f"--data {name} is a file.", "Name a folder.")
    return Path(name)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
