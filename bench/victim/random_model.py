"""A model of real size and random weights, for measuring: it knows nothing, and needs no hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import RequestError
from bench.core.seeding import derived_seed
from bench.victim.spec import ModelSpec, shape_of_file

MOST_PIECES = 8000  # of the tokenizer; the embedding has as many rows as the shape says
SHARD = "4GB"  # at most, of a file of weights


def write_random_model(spec: ModelSpec, texts: Sequence[str], folder: Path, *, seed: int = 0) -> int:
    """Write a folder in the hub's layout: the shape of a model file, bf16 weights, a tokenizer learnt from `texts`.

    Return the number of weights. Global random state stays as it was. Weights are those that transformers starts a
    model with; they are loaded in fp32 or bf16 as any other (`model.weights`).

    Raises:
        RequestError: the model's file names no shape.
        OSError: the folder cannot be written.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from bench.victim.loading import quiet
    from bench.victim.progress import seeded

    shape = shape_of_file(spec.name)
    if shape is None:
        raise RequestError(f"Model {spec.name!r} has no shape in its file.", "Name one of `bench list models`.")
    tokenizer = _tokenizer(texts, encoder=spec.family == "encoder", most=min(MOST_PIECES, shape["vocab_size"]))
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    with quiet(), seeded(derived_seed(seed, "random model"), torch.device("cpu")):
        model = AutoModel.from_config(AutoConfig.for_model(**shape, **ends), dtype=torch.bfloat16)
        model.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def _tokenizer(texts: Sequence[str], *, encoder: bool, most: int) -> Any:
    """Return a byte-level BPE: an encoder's texts stand between [CLS] and [SEP], a decoder's begin with <s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    begin, end, padding = ("[CLS]", "[SEP]", "[PAD]") if encoder else ("<s>", "</s>", None)
    special = [token for token in (padding, begin, end) if token]
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=most,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(texts, trainer)
    used = [begin, end] if encoder else [begin]
    pieces.post_processor = processors.TemplateProcessing(
        single=" ".join([begin, "$A", *used[1:]]), special_tokens=[(token, pieces.token_to_id(token)) for token in used]
    )
    names: dict[str, str] = {"bos_token": begin, "eos_token": end}
    if encoder:
        names |= {"cls_token": begin, "sep_token": end, "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)
