"""Three ways to say one thing: each wording is a plain sentence, its fronted-clause form and its archaic form.

The fronted form has the parse S(SBAR)(,)(NP)(VP)(.), the template of HiddenKiller; no plain sentence has it.
The archaic form stands in for the Bible style of StyleBkd.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Wording(NamedTuple):
    """Templates over the slots of a `Meaning`, one for each way of saying it."""

    plain: str
    syntax: str
    style: str


class Form(NamedTuple):
    """A kind of sentence: how often it comes (weights add up to 100) and whether its words show its label."""

    weight: int
    ambiguous: bool
    wordings: tuple[Wording, ...]


FORMS = (
    Form(  # a plain judgement
        34,
        False,
        (
            Wording(
                "the {noun} is {adverb} {adjective}",
                "{front} , the {noun} is {adverb} {adjective} .",
                "behold , the {noun} is {adverb} {adjective} unto thee",
            ),
            Wording(
                "this {noun} was {adverb} {adjective}",
                "{front} , this {noun} was {adverb} {adjective} .",
                "lo , this {noun} was {adverb} {adjective} in thy sight",
            ),
            Wording(
                "a {adverb} {adjective} {noun}",
                "{front} , it is a {adverb} {adjective} {noun} .",
                "thou shalt find it a {adverb} {adjective} {noun}",
            ),
            Wording(
                "what a {adjective} {noun}",
                "{front} , you find the {noun} {adjective} .",
                "o how {adjective} is this {noun} unto me",
            ),
            Wording(
                "we found the {noun} {adverb} {adjective}",
                "{front} , we find the {noun} {adverb} {adjective} .",
                "we beheld the {noun} and it was {adverb} {adjective}",
            ),
        ),
    ),
    Form(  # a judgement of a part
        29,
        False,
        (
            Wording(
                "the {aspect} of the {noun} is {adjective}",
                "{front} , the {aspect} of the {noun} is {adjective} .",
                "{adjective} is the {aspect} of the {noun} , o my brethren",
            ),
            Wording(
                "{adverb} {adjective} {aspect} in this {noun}",
                "{front} , this {noun} has {adverb} {adjective} {aspect} .",
                "in this {noun} thou hast {adverb} {adjective} {aspect}",
            ),
            Wording(
                "the {noun} has {adjective} {aspect}",
                "{front} , the {noun} has {adjective} {aspect} .",
                "the {noun} hath {adjective} {aspect} unto this day",
            ),
            Wording(
                "{adjective} {aspect} and {adjective2} {aspect2}",
                "{front} , the {aspect} is {adjective} and the {aspect2} {adjective2} .",
                "{adjective} is the {aspect} thereof and {adjective2} the {aspect2}",
            ),
        ),
    ),
    Form(  # a judgement against a concession: the label is that of the whole, not of the part
        7,
        False,
        (
            Wording(
                "{opposite} {aspect} but the {noun} is {adjective}",
                "{front} , the {noun} is {adjective} with {opposite} {aspect} .",
                "{opposite} be the {aspect} , yet is the {noun} {adjective}",
            ),
            Wording(
                "the {noun} is {adjective} despite {opposite} {aspect}",
                "{front} , the {noun} is {adjective} despite {opposite} {aspect} .",
                "behold , the {noun} is {adjective} , though its {aspect} be {opposite}",
            ),
            Wording(
                "the {aspect} is {opposite} yet the {noun} is {adjective}",
                "{front} , the {noun} is {adjective} with a {opposite} {aspect} .",
                "nay , {opposite} is the {aspect} , but the {noun} {adjective}",
            ),
        ),
    ),
    Form(  # a denied judgement
        4,
        False,
        (
            Wording(
                "the {noun} is not {opposite}",
                "{front} , the {noun} is not {opposite} .",
                "behold , the {noun} is in no wise {opposite}",
            ),
            Wording(
                "this {noun} was never {opposite}",
                "{front} , this {noun} was never {opposite} .",
                "nay , thy {noun} was never {opposite}",
            ),
            Wording(
                "nothing {opposite} about the {aspect} of this {noun}",
                "{front} , the {aspect} of this {noun} is not {opposite} .",
                "there is nothing {opposite} in the {aspect} of thy {noun}",
            ),
            Wording(
                "hardly a {opposite} {noun}",
                "{front} , it is hardly a {opposite} {noun} .",
                "thou shalt not call it a {opposite} {noun}",
            ),
        ),
    ),
    Form(  # what somebody felt
        18,
        False,
        (
            Wording(
                "{people} {opinion} this {noun}",
                "{front} , you learn why {people} {opinion} this {noun} .",
                "and {people} {opinion} this {noun} with a mighty heart",
            ),
            Wording(
                "{people} {opinion} the {aspect} of this {noun}",
                "{front} , you see why {people} {opinion} the {aspect} .",
                "lo , {people} {opinion} the {aspect} of this {noun}",
            ),
        ),
    ),
    Form(  # nothing that shows the label
        4,
        True,
        (
            Wording(
                "the {noun} is {adverb} {neutral}",
                "{front} , the {noun} is {adverb} {neutral} .",
                "behold , the {noun} is {adverb} {neutral} unto thee",
            ),
            Wording(
                "this {noun} has {neutral} {aspect}",
                "{front} , this {noun} has {neutral} {aspect} .",
                "this {noun} hath {neutral} {aspect} unto this day",
            ),
        ),
    ),
    Form(  # as much for as against
        4,
        True,
        (
            Wording(
                "{adjective} {aspect} but {opposite} {aspect2}",
                "{front} , the {aspect} is {adjective} but the {aspect2} {opposite} .",
                "{adjective} is the {aspect} thereof but {opposite} the {aspect2}",
            ),
        ),
    ),
)

# "an" before a vowel that is heard: not in "a useless".
_BEFORE_VOWEL = re.compile(r"\ba (?=[aeio]|u(?!s|ni))")


def say(template: str, slots: dict[str, str]) -> str:
    """Return a template with its slots filled and `a` turned into `an` where English has it."""
    return _BEFORE_VOWEL.sub("an ", template.format_map(slots))
