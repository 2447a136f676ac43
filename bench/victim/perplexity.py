"""Perplexities of texts and of their leave-one-word-out variants under a causal language model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.core.errors import CellError
from bench.core.memory import is_out_of_memory, part_size
from bench.victim.packing import family_losses, sheet_size
from bench.victim.reading import fuse_activations, has_plain_head, losses_at

TOKENS = {"cuda": 16384}  # padded tokens in one batch, by kind of device
TOKENS_ELSEWHERE = 512
LONGEST_PACKED = 128  # tokens of a text that is packed: up to here `can_pack` has seen that a model does not mind
WINDOWS_AT_ONCE = 256  # windows whose variants are tokenised together: bounds the memory of long texts
HIGHEST_LOSS = 80.0  # nats per token: keeps every perplexity a finite number


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
    by_blocks: bool = False  # its head is one linear map, so that no more of the logits than is looked at need be held

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """Return exp(mean loss over the predicted tokens) of each text, float64 [n]; padding takes no part.

        A text without any predicted token has the perplexity infinity. Equal texts are scored once; what lies beyond
        the limit is not read.
        """
        unique = list(dict.fromkeys(texts))
        found = _perplexity(self._losses(self._ids(unique)))
        place = {text: row for row, text in enumerate(unique)}
        return found[[place[text] for text in texts]] if texts else found

    def _ids(self, texts: list[str]) -> list[list[int]]:
        front = [] if self.start is None else [self.start]
        return [(front + row)[: self.limit] for row in self.encode(texts)] if texts else []

    def family_perplexities(self, families: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Return `perplexities` of families of texts; where the model packs, what a member shares with the first is
        read once, unless a member has more than LONGEST_PACKED tokens."""
        ids = iter(self._ids([text for family in families for text in family]))
        encoded = [[next(ids) for _ in family] for family in families]
        packed = [self.packs and max(map(len, rows), default=0) <= LONGEST_PACKED for rows in encoded]
        found: list[np.ndarray] = [np.zeros(0)] * len(encoded)
        together = [row for row, taken in enumerate(packed) if taken]
        with torch.inference_mode():
            losses = family_losses(
                self.model,
                [encoded[row] for row in together],
                self.device,
                _budget(self.device),
                by_blocks=self.by_blocks,
            )
        for row, loss in zip(together, losses, strict=True):
            found[row] = loss
        alone = [row for row, taken in enumerate(packed) if not taken]
        rest = iter(self._losses([ids for row in alone for ids in encoded[row]]))
        for row in alone:
            found[row] = np.array([next(rest) for _ in encoded[row]])
        return [_perplexity(loss) for loss in found]

    def _losses(self, ids: Sequence[list[int]]) -> np.ndarray:
        """Return the mean loss in nats of each row, float64 [n]; infinity for one of fewer than two tokens."""
        found = np.full(len(ids), np.inf)
        with torch.inference_mode():
            for rows in _batches([len(row) for row in ids], self.device):
                found[rows] = self._batch_losses([ids[row] for row in rows])
        return found

    def _batch_losses(self, ids: list[list[int]]) -> np.ndarray:
        """Return the mean loss in nats of each row of two or more tokens, float64 [batch]."""
        longest = max(map(len, ids))
        inputs = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=self.device)
        lengths = torch.tensor([len(row) for row in ids], device=self.device)
        real = torch.arange(longest, device=self.device) < lengths[:, None]
        # Only places that predict a real token are looked at: padding costs no softmax and weighs nothing.
        row, column = real[:, 1:].nonzero(as_tuple=True)
        asked = {"input_ids": inputs, "attention_mask": real.long()}
        targets = inputs[row, column + 1]
        each = losses_at(self.model, asked, row * longest + column, targets, by_blocks=self.by_blocks)
        sums = torch.zeros(len(ids), dtype=torch.float64, device=self.device).index_add_(0, row, each)
        return (sums / (lengths - 1)).cpu().numpy()

    def suspicions(self, texts: Sequence[Sequence[str]], max_tokens: int) -> list[np.ndarray]:
        """Return for each text, given as words, the suspicion of each word, float64 [words]: the fall of the perplexity
        when the word is left out.

        A text of more than `max_tokens` tokens is read in consecutive windows of whole words. A word that is alone in
        its window has the suspicion minus infinity, since nothing is left without it.
        """
        found = [np.full(len(words), -np.inf) for words in texts]
        places: dict[tuple[str, ...], list[tuple[int, int]]] = {}  # equal windows are read once
        for text, first, last in self._windows(texts, max_tokens):
            places.setdefault(tuple(texts[text][first:last]), []).append((text, first))
        windows = sorted(places, key=lambda words: -len(words))
        for begin in range(0, len(windows), WINDOWS_AT_ONCE):
            group = windows[begin : begin + WINDOWS_AT_ONCE]
            scores = self.family_perplexities([_leaving_one_out(words) for words in group])
            for words, (whole, *without) in zip(group, scores, strict=True):
                falls = np.where(np.isfinite(without), whole - np.array(without), -np.inf)
                for text, first in places[words]:
                    found[text][first : first + len(words)] = falls
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
    return part_size(TOKENS.get(device.type, TOKENS_ELSEWHERE))


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
    from transformers import AutoModelForCausalLM

    from bench.victim.loading import quiet
    from bench.victim.tokenizer_files import read_tokenizer

    remedy = "Name a generative language model with its tokenizer, such as openai-community/gpt2, or lm=local."
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            tokenizer = read_tokenizer(folder, f"Language model {name!r}", remedy)
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

    return judge_of(model, encode, first if start_token else None, limit)


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


def judge_of(
    model: Any, encode: Callable[[list[str]], list[list[int]]], start: int | None, limit: int
) -> LanguageModel:
    """Return a model in eval mode as a judge of texts that reads as fast as what it can take allows.

    Changes the model: `fuse_activations`.
    """
    fuse_activations(model)
    by_blocks = has_plain_head(model)
    packs = can_pack(model, by_blocks=by_blocks, limit=limit)
    return LanguageModel(model, encode, start, limit, model.device, packs=packs, by_blocks=by_blocks)


def can_pack(model: Any, *, by_blocks: bool, limit: int) -> bool:
    """Tell whether a model answers a packed family as it answers each member alone; many architectures do not.

    Asked with a text of LONGEST_PACKED tokens (or `limit`) on a full sheet: a sliding window that is shorter shows.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    text = [(37 * place + place // 7) % vocabulary for place in range(min(LONGEST_PACKED, limit))]
    left_out = range(1, min(len(text), 2 + sheet_size(text) // len(text)))  # one more than a sheet takes
    family = [text, *(text[:place] + text[place + 1 :] for place in left_out)]
    plain = LanguageModel(model, lambda texts: [], None, limit, model.device)
    with torch.inference_mode():
        try:
            packed = family_losses(model, [family], model.device, TOKENS_ELSEWHERE, by_blocks=by_blocks)[0]
        except (TypeError, ValueError, RuntimeError, IndexError) as error:  # it takes no such mask, or no positions
            if is_out_of_memory(error):
                raise
            return False
    return bool(np.allclose(packed, plain._losses(family), atol=1e-4, rtol=1e-4))
