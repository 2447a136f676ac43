"""OpenBackdoor's own defenders in our grids: `openbackdoor:strip`, `rap`, `onion`, `bki` and `cube`.

What they compute is their code's, bugs included (our `strip`, `rap` ... list them); a defender works on a copy of the
victim, in a folder of its own and with random numbers from its stage. Differs from its own pipeline:
* STRIP and RAP calibrate on our calibration rows, not on the whole dev split. RAP asks for the target label, which that
  code reads off the true poison flags: it gets them, and its rows are printed as "oracle", as are those of STRIP with
  `use_oppsite_set`. RAP's embedding trains on the copy also where the victim's is frozen.
* ONION rewrites (by its own configuration `correction` is off, and it then does nothing); texts of one word, which it
  drops, are kept as they are. Its language model is `lm`, as in our `onion`. It uses one device.
* BKI and CUBE train a fresh copy of the cell's own model in place of the hub's `bert-base-uncased` and `roberta-base`.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.core.errors import CellError, unknown
from bench.core.example import Example
from bench.core.options import Text
from bench.core.registry import RESERVED
from bench.victim.spec import Commit, ModelSpec
from defenders.base import Defender
from defenders.calibration import known
from defenders.onion import DEFAULT, LOCAL, Onion, lm_place

LEFT_OUT = ("num_classes", "model_name", "model_path", "parallel")  # filled in here
MODELS = ("bki_model", "encoder")  # where BKI and CUBE keep the model that they train


@dataclass(frozen=True, kw_only=True)
class Bridged(Defender):
    """Base of the bridged defenders; `theirs` is OpenBackdoor's class, whose constructor's parameters are options."""

    theirs: ClassVar[type]

    def pins(self) -> Mapping[str, str]:
        """Return the digest of the package's source: another version of it makes other stages."""
        from bench.openbackdoor.options import source_digest

        return source_digest()

    def _made(self, filled: Mapping[str, Any]) -> Any:
        """Return a new defender of theirs; it may ask for the target label only if it is an oracle."""
        from bench.openbackdoor.options import constructor_arguments

        name = type(self).name.removeprefix(RESERVED)
        given = constructor_arguments(self)
        made = type(self).theirs(name=name, pre=self.pre, correction=self.correction, **given, **filled)
        if not self.oracle:
            made.get_target_label = self.get_target_label
        return made


@dataclass(frozen=True, kw_only=True)
class Detector(Bridged):
    """STRIP and RAP: acts at inference and needs labelled clean dev rows."""

    calibrated = True

    @property
    def oracle(self) -> bool:
        """Whether it reads the target label off the true poison flags: RAP always, STRIP with `use_oppsite_set`."""
        return type(self).name == f"{RESERVED}rap" or bool(getattr(self, "use_oppsite_set", False))

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> np.ndarray:
        """Return the flags that theirs gives, integers [n]; `model` stays as it is.

        Raises:
            CellError: there are no clean dev rows.
        """
        from bench.openbackdoor.isolation import isolated

        dev = list(clean_data.get("dev") or known(self).calibration)
        if not dev:
            raise CellError(f"Defense {type(self).name!r} needs clean dev rows.", "Take a data set with a dev split.")
        lent = copy.deepcopy(model)
        lent.word_embedding.requires_grad_(True)
        with isolated(known(self).seed, model.device):
            flags = self._made({}).detect(model=lent, clean_data={"dev": dev}, poison_data=list(poison_data))
        return np.asarray(flags).astype(int)


