"""Paraphrasing by a generative model: batched, and each text's paraphrase a function of that text alone.

Two families of prompts. `strap`: the GPT-2 inverse paraphrasers of Krishna et al. 2020 (EMNLP, arXiv 2010.05700), by
which StyleBkd (Qi et al. 2021, EMNLP, arXiv 2110.07139) writes its poison. `instruct`: any causal or
sequence-to-sequence model that follows an instruction; an approximation of either attack, not its published trigger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from bench.core.errors import CellError, RequestError
from bench.core.options import Count, Fraction, Index, Options, Positive, Text
from bench.core.seeding import python_rng
from bench.victim.nucleus import Nucleus

SOURCE_TOKENS = 50  # that a STRAP model reads and writes: its training cut both at 50
# The published code decodes with the clean-up of older transformers: no space before these.
BEFORE_MARK = re.compile(r" ([.?!,]|n't\b|'(?:m|s|ve|re)\b)")
REMEDY = "Name a generative language model with --model, or another --method."


class Said(NamedTuple):
    """The paraphrase of one sentence, or None and the reason."""

    text: str | None
    reason: str = ""


@dataclass(frozen=True)
class ParaphraserSpec(Options):
    """How sentences are paraphrased; every field, with the digest of the weights, is part of a bank's identity.

    Raises:
        RequestError: a value out of range, or an instruction without the place of the text.
    """

    method: Literal["strap", "instruct"]
    model: Text  # a local folder or a hub id
    revision: str = ""  # commit of a hub id, or digest of a local folder's files
    instruction: str = ""  # of `instruct`; {text} stands for the sentence
    top_p: Fraction = 0.6  # share of the probability that the nucleus holds; 0: the likeliest token always
    temperature: Positive = 1.0
    extra_tokens: Index = 5  # of `strap`: what a paraphrase may be longer than its source
    max_new_tokens: Count = 128  # of `instruct`
    split: Literal["sentences", "whole"] = "sentences"
    seed: Index = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "instruct" and "{text}" not in self.instruction:
            raise RequestError(
                f"The instruction {self.instruction!r} has no place for the sentence.", "Write {text} where it goes."
            )


class Paraphraser:
    """A generative model in eval mode with its tokenizer, and how a sentence becomes its prompt."""

    def __init__(self, spec: ParaphraserSpec, model: Any, tokenizer: Any) -> None:
        self.spec, self.model, self.tokenizer = spec, model, tokenizer
        self.two_sided = bool(model.config.is_encoder_decoder)
        self.limit = getattr(model.config, "max_position_embeddings", None)
        self.marks = _marks(model, tokenizer) if spec.method == "strap" else []

    def paraphrase(self, units: Sequence[str]) -> list[Said]:
        """Return the paraphrase of each sentence.

        A paraphrase that is empty or the sentence itself is a failure, and so is a sentence too long for the model.
        The draws of a sentence come from a generator of its own, so that neither its batch nor a resumed run changes
        them; only the rounding of another batch shape could.
        """
        prompts = [self._source(unit) for unit in units]
        room = None if self.limit is None else self.limit - (0 if self.two_sided else self._new_tokens(prompts))
        fitting = [row for row, ids in enumerate(prompts) if room is None or len(ids) <= room]
        said = [Said(None, f"longer than the {self.limit} tokens of the model") for _ in units]
        if fitting:
            chosen = [prompts[row] for row in fitting]
            for row, ids in zip(fitting, self._generated([units[row] for row in fitting], chosen), strict=True):
                said[row] = self._judged(units[row], prompts[row], ids)
        return said

    def _source(self, unit: str) -> list[int]:
        if self.spec.method == "strap":
            return self.tokenizer(unit, add_special_tokens=False)["input_ids"][:SOURCE_TOKENS]
        asked = self.spec.instruction.replace("{text}", unit)
        if getattr(self.tokenizer, "chat_template", None):
            turns = [{"role": "user", "content": asked}]
            asked = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            return self.tokenizer(asked, add_special_tokens=False)["input_ids"]
        return self.tokenizer(asked if self.two_sided else f"{asked}\n")["input_ids"]

    def _new_tokens(self, prompts: Sequence[list[int]]) -> int:
        if self.spec.method == "instruct":
            return self.spec.max_new_tokens
        return min(max(map(len, prompts), default=0) + self.spec.extra_tokens, SOURCE_TOKENS + 1)

    def _generated(self, units: Sequence[str], prompts: Sequence[list[int]]) -> list[list[int]]:
        """Return the new token ids of each prompt, up to the end-of-text token."""
        from transformers import GenerationConfig

        count = self._new_tokens(prompts)
        end = self.tokenizer.eos_token_id
        inputs = self._strap_inputs(prompts) if self.spec.method == "strap" else self._padded(prompts)
        inputs = {name: torch.tensor(rows, device=self.model.device) for name, rows in inputs.items()}
        draws = []
        for unit in units:
            generator = python_rng(self.spec.seed, f"paraphrase of {unit}")
            draws.append([generator.random() for _ in range(count)])
        choose = Nucleus(draws, self.spec.top_p, self.spec.temperature)
        settings = GenerationConfig(
            do_sample=False,  # `choose` has drawn: it leaves one token
            num_beams=1,
            max_new_tokens=count,
            eos_token_id=end,
            pad_token_id=self._padding(),
            bos_token_id=self.tokenizer.bos_token_id,
            decoder_start_token_id=getattr(self.model.config, "decoder_start_token_id", None),
        )
        with torch.inference_mode():
            out = self.model.generate(**inputs, generation_config=settings, logits_processor=[choose])
        begin = 1 if self.two_sided else inputs["input_ids"].shape[1]
        rows = out[:, begin:].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]

    def _padding(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def _strap_inputs(self, prompts: Sequence[list[int]]) -> dict[str, list[list[int]]]:
        """Return prompts as these models were trained: the source padded on the left to 50 tokens, the padding seen
        like any token, the beginning-of-text token behind it; token types tell the source from what is written."""
        pad, begin = self._padding(), self.tokenizer.bos_token_id
        rows = [[pad] * (SOURCE_TOKENS - len(ids)) + ids + [begin] for ids in prompts]
        types = [self.marks[0]] * SOURCE_TOKENS + [self.marks[1]]
        return {
            "input_ids": rows,
            "token_type_ids": [types for _ in rows],
            "attention_mask": [[1] * len(types) for _ in rows],
        }

    def _padded(self, prompts: Sequence[list[int]]) -> dict[str, list[list[int]]]:
        """Return prompts padded and masked: on the left, so that all go on from the same place; an encoder's behind."""
        longest = max(map(len, prompts))
        left = not self.two_sided
        gaps = [longest - len(ids) for ids in prompts]
        rows = [[self._padding()] * gap for gap in gaps]
        masks = [[0] * gap for gap in gaps]
        return {
            "input_ids": [gap + ids if left else ids + gap for gap, ids in zip(rows, prompts, strict=True)],
            "attention_mask": [
                gap + [1] * len(ids) if left else [1] * len(ids) + gap for gap, ids in zip(masks, prompts, strict=True)
            ],
        }

    def _judged(self, unit: str, prompt: Sequence[int], ids: Sequence[int]) -> Said:
        if self.spec.method == "strap":
            ids = ids[: len(prompt) + self.spec.extra_tokens]
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        text = self._spaced(text)
        if not text:
            return Said(None, "empty paraphrase")
        if text == self._spaced(unit):
            return Said(None, "unchanged")
        return Said(text)

    def _spaced(self, text: str) -> str:
        """Return a text with single spaces, and as STRAP writes with none before its marks."""
        text = " ".join(text.split())
        return BEFORE_MARK.sub(r"\1", text) if self.spec.method == "strap" else text


