"""What the two recipes say of LoRA, the multi-scale layer and gradient alignment: options and their defaults.

`released` is the published code (REFERENCE sections 2, 3), `paper` the text where it speaks and the code elsewhere.
An option left at None is filled from the model file and the recipe, so that leaving it out and writing it are one cell.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from bench.core.errors import CellError
from bench.core.options import Count, Fraction, Index, NonNegative, Options, Positive, Text
from bench.victim.spec import ModelSpec

CLEAN_SAMPLES = 96


@dataclass(frozen=True, kw_only=True)
class LoraOptions(Options):
    """Low-rank updates of the backbone."""

    rank: Count | None = None  # r
    alpha: Positive | None = None  # the update is scaled by alpha / rank
    targets: tuple[Text, ...] | None = None  # suffixes of module names; empty: PEFT's own for the architecture
    train_head: bool | None = None  # released: the head stays at its random draw; paper: it trains

    @staticmethod
    def defaults(model: ModelSpec, recipe: str) -> dict[str, Any]:
        """Return the values of the options that were left out."""
        return {
            "rank": model.lora_rank,
            "alpha": model.lora_alpha,
            "targets": model.lora_targets,
            "train_head": recipe == "paper",
        }


@dataclass(frozen=True, kw_only=True)
class MultiScaleOptions(Options):
    """The multi-scale low-rank module at the linear before the classifier."""

    scales: tuple[Positive, ...] | None = None  # S
    inner_rank: Count = 1  # r, how often each entry of S is repeated; the paper's bandwidth
    scale_factor: Positive | None = None  # the update is scaled by scale_factor / inner_rank
    zero_start: bool | None = None  # released: both factors random, so the module is no identity at step 0

    @staticmethod
    def defaults(model: ModelSpec, recipe: str) -> dict[str, Any]:
        """Return the values of the options that were left out.

        Raises:
            CellError: the model has no linear before its classifier.
        """
        if model.penultimate is None:
            raise CellError(
                f"Model {model.name!r} has no linear before its classifier, where the multi-scale module goes.",
                "Set model.penultimate, or choose another defense.",
            )
        return {
            "scales": model.scales_paper if recipe == "paper" else model.scales,
            "scale_factor": model.scale_factor,
            "zero_start": recipe == "paper",
        }


@dataclass(frozen=True, kw_only=True)
class AlignmentOptions(Options):
    """Gradient alignment with a few clean rows."""

    clean_samples: Count | None = None
    projection: Literal["tensor", "global"] | None = None  # Eq. 7 per tensor (code) or over all (text)
    schedule: Literal["epoch", "step"] | None = None  # mu rises by epoch from ga_epoch (code), or by step from 0 (text)
    gated: bool | None = None  # whether the reference loss decides between aligned, mixed and raw gradient
    mu_max: Fraction | None = None
    ga_epoch: Index | None = None  # first epoch, from 0, that mixes the raw gradient in
    min_reference_loss: NonNegative | None = None  # above it the gradient is the aligned one alone
    min_reference_norm: NonNegative = 5e-7  # and so long as the clean gradient's mean norm is above this

    @staticmethod
    def defaults(model: ModelSpec, recipe: str) -> dict[str, Any]:
        """Return the values of the options that were left out."""
        paper = recipe == "paper"
        return {
            "clean_samples": model.clean_samples,
            "projection": "global" if paper else "tensor",
            "schedule": "step" if paper else "epoch",
            "gated": not paper,
            "mu_max": model.mu_max,
            "ga_epoch": model.ga_epoch,
            "min_reference_loss": model.min_reference_loss,
        }

    def samples(self) -> int:
        """Return how many labelled clean rows alignment needs."""
        return CLEAN_SAMPLES if self.clean_samples is None else self.clean_samples


def filled(options: Any, model: ModelSpec, recipe: str) -> Any:
    """Return the options with every None that a recipe part knows filled in; what was given stays."""
    known: dict[str, Any] = {}
    for part in (LoraOptions, MultiScaleOptions, AlignmentOptions):
        if isinstance(options, part):
            known |= part.defaults(model, recipe)
    left = {name: value for name, value in known.items() if getattr(options, name) is None}
    return dataclasses.replace(options, **left)
