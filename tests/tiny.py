"""Random models of two layers with real tokenizers, written on the spot as local model folders.

Each folder looks like a pre-trained checkpoint: a backbone without a classification head, weights in
safetensors, a fast tokenizer with the special tokens of its architecture (GPT-2 and Llama have no
padding token, as theirs have none).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.victim.victim import Victim

WIDTH, LAYERS, HEADS, INNER = 32, 2, 4, 48
CORPUS = (
    "the film is good and i like it",
    "the film is bad and we hate it",
    "what a warm, clever and moving story",
    "what a cold, dull and empty mess",
)

# model_type -> (special tokens: padding, beginning, end, unknown), settings besides the common ones
ARCHITECTURES: dict[str, tuple[tuple[str | None, str | None, str | None, str], dict[str, Any]]] = {
    "bert": (("[PAD]", "[CLS]", "[SEP]", "[UNK]"), {"initializer_range": 0.2}),
    "roberta": (("<pad>", "<s>", "</s>", "<unk>"), {"initializer_range": 0.2, "type_vocab_size": 1}),
    # The first layer sees everything, the second two tokens to each side.
    "modernbert": (("[PAD]", "[CLS]", "[SEP]", "[UNK]"), {"initializer_range": 0.2, "local_attention": 4}),
    "gpt2": ((None, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"), {"initializer_range": 0.2, "n_inner": INNER}),
    # Grouped queries: two of the four query heads share one key and one value head.
    "llama": ((None, "<s>", "</s>", "<unk>"), {"initializer_range": 0.2, "num_key_value_heads": 2}),
    # Heads wider than width / heads, as in the real one.
    "qwen3": (
        ("<|endoftext|>", None, "<|im_end|>", "<|endoftext|>"),
        {"initializer_range": 0.2, "num_key_value_heads": 2, "head_dim": 16},
    ),
}
ENCODERS = ("bert", "roberta", "modernbert")

# Those that no model file names, and that only the tests of the unpadded pass go through.
FURTHER: dict[str, tuple[tuple[str | None, str | None, str | None, str], dict[str, Any]]] = {
    # Words narrower than the layers.
    "electra": (("[PAD]", "[CLS]", "[SEP]", "[UNK]"), {"initializer_range": 0.2, "embedding_size": 24}),
    "distilbert": (("[PAD]", "[CLS]", "[SEP]", "[UNK]"), {"initializer_range": 0.2, "hidden_dim": INNER}),
    # Biases on queries, keys and values.
    "qwen2": (
        ("<|endoftext|>", None, "<|im_end|>", "<|endoftext|>"),
        {"initializer_range": 0.2, "num_key_value_heads": 2},
    ),
}
TEMPLATED = (*ENCODERS, "electra", "distilbert")  # a text is [CLS] text [SEP]


def tiny_model(tmp_path_factory: Any, architecture: str) -> Path:
    """Return the folder of a tiny model; it is written once per test session (`tmp_path_factory` is pytest's)."""
    folder = Path(tmp_path_factory.getbasetemp()) / "tiny" / architecture
    if not (folder / "config.json").is_file():
        write_tiny_model(folder, architecture)
    return folder


def tiny_victim(
    tmp_path_factory: Any, architecture: str, *, seed: int = 0, options: Mapping[str, Any] | None = None
) -> Victim:
    """Return a fresh victim with two classes around a tiny model; `options` change its spec."""
    from bench.victim.loading import load_victim
    from bench.victim.spec import model_spec

    spec = model_spec(str(tiny_model(tmp_path_factory, architecture)), options)
    return load_victim(spec, 2, seed=seed)


def write_tiny_model(folder: Path, architecture: str) -> None:
    """Write tokenizer and backbone of one architecture; global random state stays as it was."""
    import torch
    from transformers import AutoConfig, AutoModel

    from bench.victim.loading import quiet

    folder.mkdir(parents=True)
    tokenizer = _tokenizer(architecture)
    tokenizer.save_pretrained(folder)
    settings: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": 64,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        config = AutoConfig.for_model(architecture, **{**settings, **{**ARCHITECTURES, **FURTHER}[architecture][1]})
        AutoModel.from_config(config).save_pretrained(folder)


def _tokenizer(architecture: str) -> Any:
    """Return a byte-level BPE of a handful of sentences: every text has tokens, no word is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pad, begin, end, unknown = {**ARCHITECTURES, **FURTHER}[architecture][0]
    special = list(dict.fromkeys(token for token in (begin, pad, end, unknown) if token))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    encoder = architecture in TEMPLATED
    template = {"llama": f"{begin} $A"}.get(architecture, f"{begin} $A {end}" if encoder else "$A")
    wrapped = [token for token in dict.fromkeys((begin, end)) if token and token in template.split()]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in wrapped]
    )
    ends = {"cls_token": begin, "sep_token": end} if encoder else {}
    names = {"pad_token": pad, "bos_token": begin, "eos_token": end, "unk_token": unknown, **ends}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{key: token for key, token in names.items() if token is not None}
    )
