"""OpenBackdoor's own poisoners in our grids: `openbackdoor:badnets`, `addsent`, `synbkd`, `stylebkd`, `ep` ...

The rows are those that its poisoner returns, chosen by its own rule; our training, not its attackers', sees them. So of
EP, SOS and LWP, which also train the victim in ways of their own, this is the poisoned data alone. Differs from there:
* Which rows were poisoned is told where it can be: a clean row is recognised by being the very object that was given,
  and what is missing was poisoned, in order. Where its poisoner lost rows (StyleBkd drops blank paraphrases, which also
  shifts the others) it cannot be, and the record has no positions.
* SOS returns its poisoned and its negative rows without the clean ones, since its attacker has trained on those before:
  here they stand in front. It poisons rows of other classes than the target whatever the label rule, so only `dirty`
  is accepted.
* Nothing is read from or written to `./poison_data`; random numbers come from the cell's seed.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from attackers.base import Attacker, Split
from attackers.selection import Poisoned
from bench.core.errors import BenchError, CellError, RequestError, unknown
from bench.core.example import Example
from bench.core.packages import installed
from bench.core.registry import RESERVED
from bench.core.seeding import derived_seed

NAMES = ("badnets", "addsent", "synbkd", "stylebkd", "ep", "sos", "lwp", "trojanlm")
PIPELINE_ONLY = {
    "neuba": "writes its backdoor into the weights of a pre-trained model, and poisons no labelled rows",
    "por": "writes its backdoor into the weights of a pre-trained model, and poisons no labelled rows",
    "ripples": "is a way of training, and poisons its rows with BadNets",
    "lws": "learns its substitutions while it trains the victim, on a GPU",
}
INSTEAD = {"ripples": "take openbackdoor:badnets", "lws": "take this suite's lws"}  # in a grid
RULES = {
    "sos": "poison_part of its SOSPoisoner: int(ratio n) of the shuffled non-target rows, and negative rows, are added",
    "lwp": "poison_part of its LWPPoisoner: int(ratio n) rows, or all there are, become negative rows and one poisoned",
}
RULE = "poison_part of its Poisoner: int(ratio n) of the shuffled rows that the label rule allows, or all there are"


@dataclass(frozen=True, kw_only=True)
class Bridged(Attacker):
    """Base of the bridged attacks; `theirs` is OpenBackdoor's class, whose constructor's parameters are options."""

    theirs: ClassVar[type]

    @classmethod
    def default_rule(cls, dataset: str, recipe: str) -> str:
        """Return `mix`, its poisoners' default; `dirty` for SOS."""
        return "dirty" if cls._own_name() == "sos" else "mix"

    @classmethod
    def _own_name(cls) -> str:
        return cls.name.removeprefix(RESERVED)

    @property
    def selection(self) -> str:
        """The rule of its code by which the training rows are chosen."""
        return RULES.get(self._own_name(), RULE)

    def pins(self) -> Mapping[str, str]:
        """Return the digest of the package's source: another version of it makes other stages."""
        from bench.openbackdoor.options import source_digest

        return source_digest()

    def poison_training(self, examples: Sequence[Example], rows: Sequence[int] | None = None) -> Poisoned:
        """Return the training split as its poisoner returns it: rows left clean first, then what it wrote.

        Raises:
            CellError: its poisoner lacks a model or a package, or cannot follow the label rule.
        """
        if self._own_name() == "sos" and self.poison_setting != "dirty":
            raise CellError(
                f"label_rule is {self.poison_setting!r}, and openbackdoor:sos poisons non-target rows only.",
                "Take label_rule 'dirty'.",
            )
        given = [Example(*row) for row in examples]
        with self._poisoner("train") as (made, lengths):
            returned = made({"train": list(given), "dev": []}, "train")["train"]
        place = {id(row): position for position, row in enumerate(given)}
        written = [Example(*row) for row in returned if id(row) not in place]
        clean = [place[id(row)] for row in returned if id(row) in place]
        if self._own_name() == "sos":
            clean = list(range(len(given)))
        missing = sorted(set(range(len(given))) - set(clean))
        each = len(written) // len(missing) if missing else 0
        told = each > 0 and len(written) == each * len(missing) and all(back == each * asked for asked, back in lengths)
        sources = [missing[number // each] if told else None for number in range(len(written))]
        return Poisoned(
            examples=tuple(Example(given[i].text, given[i].label, 0) for i in clean) + tuple(written),
            positions=tuple(missing) if told else (),
            rows=(*clean, *sources),
            dropped=sum(max(0, asked - back) for asked, back in lengths),
        )

    def poison_heldout(self, split: Split, examples: Sequence[Example], rows: Sequence[int] | None = None) -> Poisoned:
        """Return the poisoned versions of the non-target examples as its poisoner writes them for a test set."""
        given = [Example(*row) for row in examples]
        chosen = [i for i, example in enumerate(given) if example.label != self.target_label]
        with self._poisoner(split) as (made, _):
            written = [Example(*row) for row in made({"test": given}, "eval")["test-poison"]]
        placed = len(written) == len(chosen)
        return Poisoned(
            examples=tuple(written),
            positions=tuple(chosen) if placed else (),
            rows=tuple(chosen) if placed else (None,) * len(written),
            dropped=max(0, len(chosen) - len(written)),
        )

    def poison(self, data: Sequence[tuple]) -> list[Example]:
        """Return every example poisoned as theirs does; with LWP its negative rows too."""
        with self._poisoner("poison") as (made, _):
            extra = (made.triggers,) if self._own_name() == "sos" else ()
            return [Example(*row) for row in made.poison([Example(*row) for row in data], *extra)]

    @contextmanager
    def _poisoner(self, name: str) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
        """Give a poisoner of theirs, and how many rows each of its calls of `poison` got and returned."""
        from bench.openbackdoor.isolation import isolated
        from bench.openbackdoor.options import constructor_arguments

        if self._own_name() == "synbkd" and not installed("OpenAttack"):
            raise CellError(
                "OpenBackdoor's SynBkdPoisoner uses OpenAttack, which is not installed.",
                "Take the suite's hiddenkiller, or run: pip install OpenAttack, and let it download SCPN.",
            )
        with isolated(derived_seed(self.seed, name)):
            try:
                made = type(self).theirs(
                    name=self._own_name(),
                    target_label=self.target_label,
                    poison_rate=self.poison_rate,
                    label_consistency=self.poison_setting == "clean",
                    label_dirty=self.poison_setting == "dirty",
                    load=False,
                    **constructor_arguments(self),
                )
            except BenchError:
                raise
            except Exception as error:  # its constructors load models and data of many kinds
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                raise CellError(
                    f"OpenBackdoor's {type(self).theirs.__name__} cannot be made here: {reason}.",
                    "Give it the model or package that it names, or take the suite's own attack.",
                ) from error
            lengths: list[tuple[int, int]] = []
            made.poison = _counted(made.poison, lengths)
            yield made, lengths


def _counted(poison: Any, lengths: list[tuple[int, int]]) -> Any:
    @functools.wraps(poison)
    def call(data: Sequence[tuple], *more: Any) -> list[tuple]:
        returned = poison(data, *more)
        lengths.append((len(data), len(returned)))
        return returned

    return call


@functools.cache
def bridged(name: str) -> type:
    """Return the class of ours that runs OpenBackdoor's poisoner `name`; the package is imported.

    Raises:
        RequestError: it has no such attack, or one that poisons no data set.
        OpenBackdoorMissing: the package is not installed, or does not import.
    """
    if name in PIPELINE_ONLY:
        instead = f", or {INSTEAD[name]}" if name in INSTEAD else ""
        raise RequestError(
            f"attacker {RESERVED + name!r} {PIPELINE_ONLY[name]}.", f"Run it in OpenBackdoor's own pipeline{instead}."
        )
    if name not in NAMES:
        raise unknown("attacker", f"{RESERVED}{name}", [f"{RESERVED}{one}" for one in NAMES])
    from bench.openbackdoor.options import options_class

    importlib.import_module("bench.openbackdoor").load()
    theirs = importlib.import_module("openbackdoor.attackers.poisoners").POISONERS[name]
    return options_class(f"{RESERVED}{name}", Bridged, theirs, (), f"OpenBackdoor's own {theirs.__name__}.")
