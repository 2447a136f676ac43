"""Language models for the tests of ONION: a table of bigrams, and tiny models with the head of a language model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.victim.perplexity import LanguageModel
from tests.tiny import tiny_model

VOCABULARY = {"<": 0, "a": 1, "b": 2, "x": 3}
# The probability of each word after each word.
BIGRAMS = [[0.1, 0.7, 0.1, 0.1], [0.0, 0.1, 0.8, 0.1], [0.0, 0.8, 0.1, 0.1], [0.0, 1 / 3, 1 / 3, 1 / 3]]


class Bigrams(torch.nn.Module):
    """A language model that looks at one word; it counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.tensor(BIGRAMS).log().clamp_min(-50)
        self.batches = 0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Return the log probabilities as logits."""
        self.batches += 1
        return SimpleNamespace(logits=self.table[input_ids])


def bigrams(start: int | None = None) -> LanguageModel:
    """Return the bigram model over words."""

    def encode(texts: list[str]) -> list[list[int]]:
        return [[VOCABULARY[word] for word in text.split()] for text in texts]

    return LanguageModel(Bigrams(), encode, start, 100, torch.device("cpu"))


def causal(tmp_path_factory: Any, architecture: str) -> Path:
    """Return the folder of a tiny model with the head of a language model."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = Path(tmp_path_factory.getbasetemp()) / "tiny-lm" / architecture
    if not (folder / "config.json").is_file():
        source = tiny_model(tmp_path_factory, architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder
