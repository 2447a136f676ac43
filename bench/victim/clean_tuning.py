"""Fine-tuning a victim on few clean rows, and choosing one value of a grid by clean accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.seeding import derived_seed
from bench.victim.repair_options import CleanTuning
from bench.victim.run import Hook
from bench.victim.training import train
from bench.victim.victim import Victim

EXACT = 1e-9  # accuracies are shares of rows: what differs by less is rounding


def fine_tuned(
    victim: Victim,
    rows: Sequence[Example],
    options: CleanTuning,
    seed: int,
    *,
    hooks: Sequence[Hook] = (),
    inserted_rate: float | None = None,
) -> Victim:
    """Train the victim in place on clean rows as the options say, and return it; its spec is afterwards as it was.

    `inserted_rate` is the learning rate of a victim of which only inserted modules train, where it is not the spec's.

    Raises:
        CellError: there are no rows, or the training fails.
    """
    own = victim.spec
    victim.spec = dataclasses.replace(
        own,
        learning_rate=options.learning_rate or own.learning_rate,
        learning_rate_pet=inserted_rate or own.learning_rate_pet,
        epochs=options.epochs,
        batch_size=options.batch_size,
    )
    try:
        train(victim, rows, (), seed=derived_seed(seed, "fine-tuning"), hooks=hooks)
    finally:
        victim.spec = own
    return victim


def refuse_inserted(victim: Victim, reason: str) -> None:
    """Raise CellError, with the reason, for a victim of which only inserted modules were trained."""
    if victim.attached:
        raise CellError(
            f"Of this victim only inserted modules ({victim.attached[0]} ...) were trained: {reason}.",
            "Use this defense on a victim whose own weights were trained, or choose fine-tuning.",
        )


def needed_accuracy(victim: Victim, held_out: Sequence[Example], accepted_loss: float, option: str) -> float:
    """Return the clean accuracy on held-out rows that a candidate must reach: the victim's, less the accepted loss.

    Raises:
        CellError: there are no held-out rows to choose `option` by.
    """
    if not held_out:
        raise CellError(
            f"No clean rows are left to choose {option} by.", f"Lower clean_samples, or set {option} to a number."
        )
    return victim.accuracy(victim.encode(held_out)) - accepted_loss


def first_reaching(
    candidates: Sequence[float], attempt: Callable[[float], float], needed: float
) -> tuple[float, dict[float, float]]:
    """Try candidates in order until one reaches the needed accuracy; return it and the accuracies of all that were.

    When none does it is the first of those of the highest accuracy. What `attempt` changes is afterwards as the
    returned candidate leaves it.
    """
    tried: dict[float, float] = {}
    for candidate in candidates:
        tried[candidate] = attempt(candidate)
        if tried[candidate] >= needed - EXACT:
            return candidate, tried
    best = max(tried, key=tried.__getitem__)
    if best != candidates[-1]:
        attempt(best)  # cheaper than a copy of every candidate's weights; the same seed leads to the same weights
    return best, tried


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that do not train."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def note(victim: Victim, entry: Mapping[str, Any]) -> None:
    """Add what a repair decided, as JSON values, to the victim's list `repairs`, made when absent."""
    victim.repairs = [*getattr(victim, "repairs", []), dict(entry)]
