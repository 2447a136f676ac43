"""What a person sees while a grid runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from bench.commands.estimated import words as duration
from bench.commands.pace import Pace
from bench.commands.titles import Titles, told, words
from bench.core.errors import reason_of
from bench.core.spec import Cell
from bench.engine.stages import Stage

PLAIN = {"markup": False, "highlight": False}


class Display:
    """Listens to a run and shows it."""

    def __init__(self, console: Console, cells: Iterable[Cell] = ()) -> None:
        """Take where to print, and the cells of the plan, so that two of them never have one title."""
        self.console = console
        self.live = console.is_terminal
        self.started = time.monotonic()
        self.pace, self.workers = Pace(), 1
        self._titles = Titles(cells)
        self._count = self._total = self._failed = 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Left(self),
            console=console,
            disable=not self.live,
            expand=True,
        )
        self._task: Any = None

    def expect(self, stages: Iterable[Stage], known: Mapping[str, float], workers: int) -> None:
        """Take the stages that the run will build, seconds by kind of stage if known, and how many run at a time."""
        self.pace, self.workers = Pace(stages, known), workers

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()

    def __call__(self, event: str, value: Any) -> None:
        """Take one event of the runner."""
        now = time.monotonic()
        if event == "plan":
            self._total = value.to_execute
            self._task = self._progress.add_task("starting", total=self._total)
            self._announce(value, now)
        elif event == "start":
            self.pace.begin(value, now)
            if self.live:
                self._progress.update(self._task, description=words(value))
        elif event == "done":
            self.pace.done(value, now)
            self._step(told(value), now)
        elif event == "found":
            self.pace.forget(value.key)
            self._step(f"{told(value)}: done by another run", now)
        elif event == "again" and value:
            self._total += len(value)
            self.pace.add(value)
            self._progress.update(self._task, total=self._total)
            lost = ", ".join(sorted({words(stage) for stage in value}))
            self.console.print(f"lost or damaged, to be built again: {lost}", **PLAIN)
        elif event == "failed":
            stage, error = value
            self._failed += 1
            self._total -= self.pace.drop(stage)  # what was to be made from it is not built either
            self._progress.update(self._task, total=self._total)
            self._step(f"FAILED {told(stage)}: {reason_of(error)}", now, always=True)
        elif event == "record":
            self._show_record(value)

    def _announce(self, report: Any, now: float) -> None:
        """Print what there is to do before the first stage is done."""
        if not report.to_execute:
            return
        before = f", {report.done + len(report.failed)} of them done before" if report.done or report.failed else ""
        left = self.left(now)
        text = f"{report.cells} cells{before}; {report.to_execute} stages to build, {self.workers} at a time"
        self.console.print(f"{text}{', ' if left else ''}{left}", **PLAIN)

    def left(self, now: float) -> str:
        """Return how long it may still take, and what has failed, in words."""
        seconds = self.pace.seconds(now, self.workers)
        known = [] if seconds is None or seconds < 1 else [f"about {duration(seconds)} left"]
        return ", ".join([*known, *([f"{self._failed} failed"] if self._failed else [])])

    def _step(self, text: str, now: float, always: bool = False) -> None:
        self._count += 1
        self._progress.advance(self._task)
        left = self.left(now)
        if not self.live:
            more = f"  ({left})" if left else ""
            self.console.print(f"[{self._count}/{self._total}] {now - self.started:7.1f} s  {text}{more}", **PLAIN)
        elif always:
            self.console.print(text, **PLAIN)

    def _show_record(self, record: Mapping[str, Any]) -> None:
        if record["status"] == "ok":
            measured = record["metrics"]
            cacc, asr, floor = (_percent(measured[name]) for name in ("cacc", "asr", "asr_floor"))
            text = f"CACC {cacc}  ASR {asr}  floor {floor}"
        else:
            text = f"failed: {reason_of(record['error'], remedy=False)}"
        self.console.print(f"    {self._titles.of(record['cell'])}: {text}", **PLAIN)


class _Left(ProgressColumn):
    """How long a run may still take and what has failed, counted down while a stage runs."""

    def __init__(self, display: Display) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._display = display

    def render(self, task: Any) -> Text:
        """Return the words for this moment."""
        return Text(self._display.left(time.monotonic()))


def _percent(rate: Mapping[str, Any] | None) -> str:
    return "—" if rate is None else f"{100 * rate['value']:.2f}"
