"""Hugging Face's `Trainer` with nothing around it: no evaluation, no saving, no logging, no reports."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from bench.core.example import Example
from bench.core.seeding import derived_seed
from bench.victim.loading import quiet
from bench.victim.reference import Tick
from bench.victim.victim import Victim


def train_by_trainer(victim: Victim, examples: Sequence[Example], *, seed: int, tick: Tick) -> int:
    """Train the victim's model for one epoch by the `Trainer` on the reference loop's batches; return the steps.

    It can do what needs no second pass: the whole model, or LoRA that is already inserted. Changes global random state.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = _trainer(victim, _ordered(victim, examples, seed), folder, seed)
        done = itertools.count(1)
        total = math.ceil(len(examples) / victim.spec.batch_size)
        trainer.create_optimizer().register_step_post_hook(lambda *_: tick(next(done), total))
        trainer.train()
        steps = int(trainer.state.global_step)
    victim.eval()
    return steps


def _ordered(victim: Victim, examples: Sequence[Example], seed: int) -> list[dict[str, Any]]:
    """Return the rows tokenised, in the order in which the reference loop draws them."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "batches"))
    order = torch.randperm(len(examples), generator=generator).tolist()
    drawn = [examples[row] for row in order]
    ids = victim.tokenizer([text for text, *_ in drawn], truncation=True, max_length=victim.max_length)["input_ids"]
    return [{"input_ids": row, "label": example.label} for row, example in zip(ids, drawn, strict=True)]


def _trainer(victim: Victim, rows: list[dict[str, Any]], folder: str, seed: int) -> Any:
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    spec = victim.spec
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=spec.batch_size,
        learning_rate=spec.learning_rate_pet if victim.attached else spec.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=victim.precision == "bf16",
        use_cpu=victim.device.type == "cpu",
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=victim.device.type != "cpu",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one GPU, even where there are more
    collate = DataCollatorWithPadding(victim.tokenizer)
    trainer = InOrder(model=victim.model, args=arguments, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    return trainer
