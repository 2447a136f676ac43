"""The part of `bench plan` on whole models over several devices: what each takes, the host, and the evaluation."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from bench.commands.memory_plan import Budget, Training, aligned, load_of, memory_of, trainings_of
from bench.engine.plan import Plan
from bench.victim.memory import Trained, evaluation, trainable
from bench.victim.shapes import shape_of

COUNTS = (2, 4, 8)  # devices
COLUMNS = ("weights", "gradients", "moments", "gathered", "copies", "activations", "working", "peak")


def show_shards(plan: Plan, budgets: list[Budget], length: int | None, console: Console) -> None:
    """Print what each device takes of every model that trains whole, where one device is not asked or not enough."""
    models: dict[str, Training] = {}
    for training in trainings_of(plan):
        found = memory_of(training, length)
        if found is None or not training.whole or training.spec.stand_in_rank is not None:
            continue
        if training.shards > 1 or any(found.peak > budget.size for budget in budgets):
            models.setdefault(training.spec.name, training)
    for training in models.values():
        for line in _lines(training, budgets, length):
            console.print(line, markup=False, highlight=False)


def _lines(training: Training, budgets: list[Budget], length: int | None) -> list[str]:
    spec = training.spec
    rows = [["shards", "precision", "checkpointing", *COLUMNS, *(f"fits {budget.name}" for budget in budgets)]]
    for count in sorted({*COUNTS, *({spec.shards} - {1})}):
        for bf16, again in sorted({(training.bf16, spec.checkpointing), (True, True)}):
            changed = dataclasses.replace(spec, shards=count, checkpointing=again)
            found = memory_of(dataclasses.replace(training, spec=changed, bf16=bf16), length)
            sizes = [f"{getattr(found, column) / 1e9:.1f}" for column in COLUMNS]
            fits = ["yes" if found.peak <= budget.size else "no" for budget in budgets]
            rows.append([str(count), "bf16" if bf16 else "fp32", "yes" if again else "no", *sizes, *fits])
    shape, whole = shape_of(spec), Trained(whole=True)
    load = load_of(training, shape, whole, length)
    alone, numbers = evaluation(shape, load), trainable(shape, whole, load)
    fits = ", ".join(f"{'fits' if alone <= budget.size else 'does not fit'} {budget.name}" for budget in budgets)
    return [
        f"memory of each device in GB where model.shards spreads the whole of {spec.name} (model.checkpointing, "
        "--precisions):",
        *(f"  {line}" for line in aligned(rows)),
        f"  its evaluation is on one device: {alone / 1e9:.1f} GB ({fits})",
        f"  the machine itself: {4 * numbers / 1e9:.1f} GB to load it, as much for the best checkpoint of all devices, "
        "and as much again to write it",
    ]
