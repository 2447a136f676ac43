"""How many texts a second ONION and a detector get through on this machine."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.core.errors import RequestError
from bench.core.example import Example
from bench.victim.perplexity import LanguageModel

MAX_TOKENS = 96  # of a window of ONION


def onion_speed(texts: Sequence[str], *, device: str = "cpu", threads: int = 1, layers: int = 12) -> dict[str, Any]:
    """Return texts per second of ONION's suspicions under a random language model of GPT-2 small's shape.

    Its weights do not matter to the time. A word counts as one token; GPT-2 makes a little more of it. The thread count
    of this process is set and given back.

    Raises:
        RequestError: no texts.
    """
    judge = _random_gpt2(device, layers)
    words = [text.split() for text in texts]
    row = _timed("onion", len(texts), lambda: judge.suspicions(words, MAX_TOKENS), device, threads)
    return {**row, "words_per_sentence": sum(map(len, words)) / len(words)}


def detector_speed(
    detector: Any, victim: Any, calibration: Sequence[Example], texts: Sequence[str], *, threads: int = 1
) -> dict[str, Any]:
    """Return texts per second of a detector, calibration included, on a victim that this leaves as it was.

    Raises:
        RequestError: no texts.
        CellError: what the detector itself refuses.
    """
    examples = [Example(text, 0) for text in texts]

    def act() -> Any:
        return detector.suspicion(victim, {"dev": list(calibration)}, examples)

    row = _timed(detector.name, len(texts), act, str(victim.device), threads)
    return {**row, "words_per_sentence": sum(len(text.split()) for text in texts) / len(texts)}


def _timed(name: str, count: int, act: Callable[[], Any], device: str, threads: int) -> dict[str, Any]:
    if not count:
        raise RequestError("There are no texts to measure on.", "Give at least one.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        began = time.perf_counter()
        act()
        seconds = time.perf_counter() - began
    finally:
        torch.set_num_threads(before)
    return {
        "name": "ours",
        "defense": name,
        "device": device,
        "threads": threads,
        "sentences": count,
        "seconds": seconds,
        "sentences_per_second": count / seconds,
    }


def _random_gpt2(device: str, layers: int) -> LanguageModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    from bench.victim.loading import quiet

    config = GPT2Config(n_layer=layers)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = GPT2LMHeadModel(config).to(device).eval()

    def encode(lines: list[str]) -> list[list[int]]:
        return [[zlib.crc32(word.encode()) % config.vocab_size for word in line.split()] for line in lines]

    return LanguageModel(model, encode, config.bos_token_id, config.n_positions, model.device, packs=True)
