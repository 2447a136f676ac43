"""Fine-pruning of feed-forward neurons: how active each is on clean texts, setting some to zero, keeping them there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.memory import part_size
from bench.victim.batching import Batch
from bench.victim.clean_tuning import copies, fine_tuned, first_reaching, needed_accuracy, note, refuse_inserted
from bench.victim.mixing import lowest
from bench.victim.repair_options import PruningOptions
from bench.victim.run import Run
from bench.victim.victim import Victim

# (module whose rows lead into the neurons, module that reads them), by the ends of their names. A gated block is
# led by its activated half: in ModernBERT's `Wi` these are the first rows.
BLOCKS = (
    ("intermediate.dense", "output.dense"),  # BERT, RoBERTa
    ("mlp.Wi", "mlp.Wo"),  # ModernBERT
    ("mlp.c_fc", "mlp.c_proj"),  # GPT-2
    ("mlp.gate_proj", "mlp.down_proj"),  # Llama, Qwen
)
BATCH = 64  # clean rows in one forward pass


class Slices(NamedTuple):
    """Part of a tensor: these `indices` [k] of one dimension."""

    tensor: str
    dimension: int
    indices: Tensor


@dataclass(frozen=True)
class Block:
    """One feed-forward block: the dotted names of its two maps, and its number of neurons."""

    leading: str
    reading: str
    neurons: int


def blocks(victim: Victim) -> list[Block]:
    """Return the feed-forward blocks of the victim's backbone, first layer first.

    Raises:
        CellError: this architecture's blocks are not known.
    """
    found, modules = [], dict(victim.model.named_modules())
    for name in modules:
        for leading, reading in BLOCKS:
            reader = modules.get(name.removesuffix(leading) + reading)
            if name.endswith("." + leading) and reader is not None:
                width = reader.weight.shape[_neuron_dimension(reader, reads=True)]
                found.append(Block(name, name.removesuffix(leading) + reading, width))
    if not found:
        raise CellError(
            f"The feed-forward layers of model {victim.spec.name!r} are not known.",
            f"Use one whose layers end in {', '.join(leading for leading, _ in BLOCKS)}.",
        )
    return found


def _neuron_dimension(module: nn.Module, reads: bool) -> int:
    """Return along which dimension of the weight the neurons lie: GPT-2's Conv1D stores its weight transposed."""
    return int(reads) if isinstance(module, nn.Linear) else int(not reads)


def activity(victim: Victim, layers: Sequence[Block], rows: Sequence[Example], how: str) -> list[Tensor]:
    """Return for each block the mean activation [neurons] over the real tokens of the rows.

    `how` is `absolute` (of magnitudes) or `signed`. Eval mode, no gradients.

    Raises:
        CellError: there are no rows.
    """
    if not rows:
        raise CellError("There are no clean rows to measure activity on.", "Give at least one.")
    sums = [torch.zeros(layer.neurons, dtype=torch.float64, device=victim.device) for layer in layers]
    tokens, texts = 0, victim.encode(rows)
    victim.eval()
    with torch.inference_mode():
        for places in texts.by_length(part_size(BATCH)):
            inputs = texts.batch(places, victim.device).inputs
            real = inputs["attention_mask"].bool()
            with _listening(victim, layers, sums, real, how):
                victim.logits(inputs)
            tokens += int(real.sum())
    return [total / tokens for total in sums]


