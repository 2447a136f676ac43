"""How alike two texts are in meaning: the cosine of their embeddings by a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_TOKENS = 256  # that all-MiniLM-L6-v2 was made to read
BATCH = 32


class SentenceEncoder:
    """A bare encoder whose sentence embedding is the mean over its real tokens, scaled to length 1.

    That is how all-MiniLM-L6-v2 was trained to be used. OpenBackdoor embeds by paraphrase-distilroberta-base-v1.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer

        from bench.victim.loading import quiet

        with quiet():
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
        self.model = model.float().to(device).eval()
        self.limit = min(MAX_TOKENS, getattr(model.config, "max_position_embeddings", MAX_TOKENS))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return embeddings of length 1, float32 [texts, width]."""
        import torch

        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found: list[Any] = [None] * len(texts)
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            chosen = [texts[row] for row in rows]
            batch = self.tokenizer(
                chosen, padding=True, truncation=True, max_length=self.limit, return_tensors="pt"
            ).to(self.model.device)
            with torch.inference_mode():
                states = self.model(**batch).last_hidden_state
                real = batch["attention_mask"][..., None].to(states.dtype)
                means = (states * real).sum(1) / real.sum(1).clamp(min=1e-9)
                means = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
            for row, vector in zip(rows, means, strict=True):
                found[row] = vector
        return np.stack(found) if found else np.zeros((0, 0), dtype=np.float32)

    def similarities(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Return the cosine of each pair of texts, in [-1, 1], [pairs]."""
        return (self.embed(first) * self.embed(second)).sum(-1)
