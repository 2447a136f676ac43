"""A worker that keeps its model gives every stage the model that it would have loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bench.victim import kept
from tests.tiny import ARCHITECTURES, tiny_model, tiny_victim


@pytest.fixture
def keeping() -> Iterator[None]:
    kept.keep_models()
    yield
    kept.forget()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kept_model_is_the_loaded_one_whatever_was_done_to_the_copy_before(
    tmp_path_factory: pytest.TempPathFactory, keeping: None, architecture: str
) -> None:
    fresh = {}
    for seed in (0, 1):
        kept.forget()
        fresh[seed] = tiny_victim(tmp_path_factory, architecture, seed=seed).fingerprint()
    kept.keep_models()
    for seed in (0, 1, 0):
        victim = tiny_victim(tmp_path_factory, architecture, seed=seed)
        assert victim.fingerprint() == fresh[seed] and not victim.training
        with torch.no_grad():
            for value in victim.parameters():
                value.zero_()
        victim.tokenizer.add_tokens(["changed"])
    assert "changed" not in tiny_victim(tmp_path_factory, architecture).tokenizer.get_vocab()


def test_a_copy_has_a_table_of_words_of_its_own() -> None:
    from transformers import BertTokenizer

    words = {word: number for number, word in enumerate(("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"))}
    words |= {f"word{number}": 5 + number for number in range(kept.TABLE)}
    tokenizer = BertTokenizer(vocab=words)
    copied, model, _ = kept._copied((tokenizer, torch.nn.Linear(2, 2), set()))
    assert copied("word3 word7")["input_ids"] == tokenizer("word3 word7")["input_ids"] == [2, 8, 12, 3]
    copied._vocab["changed"] = 0
    assert copied._vocab != tokenizer._vocab == words and isinstance(model, torch.nn.Linear)


def test_it_is_not_read_again_until_its_files_change(
    tmp_path_factory: pytest.TempPathFactory, keeping: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.victim.loading as loading

    reads, read = [], loading._read
    monkeypatch.setattr(loading, "_read", lambda *given: (reads.append(given), read(*given))[1])
    folder = tiny_model(tmp_path_factory, "bert")
    for seed in (0, 1, 2):
        tiny_victim(tmp_path_factory, "bert", seed=seed)
    assert len(reads) == 1
    (folder / "config.json").touch()
    tiny_victim(tmp_path_factory, "bert")
    assert len(reads) == 2


def test_a_decoder_with_the_papers_head_is_kept_and_another_spec_is_not_served_by_it(
    tmp_path_factory: pytest.TempPathFactory, keeping: None
) -> None:
    def made(**options: str | bool) -> torch.nn.Module:
        from bench.victim.loading import load_victim
        from bench.victim.spec import model_spec

        spec = model_spec(str(tiny_model(tmp_path_factory, "llama")), options)
        return load_victim(spec, 2, seed=0, precision="bf16").model

    made()
    first = kept._last
    made()
    assert first is not None and kept._last is first  # kept, and served again
    assert isinstance(made(head="plain").score, torch.nn.Linear)
    assert made(weights="bf16").model.norm.weight.dtype == torch.bfloat16
    assert made(checkpointing=True).is_gradient_checkpointing and not made().is_gradient_checkpointing
