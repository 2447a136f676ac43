"""A small causal language model trained on the spot on the texts it is given: for machines without the hub."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from bench.core.errors import CellError
from bench.core.memory import part_size
from bench.core.seeding import derived_seed
from bench.victim.perplexity import LanguageModel, judge_of
from bench.victim.progress import seeded

SPECIAL = ("<|start|>", "<|padding|>", "<|unknown|>")
START, PADDING = 0, 1  # ids of the first two
VOCABULARY = 20000  # words at most, the most frequent ones
WIDTH, LAYERS, HEADS, POSITIONS = 64, 2, 2, 128
STEPS, BATCH, RATE = 300, 16, 3e-3  # steps at most
HELD_OUT = 0.1  # of the texts: the weights kept are those that predict these best
LOOK_EVERY, PATIENCE = 20, 3  # steps between looks at them, and looks without a better one after which it stops
BETTER = 0.995  # of the best loss so far: what a look must fall below to be better


def local_language_model(
    texts: Sequence[str], *, seed: int, start_token: bool = True, device: torch.device | str = "cpu"
) -> LanguageModel:
    """Return a GPT-2 of 2 layers, 64 wide, over whole words in lower case, both learnt from `texts` alone.

    A word that it never saw is one unknown token, which no training text holds, so that it is unlikely everywhere. On
    few texts that tells a rare word from the others far better than pieces of words do, but clean words are new too.

    A function of the texts, their order and `seed`: it trains on the CPU and moves to `device` afterwards, and global
    random state is given back. A tenth of the texts stops the training; a text is cut at 127 tokens.

    Raises:
        CellError: fewer than 2 of the texts have a word.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    from bench.victim.loading import quiet

    tokenizer = _tokenizer(texts)
    ids = [[START, *row.ids][:POSITIONS] for row in tokenizer.encode_batch(list(texts))]
    ids = [row for row in ids if len(row) > 1]
    if len(ids) < 2:
        raise CellError(
            f"A language model is to be learnt from {len(ids)} texts with a word, and one of two or more stops it.",
            "Give more texts.",
        )
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=POSITIONS,
        bos_token_id=START,
        eos_token_id=START,
        pad_token_id=PADDING,
    )
    with quiet(), seeded(derived_seed(seed, "local language model"), torch.device("cpu")):
        model = GPT2LMHeadModel(config)
        _train(model, ids, torch.Generator().manual_seed(derived_seed(seed, "local language model's batches")))
    model = model.to(device).eval()

    def encode(lines: list[str]) -> list[list[int]]:
        return [row.ids for row in tokenizer.encode_batch(lines)]

    return judge_of(model, encode, START if start_token else None, POSITIONS)


def _tokenizer(texts: Sequence[str]) -> Any:
    """Return a tokenizer of whole words in lower case that knows the words of the texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL[2]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(list(texts), trainer)
    return tokenizer


def _train(model: nn.Module, ids: Sequence[list[int]], generator: torch.Generator) -> None:
    """Train in place by AdamW, the rate falling linearly to 0, and put back the weights of the best look."""
    order = torch.randperm(len(ids), generator=generator).tolist()
    held_out = [ids[row] for row in order[: math.ceil(HELD_OUT * len(order))]]
    learnt = [ids[row] for row in order[len(held_out) :]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    best, best_at, kept = math.inf, 0, dict(model.state_dict())
    for step, rows in zip(range(1, STEPS + 1), _endless(len(learnt), generator), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - (step - 1) / STEPS)
        model.train()
        for part, share in _parts([learnt[row] for row in rows]):
            (_loss(model, part) * share).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % LOOK_EVERY == 0:
            model.eval()
            with torch.no_grad():
                loss = float(sum(_loss(model, part) * share for part, share in _parts(held_out)))
            if loss < BETTER * best:
                best, best_at = loss, step
                kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
            elif step - best_at >= PATIENCE * LOOK_EVERY:
                break
    model.load_state_dict(kept)


def _endless(count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield groups of rows, one shuffle of all of them after the other, without end."""
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        for begin in range(0, count, BATCH):
            yield order[begin : begin + BATCH]


def _parts(ids: Sequence[list[int]]) -> list[tuple[Sequence[list[int]], float]]:
    """Return a batch in parts, one while memory suffices, each with its share of the tokens that are predicted."""
    size = part_size(len(ids))
    parts = [ids[first : first + size] for first in range(0, len(ids), size)]
    counts = [sum(len(row) - 1 for row in part) for part in parts]
    return [(part, count / sum(counts)) for part, count in zip(parts, counts, strict=True)]


def _loss(model: nn.Module, ids: Sequence[list[int]]) -> torch.Tensor:
    """Return the mean loss in nats over the real tokens of a batch."""
    longest = max(map(len, ids))
    inputs = torch.tensor([[*row, *[PADDING] * (longest - len(row))] for row in ids])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    logits = model(input_ids=inputs, attention_mask=real).logits[:, :-1]
    wanted = real[:, 1:].bool()
    return nn.functional.cross_entropy(logits[wanted], inputs[:, 1:][wanted])
