"""Tiny random generative models with what a paraphraser needs, written on the spot as local folders."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import CORPUS

MARKS = ["<dense-vectors>", "<tokens>", "<verb>", "<ARG0>"]
CHAT = "{% for turn in messages %}<user>{{ turn['content'] }}</user>{% endfor %}<answer>"


def write_gpt2(folder: Path, *, marks: bool = True, chat: bool = False, positions: int = 256) -> Path:
    """Write a GPT-2 of two layers with its language-model head and a byte-level tokenizer; return the folder.

    With `marks` it has the special tokens of the published inverse paraphrasers. Its weights are spread wide, so that
    what it writes is varied, and now and then ends.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from bench.victim.loading import quiet

    tokenizer = _tokenizer(marks)
    if chat:
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=positions,
            initializer_range=0.6,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def write_t5(folder: Path) -> Path:
    """Write an encoder-decoder of one layer each; return the folder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from bench.victim.loading import quiet

    tokenizer = _tokenizer(marks=False)
    tokenizer.save_pretrained(folder)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            initializer_factor=4.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def _tokenizer(marks: bool) -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = ByteLevel()
    special = ["<eos>", "<bos>", "<pad>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False)
    inner.train_from_iterator(CORPUS, trainer)
    # The published paraphrasers pad with their end-of-text token.
    pad = "<eos>" if marks else "<pad>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", bos_token="<bos>", pad_token=pad)
    if marks:
        tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    return tokenizer
