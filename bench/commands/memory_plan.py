"""The memory part of `bench plan`: what each training of a grid takes at its peak, and which memory holds it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from bench.core.errors import RequestError
from bench.engine import plugins
from bench.engine.plan import Plan
from bench.engine.preflight import has_nvidia
from bench.engine.sharding import inserts
from bench.engine.stages import Stage
from bench.victim.memory import Load, Memory, Trained, estimate
from bench.victim.recipes import AlignmentOptions, LoraOptions, MultiScaleOptions
from bench.victim.shapes import COMPACT, UNPADDED, Shape, shape_of
from bench.victim.spec import ARCHITECTURES, ModelSpec
from defenders.adapter import Adapter
from defenders.prefix import Prefix

UNITS = {"GB": 1e9, "GIB": 2**30, "MB": 1e6, "MIB": 2**20}
SHARE = 0.8  # of a device's memory that a plan counts on when none is named
LENGTH = 128  # tokens of a padded batch when none are named
SHOWN = ("weights", "gradients", "moments", "kept", "gathered", "copies", "activations", "working")
# What a training may be changed to, the mildest first: options of the model, and bf16 precision.
WAYS = (
    {"checkpointing": True},
    {"bf16": True},
    {"bf16": True, "weights": "bf16"},
    {"bf16": True, "weights": "bf16", "checkpointing": True},
    {"stand_in_rank": 1024},
    {"stand_in_rank": 1024, "bf16": True, "weights": "bf16"},
    {"stand_in_rank": 1024, "bf16": True, "weights": "bf16", "checkpointing": True},
)


@dataclass(frozen=True)
class Training:
    """One training of a plan, as far as its memory goes."""

    spec: ModelSpec
    defense: Any  # None: nothing is inserted
    recipe: str
    bf16: bool

    @property
    def whole(self) -> bool:
        """Whether the whole model would train, were there no stand-in."""
        return self.defense is None or not inserts(self.defense)

    @property
    def shards(self) -> int:
        """Over how many devices the training is spread."""
        return self.spec.shards if self.whole and self.spec.stand_in_rank is None else 1

    @property
    def label(self) -> str:
        """What trains, in a word or two."""
        name = "vanilla" if self.defense is None else self.defense.name
        if self.shards > 1:
            return f"{name} ({self.shards} shards)"
        return f"{name} (LoRA {self.spec.stand_in_rank})" if self.whole and self.spec.stand_in_rank else name


@dataclass(frozen=True)
class Budget:
    """A memory to fit: how it was named, and bytes."""

    name: str
    size: float


def budgets_of(memory: str | None, length: int | None) -> list[Budget]:
    """Return the memories to fit: those named, or the share of this device's that a plan counts on.

    Raises:
        RequestError: `memory` is no list of sizes, or `length` is not positive.
    """
    if length is not None and length < 1:
        raise RequestError(f"--length is {length}: at least 1 token is needed.", "Leave it out for the default.")
    if memory is None:
        name, size = _device()
        return [Budget(f"{100 * SHARE:.0f} % of this {name}'s {size / 1e9:.0f} GB", SHARE * size)]
    return [_budget(text, memory) for text in memory.split(",")]


def show_memory(plan: Plan, budgets: list[Budget], length: int | None, console: Console) -> None:
    """Print, for every different training of a plan, its estimated peak memory and which memory holds it."""
    rows, unknown = {}, set()
    for training in trainings_of(plan):
        found = memory_of(training, length)
        if found is None:
            unknown.add(f"{training.spec.name} / {training.label}")
        else:
            rows[training.spec.name, training.label, training.bf16, found] = training
    plain = {"markup": False, "highlight": False}
    if rows:
        tokens = f"{length or LENGTH} tokens (--length) or the model's limit"
        console.print(f"memory of a training in GB, its batches padded to {tokens}:", **plain)
        for line in _table(rows, budgets):
            console.print(f"  {line}", **plain)
        for training in rows.values():
            for line in _remedies(training, length, budgets):
                console.print(f"  {line}", **plain)
    for name in sorted(unknown):
        console.print(f"  no memory estimate for {name}: its architecture or what it inserts is not known", **plain)


def memory_of(training: Training, length: int | None = None) -> Memory | None:
    """Return the estimated memory of a training, None where the model or what is inserted is not known."""
    spec = training.spec
    shape = shape_of(spec)
    trained = None if shape is None else _trained(training, shape)
    if shape is None or trained is None:
        return None
    return estimate(shape, trained, load_of(training, shape, trained, length))


def load_of(training: Training, shape: Shape, trained: Trained, length: int | None) -> Load:
    """Return the step of a training: its batches, in which numbers, over how many devices."""
    spec = training.spec
    # The clean batch of gradient alignment rides in the same pass where the pass is unpadded.
    plain = not spec.checkpointing and spec.weights == "fp32"
    unpadded = training.shards == 1 and (shape.kind in COMPACT or (shape.kind in UNPADDED and plain))
    rides = unpadded and trained.aligned and not trained.whole
    return Load(
        batch=spec.batch_size * (2 if rides else 1),
        length=min(length or LENGTH, spec.max_length, shape.positions or spec.max_length),
        bf16=training.bf16,
        bf16_weights=spec.weights == "bf16",
        checkpointing=spec.checkpointing,
        paper_head=spec.head == "paper",
        unpadded=unpadded,
        shards=training.shards,
    )


def trainings_of(plan: Plan) -> Iterator[Training]:
    """Yield the trainings that differ in model, defense, recipe or precision: data sets and seeds change no memory."""
    seen = set()
    for stage in plan.unique():
        if stage.kind == "train":
            content = stage.content
            defense = content["defense"].identity if "defense" in content else None
            kind = (content["model"].identity, defense, content["recipe"], content["precision"])
            if kind not in seen:
                seen.add(kind)
                yield _training(stage)


def _training(stage: Stage) -> Training:
    content = stage.content
    model, defense = content["model"], content.get("defense")
    spec = plugins.model(model)
    acting = None if defense is None else plugins.defender(defense)
    return Training(spec, acting, content["recipe"], content["precision"] == "bf16")


def _trained(training: Training, shape: Shape) -> Trained | None:
    """Return what trains, None for a defense that inserts something that is not known here."""
    spec, defense = training.spec, training.defense
    aligned = isinstance(defense, AlignmentOptions)
    targets = spec.lora_targets or tuple(ARCHITECTURES[shape.kind]["lora_targets"])  # PEFT's own are the same
    if training.whole:
        if spec.stand_in_rank is None:
            return Trained(whole=True, aligned=aligned)
        head = training.recipe == "paper"
        return Trained(lora_rank=spec.stand_in_rank, lora_targets=targets, head=head, aligned=aligned)
    defense = defense.for_model(spec, training.recipe)
    if isinstance(defense, Prefix):
        return Trained(prefix_tokens=defense.tokens, prefix_width=defense.projection, head=defense.train_head)
    if isinstance(defense, Adapter):
        return Trained(adapter_dim=defense.dimension, adapter_sites=defense.sites, head=defense.train_head)
    if isinstance(defense, LoraOptions):
        scales = len(defense.scales) * defense.inner_rank if isinstance(defense, MultiScaleOptions) else 0
        targets = defense.targets or targets
        return Trained(
            lora_rank=defense.rank, lora_targets=targets, scales=scales, head=defense.train_head, aligned=aligned
        )
    return None


def _table(rows: dict[tuple, Training], budgets: list[Budget]) -> list[str]:
    """Return the lines of the table: a row for each training, a column for each use and each budget."""
    sharded = any(found.gathered for *_, found in rows)
    shown = [column for column in SHOWN if sharded or column != "gathered"]
    lines = [["model", "trains", "precision", *shown, "peak", *(f"fits {budget.name}" for budget in budgets)]]
    for (model, label, bf16, found), _ in sorted(rows.items(), key=lambda item: item[0][:3]):
        sizes = [f"{getattr(found, column) / 1e9:.1f}" for column in (*shown, "peak")]
        fits = ["yes" if found.peak <= budget.size else "no" for budget in budgets]
        lines.append([model, label, "bf16" if bf16 else "fp32", *sizes, *fits])
    return aligned(lines)


def aligned(lines: list[list[str]]) -> list[str]:
    """Return rows of texts as lines whose columns stand under each other."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _remedies(training: Training, length: int | None, budgets: list[Budget]) -> Iterator[str]:
    """Yield, for each memory that does not hold a training, the mildest change with which it does."""
    found = memory_of(training, length)
    for budget in budgets:
        if found is None or found.peak <= budget.size:
            continue
        name = f"{training.spec.name} / {training.label}"
        way = next((text for text, size in _ways(training, length) if size <= budget.size), None)
        if way is not None:
            yield f"{name} fits {budget.name} with {way}"
        else:
            what = "checkpointing, bf16 weights or LoRA of rank 1024"
            yield f"{name} does not fit {budget.name} even with {what}: lower model.batch_size or the rank"


