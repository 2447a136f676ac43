"""LoRA on the backbone by PEFT (Hu et al., arXiv 2106.09685), with the head left out of PEFT's hands."""

from __future__ import annotations

import math
import warnings

import torch

from bench.core.errors import CellError
from bench.core.seeding import derived_seed
from bench.victim.loading import quiet
from bench.victim.victim import Victim

ADAPTER = "default"


def attach_lora(
    victim: Victim, *, rank: int, alpha: float, targets: tuple[str, ...], seed: int, train_head: bool = False
) -> None:
    """Insert LoRA into the victim's backbone in place and freeze all else, the head too unless `train_head`.

    A [rank, in] is drawn kaiming-uniform (a = sqrt 5) from `seed`, B [out, rank] is 0, the update is scaled by
    alpha / rank, without dropout and without biases. `targets` are suffixes of module names; with none PEFT chooses.

    Raises:
        CellError: no module of the backbone fits the targets.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=list(targets) if targets else None
    )
    # PEFT draws the factors itself; they are drawn over below.
    with quiet(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            inject_adapter_in_model(config, victim.backbone, adapter_name=ADAPTER)
        except ValueError as error:
            raise CellError(
                f"LoRA attaches to no module of model {victim.spec.name!r} with targets {list(targets)}.",
                "Set model.lora_targets to suffixes of its linear layers' names.",
            ) from error
    victim.freeze()
    if train_head:
        victim.train_head()
    factors = {name: value for name, value in victim.tensors().items() if f".lora_A.{ADAPTER}." in name}
    for name, value in sorted(factors.items()):
        generator = torch.Generator().manual_seed(derived_seed(seed, name))
        drawn = torch.empty(value.shape, dtype=torch.float32)
        torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        with torch.no_grad():
            value.copy_(drawn)
    for name, value in victim.tensors().items():
        if ".lora_A." in name or ".lora_B." in name:
            value.data = value.data.float()  # whatever the weights are
            value.requires_grad_(True)
    victim.attached += [name.partition(".lora_A.")[0] for name in sorted(factors)]
