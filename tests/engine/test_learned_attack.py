"""An attack that learns its trigger: training and test poison of a cell hold the words of the clean training split."""

from __future__ import annotations

from attackers.bite import biased_words
from bench.engine.artifacts import read_examples
from bench.engine.store import Store
from tests.engine.conftest import Tiny


def test_bite_poisons_training_and_test_with_the_words_it_learnt(tiny: Tiny) -> None:
    plan = tiny.plan(attacks=["bite(words_per_text=2,min_count=2)"], defenders=["vanilla"])
    assert tiny.run(plan).done == 1
    folders = {stage.kind: Store(tiny.out / "store").open(stage.key) for stage in plan.unique()}
    clean = read_examples(folders["load"] / "train.jsonl").examples
    words = set(biased_words(clean, 1, 2)[:5])
    assert len(words) == 5
    for kind, file in (("poison", "train.jsonl"), ("trigger", "test.jsonl")):
        poisoned = [example for example in read_examples(folders[kind] / file).examples if example.poisoned]
        assert poisoned and all(len(words & set(example.text.split())) >= 2 for example in poisoned)
