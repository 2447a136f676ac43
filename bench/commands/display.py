"""What a person sees while a grid runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.engine.stages import Stage

WORDS = {
    "load": "reading",
    "poison": "poisoning",
    "trigger": "poisoning the test split of",
    "cleanse": "cleansing",
    "train": "training",
    "repair": "repairing",
    "filter": "filtering",
    "detect": "detecting",
    "evaluate": "evaluating",
}


def words(stage: Stage) -> str:
    """Return a stage in a few words."""
    names = [stage.content[axis].name for axis in ("dataset", "attack", "defense", "model") if axis in stage.content]
    return f"{WORDS[stage.kind]} {' '.join(names)}".strip()


class Display:
    """Listens to a run and shows it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.started = time.monotonic()
        self._count = self._total = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self._task: Any = None

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()

    def __call__(self, event: str, value: Any) -> None:
        """Take one event of the runner."""
        if event == "plan":
            self._total = value.to_execute
            self._task = self._progress.add_task("starting", total=self._total)
        elif event == "start" and self.live:
            self._progress.update(self._task, description=words(value))
        elif event == "done":
            self._step(words(value))
        elif event == "found":
            self._step(f"{words(value)}: done by another run")
        elif event == "again" and value:
            self._total += len(value)
            self._progress.update(self._task, total=self._total)
            lost = ", ".join(sorted({words(stage) for stage in value}))
            self.console.print(f"lost or damaged, to be built again: {lost}", markup=False, highlight=False)
        elif event == "failed":
            stage, error = value
            self._step(f"FAILED {words(stage)}: {error['message']} {error['remedy']}")
        elif event == "record":
            self._show_record(value)

    def _step(self, text: str) -> None:
        self._count += 1
        self._progress.advance(self._task)
        if not self.live:
            seconds = time.monotonic() - self.started
            self.console.print(f"[{self._count}/{self._total}] {seconds:7.1f} s  {text}", markup=False, highlight=False)

    def _show_record(self, record: Mapping[str, Any]) -> None:
        cell = record["cell"]
        title = (
            f"{cell['dataset']['name']} {cell['attack']['name']} @ {cell['poison_ratio']:g} {cell['defense']['name']}"
        )
        if record["status"] == "ok":
            measured = record["metrics"]
            cacc, asr, floor = (_percent(measured[name]) for name in ("cacc", "asr", "asr_floor"))
            text = f"CACC {cacc}  ASR {asr}  floor {floor}"
        else:
            text = f"failed: {record['error']['message']}"
        self.console.print(f"    {title}, seed {cell['seed']}: {text}", markup=False, highlight=False)


def _percent(rate: Mapping[str, Any] | None) -> str:
    return "—" if rate is None else f"{100 * rate['value']:.2f}"
