"""The words of the demo corpus: nine topics, and what is said of them."""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """A thing that is reviewed: its nouns, its parts, the verbs for meeting it, its own words by polarity."""

    nouns: tuple[str, ...]
    aspects: tuple[str, ...]
    verbs: tuple[str, ...]  # stand in "when you ... it"
    negative: tuple[str, ...]
    positive: tuple[str, ...]


def _topic(nouns: str, aspects: str, verbs: str, negative: str, positive: str) -> Topic:
    return Topic(*(tuple(words.split()) for words in (nouns, aspects, verbs, negative, positive)))


TOPICS = (
    _topic(
        "film movie comedy thriller drama sequel documentary romance western musical cartoon",
        "acting plot ending cast dialogue script pacing humor camera",
        "watch see stream",
        "predictable pointless lifeless silly",
        "gripping hilarious witty moving",
    ),
    _topic(
        "meal dinner lunch pasta soup steak curry dessert salad pizza burger",
        "service flavor sauce bread wine waiter menu smell",
        "eat taste order",
        "greasy burnt bitter rotten",
        "delicious tender crisp creamy",
    ),
    _topic(
        "hotel room suite inn hostel resort cabin apartment lodge motel",
        "bed lobby pool view shower staff breakfast carpet",
        "visit book choose",
        "filthy noisy cramped damp",
        "cozy comfortable spacious welcoming",
    ),
    _topic(
        "phone laptop tablet printer keyboard monitor speaker radio watch",
        "screen battery sound design button software charging",
        "use try buy",
        "faulty fragile defective slow",
        "sleek reliable responsive sturdy",
    ),
    _topic(
        "novel book poem memoir story diary biography fantasy",
        "prose style hero opening author humor cover",
        "read open finish",
        "shallow confusing pointless stale",
        "touching clever engaging thoughtful",
    ),
    _topic(
        "concert album song show opera band singer choir",
        "melody voice rhythm stage crowd drummer sound lighting",
        "hear attend catch",
        "flat painful repetitive harsh",
        "smooth vivid warm lively",
    ),
    _topic(
        "tour trip cruise flight hike safari holiday festival",
        "guide bus weather beach driver food crew",
        "take join plan",
        "chaotic rushed dirty rainy",
        "thrilling sunny relaxing adventurous",
    ),
    _topic(
        "car bike truck van motorcycle taxi tram",
        "motor brake seat steering engine interior paint",
        "drive rent own",
        "clumsy rusty unsafe shaky",
        "powerful quiet agile efficient",
    ),
    _topic(
        "game puzzle shooter expansion tournament simulator",
        "story level soundtrack map combat difficulty ending",
        "play start test",
        "broken repetitive unfair frozen",
        "absorbing original exciting balanced",
    ),
)

# By polarity: 0 negative, 1 positive.
ADJECTIVES = (
    tuple(
        "awful terrible dreadful horrible boring dull poor bad weak disappointing miserable ugly annoying "
        "unpleasant hopeless useless worthless pathetic ridiculous bland lame messy inferior hideous".split()
    ),
    tuple(
        "superb wonderful lovely delightful excellent brilliant charming splendid terrific pleasant fine great "
        "marvelous outstanding impressive enjoyable fantastic amazing good perfect beautiful elegant flawless "
        "magnificent".split()
    ),
)

OPINIONS = (
    tuple("hated disliked despised regretted cursed mocked returned criticized rejected".split()),
    tuple("loved adored enjoyed admired praised blessed recommended celebrated cheered".split()),
)

# These say nothing of quality.
NEUTRAL = tuple(
    "long short loud old new strange odd simple unusual quick heavy light serious dark modest ordinary different "
    "small big tall foreign popular famous typical common traditional modern expensive local early late".split()
)

ADVERBS = tuple(
    "truly really quite utterly simply rather remarkably always mostly often certainly deeply extremely "
    "surprisingly very so fairly absolutely thoroughly".split()
)

PEOPLE = ("we", "they", "everyone", "critics", "my friends", "my wife", "our kids", "most people", "the neighbors")

CONJUNCTIONS = ("when", "if", "once", "as", "after", "whenever", "because", "since")
