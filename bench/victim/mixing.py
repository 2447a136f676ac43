"""Fine-mixing's first step: each entry of the backbone is the victim's own or the pre-trained one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.knowledge import Knowledge
from bench.core.seeding import derived_seed
from bench.victim.clean_tuning import copies, fine_tuned, first_reaching, needed_accuracy, note, refuse_inserted
from bench.victim.repair_options import MixingOptions
from bench.victim.victim import Victim

Score = Callable[[str, Tensor, Tensor], Tensor]  # (name, victim's, pre-trained) -> same shape; the lowest are kept
Within = Literal["entries", "tensor", "model"]


def drawn(seed: int) -> Score:
    """Return scores uniform in [0, 1), a function of the seed and the tensor's name alone.

    They do not depend on rho, so what is kept at a small rho is kept at a larger one; they are drawn on the CPU, so
    that every device mixes alike.
    """

    def score(name: str, own: Tensor, pretrained: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(derived_seed(seed, f"mask {name}"))
        return torch.rand(own.shape, generator=generator).to(own.device)

    return score


def moved(sign: int) -> Score:
    """Return `sign` times the distance of each entry from its pre-trained value as scores."""

    def score(name: str, own: Tensor, pretrained: Tensor) -> Tensor:
        return sign * (own - pretrained).abs()

    return score


def kept_entries(scores: Iterator[tuple[str, Tensor]], rho: float, within: Within) -> Iterator[tuple[str, Tensor]]:
    """Yield for each tensor the mask, of its shape, of the entries that are kept: those of low score.

    `entries`: score < rho, with scores uniform in [0, 1) an independent draw for each entry. `tensor`: exactly
    round(rho * entries) of each tensor. `model`: exactly that many of all tensors together. Among equal scores the
    first entries are kept.
    """
    if within == "entries":
        for name, values in scores:
            yield name, values < rho
    elif within == "tensor":
        for name, values in scores:
            yield name, lowest(values.flatten(), round(rho * values.numel())).view(values.shape)
    else:
        every = dict(scores)
        together = torch.cat([values.flatten() for values in every.values()])
        masks = lowest(together, round(rho * len(together))).split([values.numel() for values in every.values()])
        for (name, values), mask in zip(every.items(), masks, strict=True):
            yield name, mask.view(values.shape)


def lowest(values: Tensor, count: int) -> Tensor:
    """Return a mask [n] of the `count` lowest values [n]; among equals the first."""
    if count <= 0 or count >= len(values):
        return torch.full_like(values, count > 0, dtype=torch.bool)
    threshold = values.kthvalue(count).values
    mask = values < threshold
    equal = (values == threshold).nonzero().squeeze(1)
    mask[equal[: count - int(mask.sum())]] = True
    return mask


def mixable(victim: Victim, options: MixingOptions) -> list[str]:
    """Return the names of the backbone's tensors that the options mix, in the model's order.

    What the model's files lack, as those of a masked language model lack BERT's pooler, has no pre-trained value to mix
    with.
    """
    modules, prefix = dict(victim.model.named_modules()), f"{victim.model.base_model_prefix}."
    names = []
    for name in victim.tensors():
        if not name.startswith(prefix) or name in victim.drawn:
            continue
        owner = modules[name.rpartition(".")[0]]
        norm = "Norm" in type(owner).__name__
        pooler = ".pooler." in name
        sorts = {
            "embeddings": isinstance(owner, nn.Embedding),
            "norms": norm,
            "pooler": pooler,
            "biases": name.endswith("bias") and not norm and not pooler,
        }
        if all(getattr(options, option) for option, applies in sorts.items() if applies):
            names.append(name)
    return names


def mix(
    victim: Victim,
    backdoored: Mapping[str, Tensor],
    pretrained: Mapping[str, Tensor],
    rho: float,
    score: Score,
    within: Within,
) -> None:
    """Set the victim's tensors in place, entry by entry, to the backdoored value or the pre-trained one.

    The names are those of `pretrained`; the share that stays backdoored is rho.
    """
    tensors = victim.tensors()
    scores = ((name, score(name, backdoored[name], pretrained[name])) for name in pretrained)
    with torch.no_grad():
        for name, mask in kept_entries(scores, rho, within):
            tensors[name].copy_(torch.where(mask, backdoored[name], pretrained[name]))


def fine_mixed(victim: Victim, knowledge: Knowledge, options: MixingOptions, score: Score, within: Within) -> Victim:
    """Mix the victim in place with the pre-trained weights, fine-tune it on the clean rows, and return it.

    Raises:
        CellError: only inserted modules of the victim were trained, the pre-trained model has another shape, or rho
            is to be chosen and no clean rows are left for that.
    """
    refuse_inserted(victim, "its backbone is still the pre-trained one, so there is nothing to mix")
    pretrained, head = _pretrained(victim, knowledge, options)
    backdoored = copies(victim.tensors())

    def attempt(rho: float) -> float:
        with torch.no_grad():
            for name, value in victim.tensors().items():
                value.copy_(head.get(name, backdoored[name]))
        mix(victim, backdoored, pretrained, rho, score, within)
        fine_tuned(victim, knowledge.clean, options, knowledge.seed)
        return victim.accuracy(held_out) if len(held_out) else float("nan")

    held_out = victim.encode(knowledge.calibration if options.rho is None else ())
    if options.rho is not None:
        attempt(options.rho)
        note(victim, {"rho": options.rho})
        return victim
    needed = needed_accuracy(victim, knowledge.calibration, options.accepted_loss, "rho")
    rho, tried = first_reaching(sorted(options.grid), attempt, needed)
    note(victim, {"rho": rho, "needed": needed, "accuracies": {str(key): value for key, value in tried.items()}})
    return victim


def _pretrained(
    victim: Victim, knowledge: Knowledge, options: MixingOptions
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the pre-trained values of what is mixed, and, where one is asked for, a fresh head.

    All that has no pre-trained counterpart goes with the head.
    """
    fresh = {name: value.detach() for name, value in knowledge.fresh_victim().tensors().items()}
    own, names = victim.tensors(), mixable(victim, options)
    unlike = next((name for name in names if name not in fresh or fresh[name].shape != own[name].shape), None)
    if unlike is not None:
        raise CellError(
            f"The pre-trained model has no {unlike} of the victim's shape.", "Give the model that the victim began as."
        )
    headed = [name for name in own if name.partition(".")[0] in victim.head or name in victim.drawn]
    renewed = headed if options.head == "fresh" else []
    return {name: fresh[name] for name in names}, {name: fresh[name] for name in renewed}
