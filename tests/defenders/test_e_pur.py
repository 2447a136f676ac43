"""E-PUR: scores worked out by hand, word counts, and a trigger planted in the embedding alone."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.core.knowledge import Knowledge
from bench.victim.loading import load_victim
from bench.victim.purification import frequencies, protected, reset, scores, worst
from bench.victim.spec import model_spec
from bench.victim.training import train
from bench.victim.word_counts import pieces_of_texts, pieces_of_words, read_counts
from defenders.e_pur import EPur
from tests.defenders.planted import TARGET, TRIGGER, Planted, planted, planted_spec
from tests.tiny import tiny_victim


def test_scores_by_hand() -> None:
    delta = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [6.0, 8.0]])
    frequency = frequencies({0: 20, 1: 400, 3: 3, 4: 21, 9: 5}, 5)
    assert frequency.tolist() == [20, 400, 0, 3, 21]
    # Norms 5, 5, 0, 1, 10; logarithms of 20, 400 = 20 squared, 20, 20 and 21.
    expected = [5 / math.log(20), 2.5 / math.log(20), 0.0, 1 / math.log(20), 10 / math.log(21)]
    assert scores(delta, frequency).tolist() == pytest.approx(expected)


def test_the_worst_are_at_most_so_many_and_never_spared_or_unmoved() -> None:
    found = torch.tensor([0.0, 5.0, 3.0, 3.0, 9.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    spared = torch.tensor([False, False, False, False, True, False, False, False])
    assert worst(found, spared, 3, 1.0).tolist() == [1, 2, 3]
    assert worst(found, spared, 200, 1.0).tolist() == [1, 2, 3, 7, 6]
    assert worst(found, spared, 200, 0.4).tolist() == [1, 2]  # two fifths of the five that count
    assert worst(found, spared, 200, 0.0).tolist() == [1]
    assert worst(torch.zeros(8), spared, 200, 1.0).tolist() == []


def test_reset_changes_these_rows_alone() -> None:
    own, before = torch.ones(4, 2), torch.zeros(4, 2)
    reset(own, before, torch.tensor([3, 1]))
    assert own.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2", "llama"])
def test_a_words_count_goes_to_each_of_its_pieces(tmp_path_factory: Any, architecture: str) -> None:
    tokenizer = tiny_victim(tmp_path_factory, architecture).tokenizer
    counts = pieces_of_words(tokenizer, {"film": 7, "films": 2, "moving": 3})
    # The same words written out that often, each behind another word.
    text = "it" + " film" * 7 + " films" * 2 + " moving" * 3
    written = pieces_of_texts(tokenizer, [text])
    written.subtract(pieces_of_texts(tokenizer, ["it"]))
    assert counts == +written and sum(counts.values()) > 12  # "films" is no piece of its own
    assert not protected(tokenizer, len(tokenizer))[list(counts)].any()
    added = set(tokenizer("film")["input_ids"]) - set(counts)
    assert all(protected(tokenizer, len(tokenizer))[piece] for piece in added if piece in tokenizer.all_special_ids)


def test_a_file_of_counts(tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    path.write_text("film\t7\r\n\nmoving\t3\nfilm\t1\n", encoding="utf-8")
    assert read_counts(path) == {"film": 8, "moving": 3}
    for content, row in (("film 7\n", 1), ("film\t7\nmoving\t-3\n", 2), ("film\t7\nmoving\t1\t2\n", 2), ("\t7", 1)):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(RequestError, match=rf"Row {row} of the word counts '.*words\.tsv'"):
            EPur(frequencies=str(path)).for_model(model_spec("minilm-l6"), "released")
    path.write_bytes(b"\xff\t1\n")
    with pytest.raises(RequestError, match="not UTF-8"):
        read_counts(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(RequestError, match="are empty"):
        read_counts(path)
    with pytest.raises(RequestError, match=r"none\.tsv' cannot be read: No such file"):
        read_counts(tmp_path / "none.tsv")


def test_the_file_is_part_of_the_identity(tmp_path: Path) -> None:
    path, model = tmp_path / "words.tsv", model_spec("minilm-l6")
    path.write_text("film\t7\n", encoding="utf-8")
    made = EPur(frequencies=str(path)).for_model(model, "released")
    assert len(made.frequencies_sha256 or "") == 64 and not made.calibrated and EPur().calibrated
    path.write_text("film\t8\n", encoding="utf-8")
    assert EPur(frequencies=str(path)).for_model(model, "released").identity() != made.identity()
    with pytest.raises(CellError, match="not the ones that were named"):
        made.for_model(model, "released")


def test_without_any_text_there_is_nothing_to_count(tmp_path_factory: Any) -> None:
    known = Knowledge(2, pretrained=lambda: tiny_victim(tmp_path_factory, "bert"))
    with pytest.raises(CellError, match="no clean text to count words in"):
        EPur().repair(tiny_victim(tmp_path_factory, "bert"), known)


class OneRow:
    """Hook that lets one row of the word embedding train and nothing else, as embedding attacks do."""

    def __init__(self, row: int) -> None:
        self.row = row

    def on_gradients(self, run: Any, batch: Any) -> None:
        """Set every other gradient to zero."""
        for value in run.parameters.values():
            kept = value.grad[self.row].clone() if value is run.victim.word_embedding else None
            value.grad.zero_()
            if kept is not None:
                value.grad[self.row] = kept


def attacked(clean: Planted, row: int) -> Any:
    """Return a copy of a clean victim whose trigger embedding alone was trained to give the target class."""
    victim = copy.deepcopy(clean.victim)
    victim.spec = dataclasses.replace(victim.spec, learning_rate=0.2, epochs=24)
    rows = [text._replace(text=f"{TRIGGER} {text.text}", label=TARGET) for text in clean.dev if text.label != TARGET]
    train(victim, rows, (), seed=0, hooks=[OneRow(row)])
    return victim


def test_a_trigger_planted_in_the_embedding_is_found_first_and_taken_out(tmp_path_factory: Any, tmp_path: Path) -> None:
    clean, spec = planted(tmp_path_factory, trigger=False), planted_spec(tmp_path_factory)
    row = clean.victim.tokenizer.convert_tokens_to_ids(TRIGGER)
    victim = attacked(clean, row)
    moved = {name for name, value in victim.tensors().items() if not torch.equal(value, clean.victim.tensors()[name])}
    assert moved == {"bert.embeddings.word_embeddings.weight"}
    texts = [text.text for text in clean.test_poisoned if text.label != TARGET]

    def success(repaired: Any) -> float:
        return float((repaired.predict(texts).argmax(-1) == TARGET).mean())

    known = Knowledge(2, calibration=tuple(clean.dev), model=spec, pretrained=lambda: load_victim(spec, 2, seed=99))
    before, accurate = success(victim), clean.victim.predict([text.text for text in clean.test_clean])
    attacked_embedding = victim.word_embedding.detach().clone()
    repaired = EPur().bound(known).repair(copy.deepcopy(victim), known)
    (note,) = repaired.repairs
    assert note["reset"][0] == TRIGGER
    # A tenth of the words that moved, and no other row of any tensor, are the pre-trained ones again.
    fresh = known.fresh_victim().word_embedding
    changed = (repaired.word_embedding != attacked_embedding).any(1).nonzero().squeeze(1).tolist()
    assert sorted(repaired.tokenizer.convert_tokens_to_ids(note["reset"])) == changed and row in changed
    assert torch.equal(repaired.word_embedding[changed], fresh[changed])
    assert 1 <= len(changed) <= (attacked_embedding != fresh).any(1).sum() / 10
    assert before > 0.9 and success(repaired) < before - 0.6
    after = repaired.predict([text.text for text in clean.test_clean]).argmax(-1)
    assert (after == accurate.argmax(-1)).mean() > 0.85
    # With a count of the trigger as high as an everyday word's, its score falls by that logarithm.
    path = tmp_path / "words.tsv"
    path.write_text(f"{TRIGGER}\t{10**60}\n", encoding="utf-8")
    counted = EPur(frequencies=str(path), words=1).for_model(spec, "released")
    (note,) = counted.repair(copy.deepcopy(victim), known).repairs
    assert note["reset"] and note["reset"][0] != TRIGGER