@contextmanager
def _listening(
    victim: Victim, layers: Sequence[Block], sums: Sequence[Tensor], real: Tensor, how: str
) -> Iterator[None]:
    """Add the activations of the real tokens to `sums` in place while the victim runs."""

    def listener(total: Tensor) -> Any:
        def add(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].double()
            # A backbone that takes the padding out itself has real tokens only.
            values = values[real] if values.shape[:-1] == real.shape else values.flatten(0, -2)
            total.add_((values.abs() if how == "absolute" else values).sum(0))

        return add

    handles = [
        victim.model.get_submodule(layer.reading).register_forward_pre_hook(listener(total))
        for layer, total in zip(layers, sums, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def least_active(scores: Sequence[Tensor], ratio: float, within: str) -> list[Tensor]:
    """Return for each block the indices of the round(ratio * n) least active neurons, of each `layer` or the `model`.

    Among equals the first are taken.
    """
    if within == "layer":
        masks = [lowest(values, round(ratio * len(values))) for values in scores]
    else:
        together = torch.cat(list(scores))
        masks = lowest(together, round(ratio * len(together))).split([len(values) for values in scores])
    return [mask.nonzero().squeeze(1) for mask in masks]


def slices(victim: Victim, layers: Sequence[Block], pruned: Sequence[Tensor], side: str) -> list[Slices]:
    """Return the parts of the weights that pruning these neurons sets to zero, on the `incoming` or `outgoing` side.

    The activation functions of these architectures are 0 at 0, so either side alone silences a neuron.
    """
    parts = []
    for layer, indices in zip(layers, pruned, strict=True):
        where = layer.leading if side == "incoming" else layer.reading
        module = victim.model.get_submodule(where)
        parts.append(Slices(f"{where}.weight", _neuron_dimension(module, reads=side == "outgoing"), indices))
        if side == "incoming" and module.bias is not None:
            parts.append(Slices(f"{where}.bias", 0, indices))
    return parts


def zero(victim: Victim, parts: Sequence[Slices]) -> None:
    """Set these parts of the victim's weights to zero in place."""
    tensors = victim.tensors()
    with torch.no_grad():
        for name, dimension, indices in parts:
            tensors[name].index_fill_(dimension, indices, 0.0)


class FrozenAtZero:
    """Hook that keeps parts of the weights at exactly zero: no gradient, and zero again before each step."""

    reads = ()  # and the parts are of linear layers

    def __init__(self, parts: Sequence[Slices]) -> None:
        self.parts = tuple(parts)

    def on_gradients(self, run: Run, batch: Batch) -> None:
        """Set gradients and weights of the parts to zero in place."""
        for name, dimension, indices in self.parts:
            gradient = run.parameters[name].grad if name in run.parameters else None
            if gradient is not None:
                gradient.index_fill_(dimension, indices, 0.0)
        zero(run.victim, self.parts)


def fine_pruned(victim: Victim, knowledge: Knowledge, options: PruningOptions, *, frozen: bool) -> Victim:
    """Prune the victim's least active neurons in place, fine-tune it on the clean rows, and return it.

    With `frozen` what was pruned is exactly zero at the end; else it may be learnt again.

    Raises:
        CellError: only inserted modules of the victim were trained, its architecture is not known, or the ratio is to
            be chosen and no clean rows are left for that.
    """
    refuse_inserted(victim, "its own feed-forward neurons are those of the pre-trained model")
    layers = blocks(victim)[-1 if options.layers == "last" else 0 :]
    scores = activity(victim, layers, knowledge.clean, options.activity)

    def parts(ratio: float) -> list[Slices]:
        return slices(victim, layers, least_active(scores, ratio, options.within), options.side)

    ratio = options.ratio
    if ratio is None:
        needed = needed_accuracy(victim, knowledge.calibration, options.accepted_loss, "ratio")
        ratio, tried = _largest(victim, knowledge.calibration, options, parts, needed)
        found = {"needed": needed, "accuracies": {str(key): value for key, value in tried.items()}}
    else:
        found = {}
    zero(victim, parts(ratio))
    note(victim, {"ratio": ratio, **found})
    hooks = [FrozenAtZero(parts(ratio))] if frozen else []
    fine_tuned(victim, knowledge.clean, options, knowledge.seed, hooks=hooks)
    if frozen:
        zero(victim, parts(ratio))  # the hook acts before a step, never after the last one
    return victim


def _largest(
    victim: Victim, rows: Sequence[Example], options: PruningOptions, parts: Any, needed: float
) -> tuple[float, dict[float, float]]:
    """Return the largest ratio of the grid with which the pruned victim is accurate enough; the victim stays unpruned.

    When none is, it is the one of the highest accuracy.
    """
    names = {name for name, *_ in parts(1.0)}
    original = copies({name: value for name, value in victim.tensors().items() if name in names})
    held_out = victim.encode(rows)

    def restore() -> None:
        with torch.no_grad():
            for name, value in original.items():
                victim.tensors()[name].copy_(value)

    def attempt(ratio: float) -> float:
        restore()
        zero(victim, parts(ratio))
        return victim.accuracy(held_out)

    chosen = first_reaching(sorted(options.grid, reverse=True), attempt, needed)
    restore()
    return chosen