def _ways(training: Training, length: int | None) -> Iterator[tuple[str, int]]:
    """Yield the changes that this training can take, and its peak with each."""
    for way in WAYS:
        options = {name: value for name, value in way.items() if name != "bf16"}
        if options.get("stand_in_rank") and (not training.whole or training.spec.stand_in_rank):
            continue
        spec = dataclasses.replace(training.spec, **options)
        if spec.weights == "bf16" and training.whole and spec.stand_in_rank is None:
            continue
        changed = dataclasses.replace(training, spec=spec, bf16=training.bf16 or "bf16" in way)
        found = memory_of(changed, length)
        if found is not None:
            words = [f"--set model.{name}={str(value).lower()}" for name, value in options.items()]
            yield " ".join((["--precisions bf16"] if "bf16" in way and not training.bf16 else []) + words), found.peak


def _budget(text: str, memory: str) -> Budget:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) == 0:
        raise RequestError(f"--memory {memory!r} is no size.", "Write a number and GB, GiB, MB or MiB: 24GB,80GB.")
    return Budget(text.strip(), float(match[1]) * unit)


def _device() -> tuple[str, float]:
    """Return the kind and the memory in bytes of the device that a run here would take."""
    if has_nvidia():
        import torch

        if torch.cuda.is_available():
            return "GPU", float(torch.cuda.get_device_properties(0).total_memory)
    return "machine", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
