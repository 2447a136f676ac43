"""Paraphrasing by tiny random models: the prompts of the published family, draws of a sentence's own, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import RequestError
from bench.victim.nucleus import Nucleus
from bench.victim.paraphraser import Paraphraser, ParaphraserSpec, load_paraphraser
from tests.strap import write_gpt2, write_t5
from tests.tiny import tiny_model

SENTENCES = ["the film is good", "what a cold , dull mess it was", "we hate it", "a warm story and a clever film " * 9]
ASK = {"method": "instruct", "instruction": "Say it otherwise: {text}", "max_new_tokens": 8}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("generative")
    return {
        "strap": write_gpt2(base / "strap"),
        "chat": write_gpt2(base / "chat", marks=False, chat=True),
        "plain": write_gpt2(base / "plain", marks=False, positions=64),
        "t5": write_t5(base / "t5"),
    }


def made(folders: dict[str, Path], kind: str, **options: Any) -> Paraphraser:
    method = {"method": "strap"} if kind == "strap" else ASK
    return load_paraphraser(ParaphraserSpec(**{"model": kind, **method, **options}), folders[kind])


def test_nucleus_by_hand() -> None:
    # Probabilities 0.5, 0.3, 0.2 in the order of tokens 2, 0, 1. The sum first exceeds 0.6 with token 0: the nucleus
    # is tokens 2 and 0, 5/8 and 3/8 of it.
    scores = torch.log(torch.tensor([[0.3, 0.2, 0.5]])).repeat(4, 1)
    for top_p, draws, chosen in (
        (0.6, [0.0, 0.62, 0.63, 0.999], [2, 2, 0, 0]),
        (0.4, [0.0, 0.5, 0.9, 0.999], [2, 2, 2, 2]),
        (1.0, [0.49, 0.51, 0.79, 0.81], [2, 0, 0, 1]),
        (0.0, [0.0, 0.5, 0.9, 0.999], [2, 2, 2, 2]),
    ):
        left = Nucleus([[draw] for draw in draws], top_p, 1.0)(torch.zeros(4, 1), scores)
        assert left.argmax(-1).tolist() == chosen and torch.isfinite(left).sum(-1).tolist() == [1, 1, 1, 1]
    # Twice the temperature halves the logits: 0.5 becomes 0.7071 / (0.7071 + 0.5477 + 0.4472) = 0.415.
    cold = Nucleus([[0.41], [0.42]], 1.0, 2.0)(torch.zeros(2, 1), scores[:2])
    assert cold.argmax(-1).tolist() == [2, 0]


def test_a_strap_prompt_is_the_one_those_models_were_trained_on(folders: dict[str, Path]) -> None:
    paraphraser = made(folders, "strap", top_p=0.0)
    tokenizer, model = paraphraser.tokenizer, paraphraser.model
    said = paraphraser.paraphrase(SENTENCES[:3])
    for sentence, (text, _) in zip(SENTENCES[:3], said, strict=True):
        source = tokenizer(sentence)["input_ids"]
        pad, begin = tokenizer.convert_tokens_to_ids(["<eos>", "<bos>"])
        tokens, verb = tokenizer.convert_tokens_to_ids(["<tokens>", "<verb>"])
        ids, types = [pad] * (50 - len(source)) + source + [begin], [tokens] * 50 + [verb]
        written: list[int] = []
        with torch.inference_mode():
            for _ in range(len(source) + 5):
                logits = model(torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[0, -1]
                if int(logits.argmax()) == pad:
                    break
                written.append(int(logits.argmax()))
                ids, types = [*ids, written[-1]], [*types, verb]
        assert text == " ".join(tokenizer.decode(written, skip_special_tokens=True).split())


@pytest.mark.parametrize("kind", ["strap", "chat", "t5"])
def test_a_sentence_is_paraphrased_the_same_in_any_company(folders: dict[str, Path], kind: str) -> None:
    paraphraser = made(folders, kind, top_p=0.9)
    torch.manual_seed(1)
    together = paraphraser.paraphrase(SENTENCES)
    state = torch.get_rng_state()
    alone = [paraphraser.paraphrase([sentence])[0] for sentence in reversed(SENTENCES)][::-1]
    assert alone == together and len({text for text, _ in together}) > 1
    assert torch.equal(torch.get_rng_state(), state)
    assert made(folders, kind, top_p=0.9, seed=1).paraphrase(SENTENCES) != together


def test_a_strap_paraphrase_is_five_tokens_longer_at_most(folders: dict[str, Path]) -> None:
    for extra in (0, 5):
        paraphraser = made(folders, "strap", extra_tokens=extra, top_p=1.0)
        prompts = [paraphraser.tokenizer(unit)["input_ids"][:50] for unit in SENTENCES]
        for prompt, (text, _) in zip(prompts, paraphraser.paraphrase(SENTENCES), strict=True):
            # Cut byte sequences decode to replacement characters, of which each stands for one token at least.
            assert text is not None and len(text) <= 60 * (len(prompt) + extra)
        ids = paraphraser._generated(SENTENCES, prompts)
        assert all(len(row) <= 51 for row in ids)


def test_a_chat_model_is_asked_by_its_template(folders: dict[str, Path]) -> None:
    paraphraser = made(folders, "chat")
    asked = paraphraser.tokenizer.decode(paraphraser._source("it rains"))
    assert asked == "<user>Say it otherwise: it rains</user><answer>"
    assert made(folders, "plain").tokenizer.decode(made(folders, "plain")._source("it rains")) == (
        "Say it otherwise: it rains\n"
    )


def test_a_sentence_too_long_for_the_model_is_a_counted_failure(folders: dict[str, Path]) -> None:
    paraphraser = made(folders, "plain")
    said = paraphraser.paraphrase([SENTENCES[0], SENTENCES[3]])
    assert said[0].text is not None and said[1] == (None, "longer than the 64 tokens of the model")
    assert paraphraser.paraphrase([SENTENCES[3]]) == said[1:]


def test_an_empty_paraphrase_and_an_unchanged_one_are_failures(folders: dict[str, Path]) -> None:
    paraphraser = made(folders, "strap")
    with torch.no_grad():  # every position now predicts the end
        final = paraphraser.model.transformer.ln_f
        final.weight.zero_()
        final.bias.copy_(paraphraser.model.lm_head.weight[paraphraser.tokenizer.eos_token_id] * 100)
    assert paraphraser.paraphrase(SENTENCES[:2]) == [(None, "empty paraphrase")] * 2
    ids = paraphraser.tokenizer("the film is good")["input_ids"]
    assert paraphraser._judged("the  film is good", ids, ids) == (None, "unchanged")
    ids = paraphraser.tokenizer("dull , cold .")["input_ids"]
    assert paraphraser._judged("x", ids, ids).text == "dull, cold."
    assert paraphraser._judged("dull , cold .", ids, ids) == (None, "unchanged")  # but for the spaces before its marks


def test_models_that_are_not_generative_or_of_another_family_are_refused(
    folders: dict[str, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = ParaphraserSpec(model="it", **ASK)
    with pytest.raises(RequestError, match="Model 'it' is not generative: its weights lack"):
        load_paraphraser(spec, tiny_model(tmp_path_factory, "bert"))
    with pytest.raises(RequestError, match="cannot be loaded"):
        load_paraphraser(spec, tmp_path)
    strap = replace(spec, method="strap", instruction="")
    for kind in ("plain", "t5"):
        with pytest.raises(RequestError, match="is not of the STRAP family.*--method instruct"):
            load_paraphraser(strap, folders[kind])


def test_an_instruction_without_the_sentence_is_refused() -> None:
    with pytest.raises(RequestError, match="has no place for the sentence. Write {text} where it goes"):
        ParaphraserSpec(method="instruct", model="it", instruction="Rewrite.")
