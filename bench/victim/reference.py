"""The plain way to train and to predict: what our loop is measured against, and must agree with tensor by tensor.

Hugging Face's model as it is, random batches padded to their longest text, AdamW, clipping, a linear schedule; LoRA by
PEFT; gradient alignment (recipe `released`) by a second pass over a batch of clean rows. Nothing here uses our own
batching, hooks or inserted modules; the seeds name the same draws, so that equal batches meet equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.seeding import derived_seed
from bench.victim.loading import checked_folder, quiet, read_model
from bench.victim.recipes import AlignmentOptions
from bench.victim.spec import ModelSpec
from bench.victim.victim import Victim

PREDICTED_AT_ONCE = 32  # texts in a batch of predictions, as published
Tick = Callable[[int, int], None]  # called after each step with (steps done, steps)


class PlainVictim(Victim):
    """A victim that predicts plainly: 32 texts at a time in their own order, each batch padded to its longest."""

    plain = True

    def reader(self) -> None:
        """Return None: what is unpadded is not plain."""

    def _collect(self, texts: Any, batch_size: int | None, width: int, compute: Any) -> Any:
        training, found = self.training, [torch.empty(0, width)]
        self.eval()
        size = batch_size or PREDICTED_AT_ONCE
        try:
            with torch.no_grad():
                for start in range(0, len(texts.ids), size):
                    inputs = _padded(texts.ids[start : start + size], texts.pad, self.device)
                    found.append(compute(inputs).float().cpu())
        finally:
            self.train(training)
        return torch.cat(found).numpy()


class PlainMultiScale(nn.Module):
    """A linear that stays as it is, plus scaling * R diag(S) L x (REFERENCE section 2)."""

    def __init__(self, original: nn.Linear, scales: Sequence[float], scaling: float) -> None:
        super().__init__()
        self.original, self.scaling = original, scaling
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float32))
        self.lower = nn.Parameter(torch.empty(len(scales), original.in_features))
        self.upper = nn.Parameter(torch.empty(original.out_features, len(scales)))
        nn.init.kaiming_uniform_(self.lower, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.upper, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., out] for inputs [..., in]."""
        return self.original(inputs) + self.scaling * (inputs @ self.lower.T * self.scales) @ self.upper.T


def plain_victim(
    spec: ModelSpec, classes: int, *, seed: int, device: str = "cpu", precision: str = "fp32"
) -> PlainVictim:
    """Return Hugging Face's classifier with the head of `load_victim`; CellError where the model cannot be had."""
    folder = checked_folder(spec)
    with quiet():
        tokenizer, model, drawn = read_model(spec, folder, classes, seed)
    return PlainVictim(model.to(device), tokenizer, spec, classes, precision, drawn)


def insert_lora(victim: Victim) -> None:
    """Insert PEFT's LoRA in place, as the model file has it; only its factors train, the head stays as drawn."""
    from peft import LoraConfig, inject_adapter_in_model

    spec = victim.spec
    config = LoraConfig(
        r=spec.lora_rank, lora_alpha=spec.lora_alpha, lora_dropout=0.0, target_modules=list(spec.lora_targets) or None
    )
    with quiet():
        inject_adapter_in_model(config, victim.model.base_model)
    for name, value in victim.model.named_parameters():
        value.requires_grad_("lora_" in name)
    victim.attached.append("lora")


def insert_multiscale(victim: Victim) -> None:
    """Replace the linear before the classifier in place; its two factors train.

    Raises:
        CellError: the model has no such linear.
    """
    spec = victim.spec
    if spec.penultimate is None:
        raise CellError(f"Model {spec.name!r} has no linear before its classifier.", "Measure another defense.")
    original = victim.model.get_submodule(spec.penultimate)
    module = PlainMultiScale(original.requires_grad_(False), spec.scales, spec.scale_factor)
    victim.model.set_submodule(spec.penultimate, module.to(victim.device))
    victim.attached.append(spec.penultimate)


