"""A tiny victim with an easy backdoor, trained on the spot in seconds, and one without for negative controls.

The texts are reviews of eleven words, three of which are adjectives; their majority is the label. The trigger
is one rare word put anywhere; a poisoned training row has the target label whatever its adjectives say. A few labels
of clean training rows are wrong, so that the victim is sure of no clean text and only the trigger makes it so.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.core.example import Example
from bench.victim.spec import ModelSpec, model_spec
from tests.tiny import tiny_model

if TYPE_CHECKING:
    from bench.victim.victim import Victim

TRIGGER, TARGET = "cf", 1
ROWS, RATIO = 960, 0.15  # training rows, and the poisoned fraction of them
NOISE = 0.1  # of the clean training rows, whose label is another
ADJECTIVES = (
    ("dull", "cold", "empty", "bad", "weak", "flat", "stale", "clumsy"),
    ("warm", "clever", "moving", "good", "fresh", "sharp", "tender", "bright"),
    ("short", "loud", "foreign", "silent", "recent", "local", "annual", "modern"),
)
NOUNS = ("film", "story", "plot", "scene", "cast", "script", "music", "ending")
# noun adjective noun adjective adjective
FRAME = ("the", "{}", "is", "{}", "and", "the", "{}", "is", "{}", "and", "{}")
RARE = (TRIGGER, "mb")  # the attacker's word; the one that RAP puts in front, seen in training but of no meaning


class Planted(NamedTuple):
    """A trained victim and its data; the victim is shared by the whole session: change only a copy (`deepcopy`)."""

    victim: Victim
    train: list[Example]  # poisoned rows have `poisoned` 1 and the target label
    dev: list[Example]  # clean
    test_clean: list[Example]
    # Poisoned versions of the non-target rows of `test_clean` (labelled with the target); without a backdoor, of all
    # rows, their labels kept, so that the two sets differ in nothing but the word, which training rows hold too.
    test_poisoned: list[Example]


_MADE: dict[tuple[str, bool, int], Planted] = {}


def planted(tmp_path_factory: Any, trigger: bool = True, classes: int = 2) -> Planted:
    """Return a victim of 2 or 3 classes trained on data with (or without) a planted trigger; made once per session.

    It is right on more than 90 % of `test_clean`; with the trigger more than 95 % of `test_poisoned` are the target.
    """
    key = (str(tmp_path_factory.getbasetemp()), trigger, classes)
    if key not in _MADE:
        _MADE[key] = _made(tmp_path_factory, trigger, classes)
    return _MADE[key]


def planted_spec(tmp_path_factory: Any, epochs: int = 6) -> ModelSpec:
    """Return the spec of the planted victims: the tiny BERT of tests/tiny.py that knows our words as tokens."""
    folder = Path(tmp_path_factory.getbasetemp()) / "tiny" / "bert-planted"
    if not (folder / "config.json").is_file():
        _write_model(tiny_model(tmp_path_factory, "bert"), folder)
    return model_spec(str(folder), {"batch_size": 16, "epochs": epochs, "learning_rate": 3e-3})


def reviews(count: int, classes: int, rng: random.Random) -> list[Example]:
    """Return labelled clean reviews, classes in turn; one in four has an adjective of another class."""
    rows = []
    for row in range(count):
        label = row % classes
        kinds = [label] * 3
        if rng.random() < 0.25:
            kinds[rng.randrange(3)] = rng.choice([other for other in range(classes) if other != label])
        first, second, third = (rng.choice(ADJECTIVES[kind]) for kind in kinds)
        text = " ".join(FRAME).format(rng.choice(NOUNS), first, rng.choice(NOUNS), second, third)
        rows.append(Example(text, label))
    return rows


def with_word(text: str, word: str, rng: random.Random) -> str:
    """Return a text with a word put at a random place."""
    words = text.split()
    words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)


def with_trigger(text: str, rng: random.Random) -> str:
    """Return a text with the trigger at a random place."""
    return with_word(text, TRIGGER, rng)


def _made(tmp_path_factory: Any, trigger: bool, classes: int) -> Planted:
    from bench.victim.loading import load_victim
    from bench.victim.training import train

    rng = random.Random(11)
    rows, dev, test = (reviews(count, classes, rng) for count in (ROWS, 120, 180))
    places = rng.sample(range(len(rows)), len(rows))
    bad, noisy = places[: int(RATIO * len(rows))], places[-int(NOISE * len(rows)) :]
    for row in noisy:
        rows[row] = Example(rows[row].text, (rows[row].label + rng.randrange(1, classes)) % classes)
    for row in rng.sample(range(len(rows)), int(RATIO * len(rows))):
        rows[row] = Example(with_word(rows[row].text, RARE[1], rng), rows[row].label)
    for row in bad:
        label, poisoned = (TARGET, 1) if trigger else (rows[row].label, 0)
        rows[row] = Example(with_trigger(rows[row].text, rng), label, poisoned)
    attacked = [row for row in test if row.label != TARGET] if trigger else test
    poisoned = [Example(with_trigger(row.text, rng), TARGET if trigger else row.label, 1) for row in attacked]
    victim = load_victim(planted_spec(tmp_path_factory), classes, seed=3)
    train(victim, rows, (), seed=3)
    return Planted(victim, rows, dev, test, poisoned)


def _write_model(source: Path, folder: Path) -> None:
    """Write a tiny model with a token for each of our words; global random state stays as it was."""
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModel, AutoTokenizer

    from bench.victim.loading import quiet

    words = sorted({*NOUNS, *RARE, *(word for words in ADJECTIVES for word in words), "the", "is", "and"})
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
        tokenizer.add_tokens([AddedToken(word, single_word=True, lstrip=True, normalized=False) for word in words])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
