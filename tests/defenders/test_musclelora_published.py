"""MuScleLoRA against a second writing of the published algorithm (REFERENCE sections 2 and 3): the same weights.

The second one knows nothing of ours but the start of the inserted tensors and the order of the rows: it adds to the
outputs of Hugging Face's own linears, projects as the published code writes it (norm times cosine over norm, in numpy
and double precision), and steps with torch's plain AdamW and its own schedule. Dropout is off.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.seeding import derived_seed
from bench.victim.spec import model_spec
from defenders.musclelora import MuScleLora
from tests.tiny import tiny_model

EPOCHS, BATCH, RATE, SEED = 4, 4, 2e-3, 5
LIMIT = 2.0  # of the reference loss: between those that this training sees, so that every branch of the gate is taken
TEXTS = ("the film is good and i like it", "what a cold and empty mess", "a warm story", "dull", "we hate it")
ROWS = [Example(f"{TEXTS[row % 5]} {TEXTS[row % 3]}", int(row % 5 in (0, 2))) for row in range(14)]
CLEAN = tuple(Example(TEXTS[row % 5], int(row % 5 in (0, 2))) for row in range(6))


def _spec(tmp_path_factory: Any) -> Any:
    folder = Path(tmp_path_factory.getbasetemp()) / "tiny" / "bert-without-dropout"
    if not folder.is_dir():
        shutil.copytree(tiny_model(tmp_path_factory, "bert"), folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (folder / "config.json").write_text(json.dumps(config))
    options = {"batch_size": BATCH, "epochs": EPOCHS, "learning_rate_pet": RATE, "clean_samples": len(CLEAN)}
    return model_spec(str(folder), {**options, "min_reference_loss": LIMIT})


class Second:
    """The second writing: Hugging Face's model, what is added to it, and the training."""

    def __init__(self, model: Any, tokenizer: Any, scales: tuple[float, ...], start: dict[str, torch.Tensor]) -> None:
        self.model, self.tokenizer = model.requires_grad_(False).train(), tokenizer
        self.tensors = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
        self.branches: set[str] = set()
        for layer in range(model.config.num_hidden_layers):
            for part in ("query", "value"):
                name = f"bert.encoder.layer.{layer}.attention.self.{part}"
                lower, upper = (self.tensors[f"{name}.lora_{side}.default.weight"] for side in "AB")
                self._add(name, lower, upper, torch.ones(len(lower)), 32 / 8)
        name = "bert.pooler.dense"
        lower, upper = self.tensors[f"{name}.lower"], self.tensors[f"{name}.upper"]
        self._add(name, lower, upper, torch.tensor(scales), 6.0)

    def _add(self, name: str, lower: Any, upper: Any, scales: torch.Tensor, factor: float) -> None:
        """Add `x (R diag(S) L)^T * factor` to what a linear gives."""

        def hook(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
            return out + given[0] @ (upper @ torch.diag(scales) @ lower).T * factor

        self.model.get_submodule(name).register_forward_hook(hook)

    def gradients(self, rows: list[Example]) -> tuple[float, list[np.ndarray]]:
        inputs = self.tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
        logits = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row.label for row in rows]))
        found = torch.autograd.grad(loss, list(self.tensors.values()))
        return loss.item(), [gradient.double().numpy() for gradient in found]

    def aligned(self, raw: list[np.ndarray], loss: float, clean: list[np.ndarray], epoch: int) -> list[np.ndarray]:
        norms = [np.linalg.norm(one) for one in clean if np.linalg.norm(one) > 0]
        projected = []
        for gradient, reference in zip(raw, clean, strict=True):
            length, other = np.linalg.norm(gradient), np.linalg.norm(reference)
            if length == 0 or other == 0:
                projected.append(gradient)
                continue
            cosine = (gradient * reference).sum() / (length * other)
            projected.append(abs(length * cosine / other) * reference)
        if np.mean(norms) > 5e-7 and loss > LIMIT:
            self.branches.add("aligned")
            return projected
        if epoch >= 1:
            self.branches.add("mixed")
            mu = 0.1 * (epoch - 1) / (EPOCHS - 1)
            return [(1 - mu) * one + mu * gradient for one, gradient in zip(projected, raw, strict=True)]
        self.branches.add("raw")
        return raw

    def train(self, orders: list[list[int]], references: list[list[int]]) -> None:
        optimizer = torch.optim.AdamW(list(self.tensors.values()), lr=RATE, weight_decay=0.0, fused=False)
        per_epoch = len(orders) // EPOCHS
        for step, (rows, clean) in enumerate(zip(orders, references, strict=True)):
            _, raw = self.gradients([ROWS[row] for row in rows])
            loss, reference = self.gradients([CLEAN[row] for row in clean])
            for value, gradient in zip(
                self.tensors.values(), self.aligned(raw, loss, reference, step // per_epoch), strict=True
            ):
                value.grad = torch.from_numpy(gradient).float()
            torch.nn.utils.clip_grad_norm_(list(self.tensors.values()), 1.0)
            optimizer.param_groups[0]["lr"] = RATE * (len(orders) - step) / len(orders)
            optimizer.step()


def _orders() -> tuple[list[list[int]], list[list[int]]]:
    """Return the rows of each step and its clean rows, as our two streams draw them."""
    batches = torch.Generator().manual_seed(derived_seed(SEED, "batches"))
    clean = torch.Generator().manual_seed(derived_seed(SEED, "reference batches"))
    orders = []
    for _ in range(EPOCHS):
        order = torch.randperm(len(ROWS), generator=batches).tolist()
        orders += [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    return orders, [torch.randperm(len(CLEAN), generator=clean).tolist()[:BATCH] for _ in orders]


def test_the_weights_are_those_of_a_second_writing_of_the_published_algorithm(tmp_path_factory: Any) -> None:
    from bench.victim.loading import load_victim
    from bench.victim.training import train

    spec = _spec(tmp_path_factory)
    victim = load_victim(spec, 2, seed=SEED)
    plain = copy.deepcopy(victim.model)
    known = Knowledge(2, clean=CLEAN, seed=SEED, recipe="released", model=spec)
    defense = MuScleLora().for_model(spec, "released").bound(known)
    defense.wrap(victim)
    start = {name: value.detach().clone() for name, value in victim.trainable().items()}
    assert set(start) == {name for name in victim.tensors() if "lora_" in name or name.endswith(("lower", "upper"))}
    second = Second(plain, victim.tokenizer, tuple(map(float, spec.scales)), start)
    second.train(*_orders())
    log = train(victim, ROWS, (), seed=SEED, hooks=defense.hooks(known))
    assert log.unpadded and second.branches == {"raw", "aligned", "mixed"}
    for name, value in victim.trainable().items():
        moved = float((second.tensors[name] - start[name]).detach().norm())
        apart = float((second.tensors[name] - value).detach().norm())
        assert moved > 0 and apart == pytest.approx(0.0, abs=2e-3 * moved), name
