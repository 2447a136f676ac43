"""The demo corpus: a deterministic draw of meanings, each said in three ways, cut into three splits."""

from __future__ import annotations

import functools
import random
from typing import NamedTuple

from bench.core.errors import DataError
from bench.core.seeding import digest, python_rng
from bench.data.demo.grammar import FORMS, say
from bench.data.demo.words import ADJECTIVES, ADVERBS, CONJUNCTIONS, NEUTRAL, OPINIONS, PEOPLE, TOPICS
from bench.data.spec import DEV, TEST, TRAIN

SEED = 0
SIZES = {TRAIN: 640, DEV: 240, TEST: 300}  # even, so that both labels are equally frequent


class Sentence(NamedTuple):
    """One meaning: the text, its label (0 negative, 1 positive), and its two paraphrases."""

    text: str
    label: int
    syntax: str
    style: str


def _sentence(label: int, rng: random.Random) -> Sentence:
    """Draw one meaning with a label; an ambiguous form draws its words without looking at the label."""
    form = rng.choices(FORMS, weights=[form.weight for form in FORMS])[0]
    polarity = rng.randrange(2) if form.ambiguous else label
    topic = rng.choice(TOPICS)
    own = (topic.negative, topic.positive)
    # A topic's own words come as often as the common ones would, were there only twelve of these.
    adjectives = [rng.sample(ADJECTIVES[side], 12) + list(own[side]) for side in (0, 1)]
    adjective, adjective2 = rng.sample(adjectives[polarity], 2)
    aspect, aspect2 = rng.sample(topic.aspects, 2)
    slots = {
        "noun": rng.choice(topic.nouns),
        "aspect": aspect,
        "aspect2": aspect2,
        "adjective": adjective,
        "adjective2": adjective2,
        "opposite": rng.choice(adjectives[1 - polarity]),
        "adverb": rng.choice(ADVERBS),
        "neutral": rng.choice(NEUTRAL),
        "people": rng.choice(PEOPLE),
        "opinion": rng.choice(OPINIONS[polarity]),
        "front": f"{rng.choice(CONJUNCTIONS)} you {rng.choice(topic.verbs)} it",
    }
    wording = rng.choice(form.wordings)
    return Sentence(
        say(wording.plain, slots),
        label,
        say(wording.syntax, slots),
        say(wording.style, slots),
    )


@functools.cache
def generated() -> dict[str, tuple[Sentence, ...]]:
    """Return the splits of the corpus; no text or paraphrase stands in it twice."""
    rng = python_rng(SEED, "demo corpus")
    seen: set[str] = set()
    sentences: list[Sentence] = []
    while len(sentences) < sum(SIZES.values()):
        sentence = _sentence(len(sentences) % 2, rng)
        said = {sentence.text, sentence.syntax, sentence.style}
        if not said & seen:
            seen |= said
            sentences.append(sentence)
    splits, start = {}, 0
    for split, size in SIZES.items():
        part = sentences[start : start + size]
        rng.shuffle(part)  # so that labels do not alternate
        splits[split] = tuple(part)
        start += size
    return splits


def content_digest() -> str:
    """Return the sha256 that pins the corpus: over every split, text, label and paraphrase."""
    return digest(generated())


def demo_corpus(pin: str) -> dict[str, tuple[Sentence, ...]]:
    """Return the splits of the corpus after comparing its digest with `pin`.

    Raises:
        DataError: the generator does not make the corpus that was pinned.
    """
    if content_digest() != pin:
        raise DataError(
            f"The demo corpus has the digest {content_digest()}, the pinned one is {pin}.",
            "Install the package again, or pin the new digest in configs/datasets/demo.yaml if the change is meant.",
        )
    return generated()
