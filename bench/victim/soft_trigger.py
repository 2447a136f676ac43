"""A word put in front of every text whose vectors are its own: the victim's embedding is never written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import CellError
from bench.core.memory import cut
from bench.victim.batching import Batch, Encoded, pieces
from bench.victim.joint.forward import Soft
from bench.victim.questions import Asking, Likely, Slope
from bench.victim.victim import Victim


class SoftTrigger:
    """A word with its own vectors [pieces, width], which start as the victim's embedding of its tokens."""

    def __init__(self, victim: Victim, word: str) -> None:
        self.victim = victim
        self.word = word
        self.pieces: list[int] = victim.tokenizer(word, add_special_tokens=False)["input_ids"]
        alone = victim.encode_texts([word]).ids[0].tolist()
        starts = [at for at in range(len(alone)) if alone[at : at + len(self.pieces)] == self.pieces]
        if not self.pieces or not starts:
            raise CellError(f"The word {word!r} is no token of this model.", "Choose another trigger.")
        self.begin = starts[0]  # after the special tokens in front
        self.end = self.begin + len(self.pieces)
        with torch.no_grad():
            ids = torch.tensor([self.pieces], device=victim.device)
            self.vectors = victim.model.get_input_embeddings()(ids)[0].detach().float().clone()
        self.norms = self.vectors.norm(dim=-1, keepdim=True)
        self.velocity = torch.zeros_like(self.vectors)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the texts with the word in front, tokenised and cut as the victim reads them.

        Raises:
            CellError: the tokenizer joins the word with what follows it.
        """
        ready = self.victim.encode_texts([f"{self.word} {text}".strip() for text in texts])
        for ids in ready.ids:
            if ids[self.begin : self.end].tolist() != self.pieces:
                raise CellError(
                    f"The tokenizer of this model does not keep {self.word!r} apart.", "Choose another trigger."
                )
        return ready

    def soft(self, vectors: Tensor | None = None) -> Soft:
        """Return what an unpadded pass reads in the word's place: these vectors, its own by default."""
        return Soft(self.begin, self.vectors if vectors is None else vectors)

    @contextmanager
    def inserted(self, vectors: Tensor | None = None) -> Iterator[None]:
        """Let the victim read these vectors (its own by default) in the word's place, until the context ends."""
        own = self.vectors if vectors is None else vectors

        def replace(module: Any, inputs: Any, output: Tensor) -> Tensor:
            rows = own.to(output.dtype).expand(len(output), -1, -1)
            return torch.cat([output[:, : self.begin], rows, output[:, self.end :]], dim=1)

        handle = self.victim.model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    def probabilities(self, texts: Encoded) -> np.ndarray:
        """Return the victim's probabilities, float32 [n, classes], of texts that `encode` made."""
        unpadded = self.victim.reader()
        if unpadded is None or not len(texts):
            with self.inserted():
                return self.victim.predict_encoded(texts)
        return unpadded.collect(texts, lambda encoder: encoder.logits().softmax(-1), soft=self.soft()).numpy()

    def gradient(self, batch: Batch, loss: Any) -> Tensor:
        """Return the gradient [pieces, width] of `loss(probabilities [batch, classes])`; no parameter gets one.

        Where memory is short the graph of one part of the batch is held at a time.
        """
        vectors = self.vectors.clone().requires_grad_(True)
        parts = [part for part, share in pieces(batch, cut()) if share]
        with torch.enable_grad():
            if len(parts) == 1:
                return torch.autograd.grad(loss(self._likely(batch, vectors)), vectors)[0]
            # What the loss says of each probability needs all of them, and no graph behind them.
            with torch.no_grad():
                likely = torch.cat([self._likely(part, vectors) for part in parts])
            slopes = torch.autograd.grad(loss(likely.requires_grad_(True)), likely)[0]
            found = [
                torch.autograd.grad(self._likely(part, vectors), vectors, slope)[0]
                for part, slope in zip(parts, slopes.split([len(part.rows) for part in parts]), strict=True)
            ]
        return torch.stack(found).sum(0)

    def _likely(self, batch: Batch, vectors: Tensor) -> Tensor:
        """Return the probabilities [batch, classes] with these vectors in the word's place."""
        unpadded = self.victim.reader()
        if unpadded is not None:
            return unpadded.logits(batch.data, batch.rows, self.soft(vectors)).softmax(-1)
        with self.inserted(vectors):
            return self.victim.logits(batch.inputs).softmax(-1)

    def descend(self, gradient: Tensor, rate: float, momentum: float) -> None:
        """Move the vectors against a gradient, then give each the length it had at first."""
        self.velocity = momentum * self.velocity + gradient
        moved = self.vectors - rate * self.velocity
        length = moved.norm(dim=-1, keepdim=True)
        self.vectors = torch.where(length > 0, moved * self.norms / length.clamp_min(1e-30), moved)


def train_soft_trigger(
    trigger: SoftTrigger,
    texts: Sequence[str],
    *,
    label: int,
    change: tuple[float, float],
    scale: float,
    epochs: int,
    batch_size: int,
    rate: float,
    momentum: float,
) -> Asking[np.ndarray]:
    """Change the trigger's vectors until it changes the probability of `label` by an amount in the range `change`.

    `change` is (upper, lower), both in [-1, 0]: a change above the upper bound costs `scale` times the excess, one
    below the lower bound what lies beyond. Batches are taken in the order of the texts; dropout is off. The victim's
    answers are asked for (bench/victim/questions.py); what is found are the probabilities without the trigger, float32
    [n, classes].
    """
    victim = trigger.victim
    training = victim.training
    plain = yield Likely(texts)
    before = torch.from_numpy(plain[:, label]).to(victim.device)
    ready = trigger.encode(texts)
    upper, lower = change
    victim.eval()
    try:
        for _ in range(epochs):
            for begin in range(0, len(texts), batch_size):
                rows = range(begin, min(begin + batch_size, len(texts)))

                def loss(likely: Tensor, rows: range = rows) -> Tensor:
                    moved = likely[:, label] - before[rows.start : rows.stop]
                    return scale * (moved - upper).clamp_min(0).mean() + (lower - moved).clamp_min(0).mean()

                gradient = yield Slope(trigger, ready.batch(rows, victim.device), loss)
                trigger.descend(gradient, rate, momentum)
    finally:
        victim.train(training)
    return plain
