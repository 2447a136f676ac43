"""Filtering-based frequency analysis of a training (Wu et al., ACL 2024, appendix A; Xu et al. 2020).

Through training, the victim's outputs on clean and on poisoned rows (the clean and the backdoor mapping) are split by
Gaussian filters over the input embeddings into a low and a high frequency part. Where this departs from the published
code: leaderboard/DEVIATIONS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bench.analysis.watchers.base import Analysis
from bench.core.example import Example
from bench.core.options import Count, Fraction, Positive
from bench.core.seeding import python_rng

if TYPE_CHECKING:
    from bench.victim.batching import Encoded

QUANTILE_ROWS = 500  # rows of both mappings whose pairwise distances choose delta
DIGITS = 6  # significant digits of the series in a record
NotEmpty = Field(min_length=1)


@dataclass(frozen=True)
class Fourier(Analysis):
    """Low and high frequency parts of the clean and the backdoor mapping, and the error of each, through training."""

    name = "fourier"

    kernels: Annotated[tuple[Literal["released", "paper"], ...], NotEmpty] = ("released", "paper")
    deltas: tuple[Positive, ...] = (4.0,)  # the paper's
    # For each, a further delta per kernel, chosen from this quantile of the rows' pairwise distances.
    quantiles: tuple[Fraction, ...] = (0.5,)
    # Neighbours of a row: rows of its own mapping (as published), or of both, where a trigger stands out of its text.
    over: Annotated[tuple[Literal["separate", "joint"], ...], NotEmpty] = ("separate", "joint")
    rows: Annotated[int, Field(ge=2)] | None = None  # at most so many rows of each mapping, drawn at a fixed seed
    looks: Count = 20  # evenly spread over the steps, beside the one before the first
    every: Count | None = None  # steps between looks, in place of `looks`; the published code has 5

    def watcher(self, clean: Sequence[Example], poisoned: Sequence[Example], classes: int) -> FourierWatcher:
        """Return what looks on at one training."""
        drawn = [self._drawn(rows, name) for rows, name in ((clean, "clean"), (poisoned, "backdoor"))]
        return FourierWatcher(self, drawn[0], drawn[1], classes)

    def _drawn(self, examples: Sequence[Example], name: str) -> list[Example]:
        if self.rows is None or self.rows >= len(examples):
            return list(examples)
        order = python_rng(0, f"fourier rows of the {name} mapping").sample(range(len(examples)), self.rows)
        return [examples[place] for place in sorted(order)]

    def steps(self, steps: int) -> frozenset[int]:
        """Return after how many of `steps` steps to look: before the first, at the end, and in between."""
        if self.every is not None:
            return frozenset({*range(0, steps + 1, self.every), steps})
        count = min(self.looks, steps)
        return frozenset(round(steps * turn / count) for turn in range(count + 1))


@dataclass
class FourierWatcher:
    """Keeps the outputs at each look; filters them all in one pass at the end, since the filter stays the same."""

    options: Fourier
    clean: list[Example]
    poisoned: list[Example]
    classes: int
    at: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)  # per look, float32 [clean + poisoned rows, classes]
    texts: Encoded | None = None
    embedding: Any = None
    steps_per_epoch: int = 0

    def on_step(self, run: Any) -> None:
        """Keep the victim's probabilities when it is time; keep its embedding block when training starts."""
        if self.texts is None:
            from bench.analysis.texts import Embedding

            self.texts = run.victim.encode_texts(example.text for example in [*self.clean, *self.poisoned])
            self.embedding = Embedding(run.victim)
            self.steps_per_epoch = run.steps_per_epoch
        if run.step in self.options.steps(run.steps):
            self.at.append(run.step)
            self.outputs.append(run.victim.predict_encoded(self.texts))

    def found(self) -> dict[str, Any]:
        """Return the series of every filter, or why a filter has none."""
        from bench.analysis.spectra import spectra

        labels = [example.label for example in [*self.clean, *self.poisoned]]
        series = spectra(self.options, self.texts, labels, len(self.clean), self.outputs, self.embedding, self.classes)
        return {
            "name": self.options.name,
            "version": self.options.version,
            "options": self.options.identity(),
            "rows": {"clean": len(self.clean), "backdoor": len(self.poisoned)},
            "steps": self.at,
            "steps_per_epoch": self.steps_per_epoch,
            **rounded(series),
        }


def rounded(value: Any) -> Any:
    """Return JSON values with every float cut to six significant digits."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