def _marks(model: Any, tokenizer: Any) -> list[int]:
    """Return the token types of source and paraphrase: the second and third additional special token of the family.

    Raises:
        RequestError: the model is not of this family.
    """
    named = getattr(tokenizer, "extra_special_tokens_ids", None) or getattr(
        tokenizer, "additional_special_tokens_ids", []
    )
    rows = model.get_input_embeddings().num_embeddings
    enough = len(named) >= 3 and max(named) < rows and tokenizer.bos_token_id is not None
    if model.config.is_encoder_decoder or not enough:
        raise RequestError(
            f"The model {getattr(model.config, 'name_or_path', '')!r} is not of the STRAP family: "
            "its tokenizer lacks the additional special tokens that mark source and paraphrase.",
            "Name one of lievan/bible, shakespeare, twitter, lyrics, poetry, or use --method instruct.",
        )
    return list(named[1:3])


def load_paraphraser(spec: ParaphraserSpec, folder: Path, *, device: str = "cpu", pickled: bool = False) -> Paraphraser:
    """Return the paraphraser whose model a folder in the hub's layout holds.

    Args:
        pickled: read `pytorch_model.bin`, by torch's loader that runs no code, instead of safetensors.

    Raises:
        RequestError: no model that can be read, not a generative one, or not of the family of its method.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    from bench.victim.loading import quiet
    from bench.victim.perplexity import check_causal

    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model, loading = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=not pickled,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RequestError(f"Model {spec.model!r} cannot be loaded: {lines[0]}", REMEDY) from error
    if loading["missing_keys"]:
        absent = sorted(loading["missing_keys"])[0]
        raise RequestError(f"Model {spec.model!r} is not generative: its weights lack {absent}.", REMEDY)
    if tokenizer.eos_token_id is None:
        raise RequestError(f"Model {spec.model!r} is not generative: its tokenizer has no end-of-text token.", REMEDY)
    model = model.to(device).eval()
    if not config.is_encoder_decoder:
        try:
            check_causal(model, model.get_input_embeddings().num_embeddings, spec.model, REMEDY)
        except CellError as error:
            raise RequestError(error.problem, error.remedy) from None
    return Paraphraser(spec, model, tokenizer)
