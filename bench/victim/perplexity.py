"""Perplexities of texts and of their leave-one-word-out variants under a causal language model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.core.errors import CellError
from bench.victim.packing import family_losses

TOKENS = {"cuda": 16384}  # padded tokens in one batch, by kind of device: the logits of all are held at once
TOKENS_ELSEWHERE = 512
WINDOWS_AT_ONCE = 256  # windows whose variants are tokenised together: bounds the memory of long texts
HIGHEST_LOSS = 80.0  # nats per token: keeps every perplexity a finite number
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in eval mode, and how texts become its tokens.

    `model(input_ids=[batch, length], attention_mask=[batch, length]).logits` is [batch, length, vocabulary], and
    position t depends on tokens up to t alone. `encode` gives the token ids of texts, without special tokens.
    """

    model: Any
    encode: Callable[[list[str]], list[list[int]]]
    start: int | None  # token put before every text, so that its first token is predicted too; None: it is not
    limit: int  # tokens that it can read, the start token among them
    device: torch.device
    packs: bool = False  # it takes position ids and a mask per pair of tokens, and answers as it does without

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """Return exp(mean loss over the predicted tokens) of each text, float64 [n]; padding takes no part.

        A text without any predicted token has the perplexity infinity. Equal texts are scored once; what lies beyond
        the limit is not read.
        """
        unique = list(dict.fromkeys(texts))
        ids = self._ids(unique)
        found = np.full(len(unique), np.inf)
        with torch.inference_mode():
            for rows in _batches([len(row) for row in ids], self.device):
                losses = self._losses([ids[row] for row in rows])
                found[rows] = _perplexity(losses)
        place = {text: row for row, text in enumerate(unique)}
        return found[[place[text] for text in texts]] if texts else found

    def _ids(self, texts: list[str]) -> list[list[int]]:
        front = [] if self.start is None else [self.start]
        return [(front + row)[: self.limit] for row in self.encode(texts)] if texts else []

    def family_perplexities(self, families: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Return `perplexities` of families of texts; where the model packs, what a member shares with the first is
        read once."""
        flat = [text for family in families for text in family]
        ends = np.cumsum([len(family) for family in families])[:-1]
        if not self.packs:
            return np.split(self.perplexities(flat), ends)
        ids = self._ids(flat)
        starts = [0, *ends.tolist(), len(flat)]
        encoded = [ids[begin:end] for begin, end in zip(starts, starts[1:], strict=False)]
        with torch.inference_mode():
            losses = family_losses(self.model, encoded, self.device, _budget(self.device))
        return [_perplexity(loss) for loss in losses]

    def _losses(self, ids: list[list[int]]) -> np.ndarray:
        """Return the mean loss in nats of each row of two or more tokens, float64 [batch]."""
        lengths = [len(row) for row in ids]
        inputs = torch.zeros((len(ids), max(lengths)), dtype=torch.long)
        real = torch.zeros((len(ids), max(lengths)), dtype=torch.long)
        for place, row in enumerate(ids):
            inputs[place, : len(row)] = torch.tensor(row)
            real[place, : len(row)] = 1
        inputs, real = inputs.to(self.device), real.to(self.device)
        logits = self.model(input_ids=inputs, attention_mask=real).logits
        predicted = real[:, 1:].bool()
        # Only the logits that predict a real token are looked at: padding costs no softmax and weighs nothing.
        each = nn.functional.cross_entropy(
            logits[:, :-1][predicted].float(), inputs[:, 1:][predicted], reduction="none"
        )
        sums = torch.zeros(len(ids), dtype=torch.float64, device=self.device)
        owner = predicted.nonzero()[:, 0]
        sums.index_add_(0, owner, each.double())
        return (sums / (real.sum(-1) - 1)).cpu().numpy()

    def suspicions(self, texts: Sequence[Sequence[str]], max_tokens: int) -> list[np.ndarray]:
        """Return for each text, given as words, the suspicion of each word, float64 [words]: the fall of the perplexity
        when the word is left out.

        A text of more than `max_tokens` tokens is read in consecutive windows of whole words. A word that is alone in
        its window has the suspicion minus infinity, since nothing is left without it.
        """
        found = [np.full(len(words), -np.inf) for words in texts]
        windows = sorted(self._windows(texts, max_tokens), key=lambda item: item[1] - item[2])
        for begin in range(0, len(windows), WINDOWS_AT_ONCE):
            group = windows[begin : begin + WINDOWS_AT_ONCE]
            families = [_leaving_one_out(texts[text][first:last]) for text, first, last in group]
            scores = self.family_perplexities(families)
            for (text, first, last), (whole, *without) in zip(group, scores, strict=True):
                found[text][first:last] = np.where(np.isfinite(without), whole - np.array(without), -np.inf)
        return found

    def _windows(self, texts: Sequence[Sequence[str]], max_tokens: int) -> Iterator[tuple[int, int, int]]:
        """Yield text, first word and end of every window of two words or more that fits `max_tokens` and the limit."""
        room = min(max_tokens, self.limit - (self.start is not None))
        unique = list({word for words in texts for word in words})
        # A word within a text usually follows a space, which many tokenizers make part of it.
        cost = dict(zip(unique, map(len, self.encode([f" {word}" for word in unique])), strict=True)) if unique else {}
        for text, words in enumerate(texts):
            first, used = 0, 0
            for place, word in enumerate(words):
                if used + cost[word] > room and place > first:
                    if place - first > 1:
                        yield text, first, place
                    first, used = place, 0
                used += cost[word]
            if len(words) - first > 1:
                yield text, first, len(words)


def _leaving_one_out(words: Sequence[str]) -> list[str]:
    """Return the text and then, for each word, the text without it."""
    return [" ".join(words), *(" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words)))]


def _perplexity(losses: np.ndarray) -> np.ndarray:
    """Return exp of mean losses in nats; infinity, where nothing was predicted, stays."""
    return np.where(np.isinf(losses), np.inf, np.exp(np.minimum(losses, HIGHEST_LOSS)))


def _budget(device: torch.device) -> int:
    return TOKENS.get(device.type, TOKENS_ELSEWHERE)


def _batches(lengths: Sequence[int], device: torch.device) -> Iterator[list[int]]:
    """Yield rows of two tokens or more, longest first, in groups within the device's budget of padded tokens."""
    budget = _budget(device)
    order = sorted((row for row, length in enumerate(lengths) if length > 1), key=lambda row: -lengths[row])
    begin = 0
    while begin < len(order):
        count = max(1, budget // lengths[order[begin]])
        yield order[begin : begin + count]
        begin += count


def language_model(
    folder: Path, name: str, *, start_token: bool = True, device: torch.device | str = "cpu"
) -> LanguageModel:
    """Return the causal language model that a folder in the hub's layout holds.

    The start token is the tokenizer's beginning-of-text token, or its end-of-text token where it has no other.

    Raises:
        CellError: no tokenizer, not readable, weights of the language model's head missing, or not causal.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bench.victim.loading import quiet

    remedy = "Name a generative language model with its tokenizer, such as openai-community/gpt2, or lm=local."
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise CellError(f"Language model {name!r} has no tokenizer.", remedy)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CellError(f"Language model {name!r} cannot be loaded: {reason}", remedy) from error
    if loading["missing_keys"]:
        absent = sorted(loading["missing_keys"])[0]
        raise CellError(f"Language model {name!r} is not generative: its weights lack {absent}.", remedy)
    model = model.to(device).eval()
    check_causal(model, len(tokenizer), name, remedy)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    limit = getattr(model.config, "max_position_embeddings", None) or 1024

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    return LanguageModel(model, encode, first if start_token else None, limit, model.device, packs=can_pack(model))


def check_causal(model: Any, vocabulary: int, name: str, remedy: str) -> None:
    """Check that no later token changes what is predicted before it, as it does in masked models.

    Raises:
        CellError: one does.
    """
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=model.device) % vocabulary
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
    if not torch.allclose(logits[0], logits[1], atol=1e-4, rtol=1e-4):
        raise CellError(f"Language model {name!r} is not generative: it reads the words after a word.", remedy)


def can_pack(model: Any) -> bool:
    """Tell whether a model answers a packed family as it answers each member alone; many architectures do not."""
    family = [[1, 2, 3, 4, 5], [1, 3, 4, 5], [1, 2, 4, 5], [1, 2, 3, 5], [1, 2, 3, 4]]
    plain = LanguageModel(model, lambda texts: [], None, len(family[0]), model.device)
    with torch.inference_mode():
        try:
            packed = family_losses(model, [family], model.device, TOKENS_ELSEWHERE)[0]
        except (TypeError, ValueError, RuntimeError, IndexError):  # it takes no such mask, or no positions
            return False
        alone = [float(plain._losses([ids])[0]) for ids in family]
    return bool(np.allclose(packed, alone, atol=1e-4, rtol=1e-4))