def train_plainly(
    victim: Victim,
    examples: Sequence[Example],
    *,
    seed: int,
    clean: Sequence[Example] = (),
    alignment: AlignmentOptions | None = None,
    tick: Tick | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> int:
    """Train the victim in place and return the steps done; the last weights stay.

    With `alignment` each step's gradient is aligned with that of a batch of the `clean` rows. `after_epoch` gets the
    epoch, from 0. Batches and dropout are functions of `seed`; global random state is given back.

    Raises:
        CellError: no rows, nothing that trains, or options of alignment that are not those of recipe `released`.
    """
    spec, model = victim.spec, victim.model
    parameters = [value for value in model.parameters() if value.requires_grad]
    if not examples or not parameters:
        raise CellError("There is nothing to train on, or nothing that trains.", "Give rows, and unfreeze parameters.")
    rate = spec.learning_rate_pet if victim.attached else spec.learning_rate
    per_epoch = math.ceil(len(examples) / spec.batch_size)
    steps = min(per_epoch * spec.epochs, spec.max_steps or per_epoch * spec.epochs)
    epochs, warmup = math.ceil(steps / per_epoch), round(spec.warmup_epochs * per_epoch)
    fused = victim.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=fused)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, steps, warmup))
    rows = _Rows(victim, examples, derived_seed(seed, "batches"))
    second = _SecondPass(victim, clean, alignment, seed) if alignment is not None else None
    step = 0
    model.train()
    with torch.random.fork_rng(devices=_cuda(victim.device)):
        torch.manual_seed(derived_seed(seed, "dropout"))
        for epoch in range(epochs):
            for inputs, labels in rows.epoch(spec.batch_size):
                if step == steps:
                    break
                _loss(victim, inputs, labels).backward()
                if second is not None:
                    second.align(parameters, epoch, epochs)
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                step += 1
                if tick is not None:
                    tick(step, steps)
            if after_epoch is not None:
                after_epoch(epoch)
                model.train()
    victim.eval()
    return steps


def _factor(step: int, steps: int, warmup: int) -> float:
    return step / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))


def _loss(victim: Victim, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    with victim.autocast():
        logits = victim.model(**inputs).logits
    return nn.functional.cross_entropy(logits.float(), labels)


def _padded(ids: Sequence[Tensor], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Return the texts padded on the right to the longest of them."""
    padded = nn.utils.rnn.pad_sequence(list(ids), batch_first=True, padding_value=pad)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": padded.to(device), "attention_mask": mask.to(device)}


def _cuda(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []


class _Rows:
    """Tokenised rows, drawn in shuffled batches."""

    def __init__(self, victim: Victim, examples: Sequence[Example], seed: int) -> None:
        texts = [text for text, *_ in examples]
        ids = victim.tokenizer(texts, truncation=True, max_length=victim.max_length)["input_ids"]
        self.ids = [torch.tensor(row) for row in ids]
        self.labels = torch.tensor([label for _, label, *_ in examples])
        self.pad, self.device = victim.tokenizer.pad_token_id, victim.device
        self.generator = torch.Generator().manual_seed(seed)

    def epoch(self, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield padded inputs and labels of batches of a new shuffle."""
        for rows in torch.randperm(len(self.ids), generator=self.generator).split(size):
            inputs = _padded([self.ids[row] for row in rows.tolist()], self.pad, self.device)
            yield inputs, self.labels[rows].to(self.device)


class _SecondPass:
    """Gradient alignment as the published code has it: another forward and backward, then tensor by tensor."""

    def __init__(self, victim: Victim, clean: Sequence[Example], options: AlignmentOptions, seed: int) -> None:
        if (options.projection, options.schedule, options.gated) != ("tensor", "epoch", True) or not clean:
            raise CellError(
                "The reference loop aligns as the recipe `released` does, with clean rows.", "Use recipe released."
            )
        self.victim, self.options = victim, options
        self.rows = _Rows(victim, clean, derived_seed(seed, "reference batches"))

    def align(self, parameters: Sequence[nn.Parameter], epoch: int, epochs: int) -> None:
        """Replace the gradients in place."""
        loss = _loss(self.victim, *next(self.rows.epoch(self.victim.spec.batch_size)))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        norms = [float(reference.norm()) for reference in found if reference is not None]
        mu = self._mu(float(loss.detach()), norms, epoch, epochs)
        for parameter, reference in zip(parameters, found, strict=True):
            if parameter.grad is None or reference is None or not reference.any():
                continue
            gradient = parameter.grad
            cosine = (gradient * reference).sum() / reference.norm()
            aligned = (cosine / reference.norm()).abs() * reference
            parameter.grad = (1 - mu) * aligned + mu * gradient

    def _mu(self, loss: float, norms: Sequence[float], epoch: int, epochs: int) -> float:
        """Return the share of the raw gradient (REFERENCE 3.2)."""
        options = self.options
        positive = [norm for norm in norms if norm > 0]
        mean = sum(positive) / len(positive) if positive else 0.0
        if mean > options.min_reference_norm and loss > options.min_reference_loss:
            return 0.0
        if options.mu_max > 0 and epoch >= options.ga_epoch:
            left = epochs - options.ga_epoch
            return options.mu_max * (epoch - options.ga_epoch) / left if left > 0 else 0.0
        return 1.0
