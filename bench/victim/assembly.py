"""Inserting the parts of the MuScleLoRA family as their options say, and the LoRA that stands for full fine-tuning."""

from __future__ import annotations

from bench.core.errors import CellError
from bench.core.options import label
from bench.core.seeding import derived_seed
from bench.victim.lora import attach_lora
from bench.victim.multiscale import attach_multiscale
from bench.victim.recipes import LoraOptions, MultiScaleOptions
from bench.victim.victim import Victim


def add_lora(victim: Victim, options: LoraOptions, seed: int) -> None:
    """Insert LoRA into the victim in place, as options that `for_model` filled say; CellError when one is open."""
    if options.rank is None or options.alpha is None or options.targets is None or options.train_head is None:
        raise _open(options)
    attach_lora(
        victim,
        rank=options.rank,
        alpha=options.alpha,
        targets=options.targets,
        seed=derived_seed(seed, "lora"),
        train_head=options.train_head,
    )


def add_stand_in(victim: Victim, recipe: str, seed: int) -> int | None:
    """Insert, in place, the LoRA that stands for training the whole model where the spec asks for one; return its rank.

    As in the published code's victims of ONION and STRIP on decoders: alpha is the rank, the targets are the model
    file's, and the head is the recipe's (frozen in `released`). A victim that already holds what trains is left alone.
    """
    rank = victim.spec.stand_in_rank
    if rank is None or victim.attached:
        return None
    attach_lora(
        victim,
        rank=rank,
        alpha=float(rank),
        targets=victim.spec.lora_targets,
        seed=derived_seed(seed, "stand-in"),
        train_head=recipe == "paper",
    )
    return rank


def add_multiscale(victim: Victim, options: MultiScaleOptions, seed: int) -> None:
    """Insert the multi-scale module into the victim in place, as filled options say; CellError when one is open."""
    if options.scales is None or options.scale_factor is None or options.zero_start is None:
        raise _open(options)
    attach_multiscale(
        victim,
        options.scales,
        scale_factor=options.scale_factor,
        inner_rank=options.inner_rank,
        zero_start=options.zero_start,
        seed=derived_seed(seed, "multi-scale"),
    )


def _open(options: object) -> CellError:
    return CellError(f"Options of {label(options)!r} are not filled in.", "Call for_model(model, recipe) first.")