@dataclass(frozen=True, kw_only=True)
class Rewriter(Bridged):
    """ONION: deletes words of test texts that make them less plausible to a GPT-2, `lm` (hub id or local folder)."""

    correction = True
    filter_uses_model = False

    lm: Text = DEFAULT[0]
    revision: Commit | None = None
    lm_files: Text | None = None

    def for_model(self, model: Any, recipe: str) -> Rewriter:
        """Return a copy with the pin of the language model filled in.

        Raises:
            CellError: there is no such language model, or it is `local`, which is no GPT-2 in a folder.
        """
        pinned = self._onion().for_model(model, recipe)
        return replace(self, revision=pinned.revision, lm_files=pinned.lm_files)

    def identity(self) -> dict[str, Any]:
        """Return the options; of a folder with a language model the digest of its files, not where it lies."""
        return {**super().identity(), **({"lm": self.lm_files} if self.place() else {})}

    def place(self) -> dict[str, Any]:
        """Return where the folder with the language model lies, as options."""
        return lm_place(self.lm, self.revision, self.lm_files)

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the examples in order, those of two words or more as theirs rewrites them."""
        from bench.openbackdoor.isolation import isolated

        folder = lm_folder(self._onion().lm_spec())
        device = getattr(model, "device", None) or known(self).device
        long = [place for place, (text, *_) in enumerate(poison_data) if len(text.split()) > 1]
        rewritten = list(poison_data)
        with isolated(known(self).seed, device, {"gpt2": folder}):
            made = self._made({"parallel": False})
            made.LM.device, made.LM.lm = made.LM.device.__class__(device), made.LM.lm.to(device).eval()
            texts = made.correct(poison_data=[poison_data[place] for place in long])
        for place, row in zip(long, texts, strict=True):
            rewritten[place] = Example(*row)
        return rewritten

    def _onion(self) -> Onion:
        if self.lm == LOCAL:
            raise CellError(f"{type(self).name} reads a GPT-2, and lm is {LOCAL!r}.", "Name a folder or a hub id.")
        return Onion(lm=self.lm, revision=self.revision, lm_files=self.lm_files)


@dataclass(frozen=True, kw_only=True)
class Cleanser(Bridged):
    """BKI and CUBE: removes training rows, by a model of the cell's kind that it trains on them."""

    pre = True

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the rows that theirs keeps, in its order."""
        from bench.openbackdoor.isolation import isolated
        from bench.openbackdoor.victims import as_ours
        from bench.victim.loading import checked_folder

        knowledge = self.knowledge
        folder = checked_folder(knowledge.model).resolve()
        with isolated(knowledge.seed, knowledge.device):
            made = self._made({"num_classes": knowledge.classes, "model_path": str(folder)})
            for attribute in MODELS:
                victim = getattr(made, attribute, None)
                if victim is not None:
                    ours = as_ours(victim)
                    victim.model_name = victim.plm.base_model_prefix
                    victim.max_len = victim.tokenizer.model_max_length = ours.max_length
                    victim.device = victim.device.__class__(knowledge.device)
                    victim.to(victim.device)
            return [Example(*row) for row in made.correct(poison_data=list(poison_data))]


BASES: dict[str, type[Bridged]] = {
    "strip": Detector,
    "rap": Detector,
    "onion": Rewriter,
    "bki": Cleanser,
    "cube": Cleanser,
}
NAMES = tuple(BASES)


def lm_folder(spec: ModelSpec) -> Path:
    """Return the folder of the language model that ONION is to read with.

    Raises:
        CellError: it is neither here nor to be had from the hub.
    """
    from bench.victim.loading import checked_folder

    try:
        return checked_folder(spec)
    except CellError as error:
        remedy = "Set lm to a folder with GPT-2, openbackdoor:onion(lm=FOLDER), or let this machine reach the hub."
        raise CellError(error.problem, remedy) from error


@functools.cache
def bridged(name: str) -> type:
    """Return the class of ours that runs OpenBackdoor's defender `name`; the package is imported.

    Raises:
        RequestError: it has no such defender.
        OpenBackdoorMissing: the package is not installed, or does not import.
    """
    if name not in BASES:
        raise unknown("defender", f"{RESERVED}{name}", [f"{RESERVED}{one}" for one in BASES])
    from bench.openbackdoor.options import options_class

    importlib.import_module("bench.openbackdoor").load()
    theirs = importlib.import_module("openbackdoor.defenders").DEFENDERS[name]
    about = f"OpenBackdoor's own {theirs.__name__}."
    return options_class(f"{RESERVED}{name}", BASES[name], theirs, LEFT_OUT, about)
