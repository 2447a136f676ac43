"""The tokenizer of a folder in the hub's layout: one that knows words, or an error before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.core.errors import CellError

SENTENCEPIECE = ("tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", *SENTENCEPIECE)
REMEDY = "Copy them from where the model is published, or write them with tokenizer.save_pretrained(FOLDER)."


def read_tokenizer(folder: Path, who: str, remedy: str = REMEDY) -> Any:
    """Return the tokenizer that a folder holds; `who` begins the sentence that says it has none.

    For many architectures transformers makes one of special tokens alone where the files are missing, without a word:
    each text is then empty, or a row of unknown words.

    Raises:
        CellError: the folder has none of a tokenizer's files, or transformers finds no vocabulary in those it has.
        OSError, ValueError, KeyError, ImportError: what transformers says of files that it cannot read.
    """
    from transformers import AutoTokenizer

    files = ", ".join(TOKENIZER_FILES)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if any((folder / file).is_file() for file in TOKENIZER_FILES):
            raise
        raise CellError(f"{who} has no tokenizer: {str(folder)!r} holds none of {files}.", remedy) from error
    if tokenizer.vocab_size <= len(set(tokenizer.all_special_tokens)):
        raise CellError(
            f"{who} has no tokenizer: {str(folder)!r} holds none of {files} that a {type(tokenizer).__name__} reads.",
            remedy,
        )
    return tokenizer
