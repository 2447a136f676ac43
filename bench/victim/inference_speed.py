"""How many texts a second ONION and a detector get through on this machine."""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bench.core.errors import RequestError
from bench.core.example import Example
from bench.victim.perplexity import LanguageModel, judge_of

MAX_TOKENS = 96  # of a window of ONION
PART = 10  # texts that one way reads before the next has its turn: a neighbour's work meets all of them


def onion_speed(texts: Sequence[str], *, device: str = "cpu", threads: int = 1, layers: int = 12) -> dict[str, Any]:
    """Return texts per second of ONION's suspicions under a random language model of GPT-2 small's shape.

    Its weights do not matter to the time. A word counts as one token; GPT-2 makes a little more of it. The thread count
    of this process is set and given back.

    Raises:
        RequestError: no texts.
    """
    _check(texts)
    judge = judge_of(*_random_gpt2(device, layers))
    words = [text.split() for text in texts]
    row = _timed("onion", len(texts), lambda: judge.suspicions(words, MAX_TOKENS), device, threads)
    return {**row, "words_per_sentence": _mean_words(texts)}


def onion_ways(
    texts: Sequence[str], *, device: str = "cpu", threads: int = 1, layers: int = 12
) -> list[dict[str, Any]]:
    """Return a row for each way to the same suspicions, which take turns part by part of the texts.

    `ours`; `in full`: every variant is read from its first token, those of many texts in batches of like lengths;
    `one at a time`: the same for one text after the other, as published. The latter two take the model as transformers
    gives it. `against_one_at_a_time` is how many times as many sentences a second; `apart` the largest difference of
    a suspicion from that of `one at a time`, as a share of the largest suspicion.

    Raises:
        RequestError: no texts.
    """
    _check(texts)
    judge = judge_of(*_random_gpt2(device, layers))
    model, encode, start, limit = _random_gpt2(device, layers)
    plain = LanguageModel(model, encode, start, limit, model.device)
    ways: dict[str, Callable[[list[list[str]]], list[np.ndarray]]] = {
        "ours": lambda part: judge.suspicions(part, MAX_TOKENS),
        "in full": lambda part: plain.suspicions(part, MAX_TOKENS),
        "one at a time": lambda part: [plain.suspicions([words], MAX_TOKENS)[0] for words in part],
    }
    seconds, found = dict.fromkeys(ways, 0.0), {name: [np.zeros(1)] for name in ways}
    for turn, begin in enumerate(range(0, len(texts), PART)):
        part = [text.split() for text in texts[begin : begin + PART]]
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            act = functools.partial(_extend, found[name], ways[name], part)
            seconds[name] += _timed("onion", len(part), act, device, threads)["seconds"]
    reference = np.concatenate(found["one at a time"])
    return [
        {
            **_row("onion", len(texts), seconds[name], device, threads),
            "name": name,
            "words_per_sentence": _mean_words(texts),
            "against_one_at_a_time": seconds["one at a time"] / seconds[name],
            "apart": _apart(np.concatenate(found[name]), reference),
        }
        for name in ways
    ]


def _extend(found: list[np.ndarray], way: Callable[[Any], list[np.ndarray]], part: Any) -> None:
    found += way(part)


def _apart(found: np.ndarray, reference: np.ndarray) -> float:
    finite = np.isfinite(reference)
    most = float(np.abs(reference[finite]).max())
    return float(np.abs(found[finite] - reference[finite]).max()) / most if most else 0.0


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts)


def detector_speed(
    detector: Any, victim: Any, calibration: Sequence[Example], texts: Sequence[str], *, threads: int = 1
) -> dict[str, Any]:
    """Return texts per second of a detector, calibration included, on a victim that this leaves as it was.

    Raises:
        RequestError: no texts.
        CellError: what the detector itself refuses.
    """
    _check(texts)
    examples = [Example(text, 0) for text in texts]

    def act() -> Any:
        return detector.suspicion(victim, {"dev": list(calibration)}, examples)

    row = _timed(detector.name, len(texts), act, str(victim.device), threads)
    return {**row, "words_per_sentence": _mean_words(texts)}


def _check(texts: Sequence[str]) -> None:
    if not texts:
        raise RequestError("There are no texts to measure on.", "Give at least one.")


def _timed(name: str, count: int, act: Callable[[], Any], device: str, threads: int) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        began = time.perf_counter()
        act()
        seconds = time.perf_counter() - began
    finally:
        torch.set_num_threads(before)
    return _row(name, count, seconds, device, threads)


def _row(name: str, count: int, seconds: float, device: str, threads: int) -> dict[str, Any]:
    return {
        "name": "ours",
        "defense": name,
        "device": device,
        "threads": threads,
        "sentences": count,
        "seconds": seconds,
        "sentences_per_second": count / seconds,
    }


def _random_gpt2(device: str, layers: int) -> tuple[Any, Callable[[list[str]], list[list[int]]], int, int]:
    """Return a model, always the same one, how texts become its tokens, its start token and its limit."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from bench.victim.loading import quiet

    config = GPT2Config(n_layer=layers)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = GPT2LMHeadModel(config).to(device).eval()

    def encode(lines: list[str]) -> list[list[int]]:
        return [[zlib.crc32(word.encode()) % config.vocab_size for word in line.split()] for line in lines]

    return model, encode, config.bos_token_id, config.n_positions
