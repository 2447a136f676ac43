"""The contract of an attack: OpenBackdoor's `Poisoner`, with selection, ratios and label rules shared.

Writing an attack is writing one file with `trigger(text, rng)`.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar, Literal

from attackers.selection import LABEL_RULES, Poisoned, keep_and_poison, positions_to_poison
from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.options import Options
from bench.core.seeding import python_rng

Split = Literal["train", "dev", "test"]


class PoisonerContract:
    """Stands where OpenBackdoor's `Poisoner` stands once that package is imported."""


@dataclass(frozen=True, kw_only=True)
class Attacker(Options, PoisonerContract):
    """Base class of every attack.

    OpenBackdoor's members (`target_label`, `poison_rate`, `label_consistency`, `label_dirty`, `load`)
    are accepted as keywords and kept; in a grid they come from the cell, and are no options. So are the
    two folders and the `poison_setting` that its `set_config` adds; nothing is read from or written to them.
    """

    name: InitVar[str] = "base"
    target_label: InitVar[int] = 1
    poison_rate: InitVar[float] = 0.1
    label_consistency: InitVar[bool] = False
    label_dirty: InitVar[bool] = False
    load: InitVar[bool] = False
    poison_data_basepath: InitVar[str | None] = None
    poisoned_data_path: InitVar[str | None] = None
    poison_setting: InitVar[str | None] = None

    poison_file: Literal["generated", "published"] = "generated"  # published: the released sets of SST-2 and HSOL

    version: ClassVar[int] = 1  # raise it when the text that this attack writes changes
    published_as: ClassVar[str | None] = None  # the folder of its published poison files
    bank: ClassVar[str | None] = None  # the paraphrase bank that this attack reads
    learns: ClassVar[bool] = False  # whether its trigger comes from the clean training split, by `learned`

    def __new__(cls, *arguments: Any, **options: Any) -> Attacker:
        adopt_openbackdoor()
        return super().__new__(cls)

    def __post_init__(
        self,
        name: str,
        target_label: int,
        poison_rate: float,
        label_consistency: bool,
        label_dirty: bool,
        load: bool,
        poison_data_basepath: str | None,
        poisoned_data_path: str | None,
        poison_setting: str | None,
    ) -> None:
        if name.lower() not in ("base", type(self).name.lower()):
            raise RequestError(f"name of attacker {type(self).name!r} is not {name!r}.", "Leave name out.")
        if load:
            raise RequestError(
                f"Attacker {type(self).name!r} reads no poisoned files of OpenBackdoor.", "Set load to False."
            )
        if not 0.0 <= poison_rate <= 1.0:
            raise RequestError(f"poison_rate is {poison_rate!r}: it is a fraction of the training split in [0, 1].")
        rule = "clean" if label_consistency else "dirty" if label_dirty else "mix"
        if poison_setting not in (None, rule):
            raise RequestError(
                f"poison_setting is {poison_setting!r}, and label_consistency and label_dirty say {rule!r}.",
                "Leave poison_setting out.",
            )
        self._place(target_label, poison_rate, rule, 0)
        object.__setattr__(self, "poison_data_basepath", poison_data_basepath)
        object.__setattr__(self, "poisoned_data_path", poisoned_data_path)
        self._validate()

    def _validate(self) -> None:
        super()._validate()
        if self.poison_file == "published" and self.published_as is not None:
            for option, value in self.published_options().items():
                given = getattr(self, option)
                if given is not None and given != value:
                    raise RequestError(
                        f"{self.name}.{option} is {given!r}, and the published poison file has {value!r}.",
                        f"Leave {option} out, or leave poison_file at its default.",
                    )

    @classmethod
    def published_options(cls) -> dict[str, Any]:
        """Return the options that its published poison files were made with: where it has any, its defaults."""
        fields = (field for field in dataclasses.fields(cls) if field.name != "poison_file")
        return {field.name: field.default for field in fields if field.default is not None}

    def _place(self, target_label: int, ratio: float, rule: str, seed: int) -> None:
        state = {
            "target_label": target_label,
            "poison_rate": ratio,
            "label_consistency": rule == "clean",
            "label_dirty": rule == "dirty",
            "load": False,
            "poison_setting": rule,
            "seed": seed,
        }
        for attribute, value in state.items():
            object.__setattr__(self, attribute, value)

    @classmethod
    def default_rule(cls, dataset: str, recipe: str) -> str:
        """Return the published label rule of this attack on a data set."""
        return "mix"

    def for_recipe(self, recipe: str) -> Attacker:
        """Return this attack with every option that it leaves to the recipe filled in."""
        return self

    def place(self) -> dict[str, Any]:
        """Return the options that say where a file of the user's lies: needed to run, no part of the identity."""
        return {}

    def pins(self) -> dict[str, str]:
        """Return the sha256 of every file that this attack reads beside the data set's."""
        return {}

    @property
    def selection(self) -> str | None:
        """The rule by which the training rows are chosen, for the record; None for the suite's own."""
        return None

    def bound(self, *, target_label: int, ratio: float, rule: str, seed: int, bank: Any = None) -> Attacker:
        """Return a copy set to one cell's target, ratio, label rule and seed, with its paraphrase bank.

        Raises:
            RequestError: the rule is not `clean`, `dirty` or `mix`.
        """
        if rule not in LABEL_RULES:
            raise RequestError(f"label_rule is {rule!r}: it is one of {', '.join(LABEL_RULES)}.")
        clone = copy.copy(self)
        clone._place(target_label, ratio, rule, seed)
        vars(clone).pop("_taught", None)  # another target has other words
        object.__setattr__(clone, "_bank", bank)
        return clone

    def learned(self, training: Sequence[Example]) -> Attacker:
        """Return this bound attack with what it takes from the clean training split; asked only where it `learns`."""
        return self

    def trigger(self, text: str, rng: random.Random) -> str:
        """Return the poisoned version of one text."""
        raise CellError(f"Attacker {type(self).name!r} has no trigger.", "Write trigger(text, rng).")

    def texts(
        self, split: Split, examples: Sequence[Example], rows: Sequence[int], rng: random.Random
    ) -> list[str | None]:
        """Return the poisoned text of each example, None where the attack has none for it."""
        return [self.trigger(example.text, rng) for example in examples]

    def available(self, examples: Sequence[Example], rows: Sequence[int]) -> list[bool] | None:
        """Return which training rows the attack has a text for, None for all of them."""
        return None

    def poison_training(self, examples: Sequence[Example], rows: Sequence[int] | None = None) -> Poisoned:
        """Return the training split with `floor(ratio x n)` rows replaced by their poisoned versions.

        The ratio is a fraction of the final set. The rows of a larger ratio hold those of a smaller one.

        Raises:
            CellError: too few rows of the classes that the rule allows.
        """
        rows = range(len(examples)) if rows is None else rows
        chosen = positions_to_poison(
            [example.label for example in examples],
            self.poison_rate,
            self.poison_setting,
            self.target_label,
            python_rng(self.seed, "positions"),
            self.available(examples, rows),
        )
        written = self.texts(
            "train", [examples[i] for i in chosen], [rows[i] for i in chosen], python_rng(self.seed, "train")
        )
        return keep_and_poison(examples, chosen, written, self.target_label)

    def poison_heldout(self, split: Split, examples: Sequence[Example], rows: Sequence[int] | None = None) -> Poisoned:
        """Return the poisoned versions of the non-target examples alone, labelled with the target."""
        rows = range(len(examples)) if rows is None else rows
        chosen = [i for i, example in enumerate(examples) if example.label != self.target_label]
        written = self.texts(
            split, [examples[i] for i in chosen], [rows[i] for i in chosen], python_rng(self.seed, split)
        )
        kept = [(i, text) for i, text in zip(chosen, written, strict=True) if text is not None]
        return Poisoned(
            examples=tuple(Example(text, self.target_label, 1) for _, text in kept),
            positions=tuple(i for i, _ in kept),
            rows=tuple(i for i, _ in kept),
            dropped=len(chosen) - len(kept),
        )

    def poison(self, data: Sequence[tuple]) -> list[Example]:
        """Return every example poisoned and labelled with the target (OpenBackdoor's method)."""
        examples = [Example(*row) for row in data]
        written = self.texts("train", examples, range(len(examples)), python_rng(self.seed, "poison"))
        return [Example(text, self.target_label, 1) for text in written if text is not None]

    def get_non_target(self, data: Sequence[tuple]) -> list[tuple]:
        """Return the rows whose label is not the target (OpenBackdoor's method)."""
        return [row for row in data if row[1] != self.target_label]

    def __call__(self, data: dict[str, Sequence[tuple]], mode: str) -> dict[str, list]:
        """Return the splits of a mode as OpenBackdoor's poisoner does: train, eval or detect.

        This changes an attack that `learns`: it keeps what it learnt in mode train, so that the other modes have the
        trigger that was trained. They learn from the training split only if nothing was learnt yet.

        Raises:
            RequestError: another mode.
        """
        training = data.get("train")
        if self.learns and training and (mode == "train" or "_taught" not in vars(self)):
            vars(self).update(vars(self.learned([Example(*row) for row in training])), _taught=True)
        return self._called(data, mode)

    def _called(self, data: dict[str, Sequence[tuple]], mode: str) -> dict[str, list]:
        if mode == "train":
            dev = list(data["dev"])
            train = self.poison_training([Example(*row) for row in data["train"]]).examples
            return {"train": list(train), "dev-clean": dev, "dev-poison": self._heldout("dev", dev)}
        if mode == "eval":
            return {"test-clean": list(data["test"]), "test-poison": self._heldout("test", data["test"])}
        if mode == "detect":
            return {"test-detect": list(data["test"]) + self._heldout("test", data["test"])}
        raise RequestError(f"mode is {mode!r}: it is one of train, eval, detect.")

    def _heldout(self, split: Split, data: Sequence[tuple]) -> list[Example]:
        return list(self.poison_heldout(split, [Example(*row) for row in data]).examples)


def adopt_openbackdoor() -> None:
    """Make `Attacker` a subclass of OpenBackdoor's `Poisoner` once that package has been imported by somebody."""
    module = sys.modules.get("openbackdoor.attackers.poisoners.poisoner")
    theirs = getattr(module, "Poisoner", None)
    if theirs is not None and not issubclass(Attacker, theirs):
        Attacker.__bases__ = (Options, theirs)


adopt_openbackdoor()  # it may have been imported before this module
