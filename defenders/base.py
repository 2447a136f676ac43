"""The contract of a defense: OpenBackdoor's three methods and the three hooks that it lacks.

A defense is one file: a frozen dataclass whose fields are its options. The stages at which it acts
are read off the methods it overrides.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bench.core.errors import CellError, RequestError
from bench.core.example import Example, blinded
from bench.core.knowledge import Knowledge
from bench.core.options import Count, Options, added

DETECTING = ("detect", "suspicion", "questions")
STAGE_OF_METHOD = {"wrap": "train", "hooks": "train", "repair": "repair", **dict.fromkeys(DETECTING, "detect")}
BLINDED = (*DETECTING, "correct")


class Suspicion(NamedTuple):
    """How suspicious each example is (`scores` [n], higher is worse) and above which score it is flagged."""

    scores: np.ndarray
    threshold: float

    def flags(self) -> np.ndarray:
        """Return 1 for each example above the threshold, as integers [n].

        Raises:
            CellError: the threshold is nan: nothing is above it. An infinite one may be.
        """
        if np.isnan(self.threshold).any():
            raise CellError(
                "The threshold of a suspicion is nan, and nothing is above or below that.",
                "Mend suspicion(): a quantile of no rows, or of scores that are nan, is nan.",
            )
        return (np.asarray(self.scores) > self.threshold).astype(int)


class DefenderContract:
    """Stands where OpenBackdoor's `Defender` stands once that package is imported."""


def _guarded(method: Any) -> Callable:
    """Wrap a method that is given examples: the defense sees poison flags of 0 and no test split.

    An oracle sees the flags. A victim of OpenBackdoor's arrives as one of ours around the same model. The method is as
    it stands in its class: a static one, a class method and a property that returns a function are wrapped too.
    """

    @functools.wraps(method)
    def call(self: Defender, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        shown = [Example(*row) for row in poison_data or ()] if self.oracle else blinded(poison_data or ())
        ready = method.__get__(self, type(self)) if hasattr(method, "__get__") else method
        return ready(_ours(model), _known(clean_data), shown)

    # Decorators copy the attributes of what they decorate, as `functools.wraps` does: one around a guard is no guard.
    call.guard = call
    return call


def is_guarded(method: Any) -> bool:
    """Tell whether a method of a class is a guard itself: a decorator around anything is none."""
    return getattr(method, "guard", None) is method


def _ours(model: Any) -> Any:
    if "openbackdoor.victims.victim" not in sys.modules:
        return model
    from bench.openbackdoor.victims import as_ours, is_theirs

    return as_ours(model) if is_theirs(model) else model


def _known(clean_data: Any) -> dict[str, list[Example]]:
    """Return the clean splits that a defense may see; a bare list counts as the dev split."""
    if clean_data is None:
        return {}
    splits = clean_data if isinstance(clean_data, Mapping) else {"dev": clean_data}
    return {name: blinded(rows) for name, rows in splits.items() if not name.startswith("test") and rows is not None}


@dataclass(frozen=True, kw_only=True)
class Defender(Options, DefenderContract):
    """Base class of every defense.

    `name`, `pre`, `correction` and `metrics` are class attributes; they are accepted as keywords
    too, as OpenBackdoor's `load_defender(config)` passes them, and must then say the same.
    """

    name: InitVar[str] = "base"
    pre: InitVar[bool] = False
    correction: InitVar[bool] = False
    metrics: InitVar[tuple] = ("FRR", "FAR")

    # Exactly so many labelled clean rows for method and calibration together, whatever the defense asks for by itself:
    # for boards of equal budget. A defense that uses none is one cell under every budget.
    clean_budget: Count | None = added(None)

    version: ClassVar[int] = 1  # raise it when the numbers of this defense change
    calibrated: ClassVar[bool] = False  # asks for clean dev rows to calibrate a threshold
    wants_victim: ClassVar[bool] = False  # a cleanser that works on the shared backdoored victim; may be a property
    filter_uses_model: ClassVar[bool] = True  # False: its `correct` reads texts alone, so every victim shares it
    # False, together with the former: its `correct` draws nothing either and treats each text by itself, so that every
    # attack shares what it makes of the clean test texts; may be a property.
    filter_is_drawn: ClassVar[bool] = True
    # Nothing of the backbone itself trains: trainings of this defense may share their passes over it.
    parameter_efficient: ClassVar[bool] = False
    oracle: ClassVar[bool] = False  # sees true poison flags; only bridged defenses do, and tables say so; or a property

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for method in BLINDED:
            found = inspect.getattr_static(cls, method)  # also one that a mixin brings
            if found is not Defender.__dict__[method] and not is_guarded(found):
                setattr(cls, method, _guarded(found))

    def __new__(cls, *arguments: Any, **options: Any) -> Defender:
        adopt_openbackdoor()
        return super().__new__(cls)

    def __post_init__(self, name: str, pre: bool, correction: bool, metrics: Sequence[str]) -> None:
        for attribute, given in (("name", name), ("pre", pre), ("correction", correction)):
            fixed, default = getattr(type(self), attribute), Defender.__dict__[attribute]
            if given not in (fixed, default) and str(given).lower() != str(fixed).lower():
                raise RequestError(
                    f"{attribute} of defender {type(self).name!r} is {fixed!r}, not {given!r}.",
                    f"Leave {attribute} out.",
                )
        if tuple(metrics) not in (tuple(type(self).metrics), Defender.metrics):
            raise RequestError(
                f"metrics of defender {type(self).name!r} are {', '.join(type(self).metrics)}, not {list(metrics)!r}.",
                "Leave metrics out.",
            )
        self._validate()
        if not self.samples() and not self.calibrated:
            object.__setattr__(self, "clean_budget", None)

    @classmethod
    def stages(cls) -> frozenset[str]:
        """Return the stages at which this defense acts: of cleanse, train, repair, filter, detect."""
        acting = {
            stage for method, stage in STAGE_OF_METHOD.items() if getattr(cls, method) is not getattr(Defender, method)
        }
        if cls.correct is not Defender.correct:
            acting.add("cleanse" if cls.pre else "filter")
        return frozenset(acting)

    def for_model(self, model: Any, recipe: str) -> Defender:
        """Return this defense with every option that it leaves to the model file or the recipe filled in."""
        return self

    def samples(self) -> int:
        """Return how many labelled clean rows the method itself needs."""
        return 0

    def place(self) -> Mapping[str, Any]:
        """Return the options that say where files of the user's lie: in the identity stands what the files hold."""
        return {}

    def pins(self) -> Mapping[str, str]:
        """Return the digests of what the numbers depend on besides the options, the version and this suite."""
        return {}

    def bound(self, knowledge: Knowledge) -> Defender:
        """Return a copy that carries what it may know; options and identity stay the same."""
        clone = copy.copy(self)
        object.__setattr__(clone, "_knowledge", knowledge)
        return clone

    @property
    def knowledge(self) -> Knowledge:
        """What this defense was bound to.

        Raises:
            CellError: it was never bound.
        """
        known = self.__dict__.get("_knowledge")
        if known is None:
            raise CellError(
                f"Defender {type(self).name!r} was not given what it may know.", "Call bound(knowledge) first."
            )
        return known

    def wrap(self, victim: Any) -> None:
        """Change `victim` in place before its optimizer exists: add modules, freeze parameters."""

    def hooks(self, knowledge: Knowledge) -> Sequence[Any]:
        """Return objects with `on_gradients(run, batch)`, called after backward and before clipping."""
        return ()

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Return the repaired victim; `victim` is a copy that may be changed."""
        return victim

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return 0 (let pass) or 1 (flag) for each example of `poison_data`, in its order."""
        if gives_scores(type(self)):
            return self.suspicion(model, clean_data, poison_data).flags()
        return [0] * len(poison_data)

    def suspicion(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Suspicion:
        """Return a score per example of `poison_data` and the threshold.

        A detector writes one of `detect`, this, and `questions`.
        """
        if type(self).questions is Defender.questions:
            return Suspicion(np.zeros(len(poison_data)), np.inf)
        from bench.victim.questions import answered

        return answered(_ours(model), self.questions(model, clean_data, poison_data))

    def questions(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return a generator that returns what `suspicion` does, and yields what it asks of `model` on the way.

        What can be asked is in bench/victim/questions.py; victims over one backbone answer together. This one asks
        nothing.
        """
        yield from ()
        return self.suspicion(model, clean_data, poison_data)

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> Any:
        """Return the corrected examples: a subset of a training split (pre), or rewritten texts of the same length."""
        return poison_data

    def eval_detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> tuple[dict, Any]:
        """Return the detection metrics by split, and the flags of the last split, as OpenBackdoor does.

        The true flags are read here, after `detect` has answered on blinded examples.
        """
        from bench.core.metrics import detection_rates

        scores, flags = {}, []
        for split, examples in poison_data.items():
            flags = self.detect(model, clean_data, examples)
            scores[split] = detection_rates(flags, [poisoned for _, _, poisoned in examples])
        return scores, flags

    def get_target_label(self, data: Any) -> int:
        """Refuse: OpenBackdoor reads the target label off the true poison flags here."""
        raise CellError(
            f"Defender {type(self).name!r} asked for the target label of the test data.", "Make the label an option."
        )


def gives_scores(cls: type[Defender]) -> bool:
    """Tell whether a class of defenses says how suspicious an example is, and not only whether it is."""
    return cls.suspicion is not Defender.suspicion or cls.questions is not Defender.questions


def asks_questions(cls: type[Defender]) -> bool:
    """Tell whether `questions` is all that a class does to detect: no class below has a `suspicion` or `detect`."""
    written = (name for base in cls.__mro__ for name in ("questions", *DETECTING) if name in vars(base))
    return cls.questions is not Defender.questions and next(written) == "questions"


def adopt_openbackdoor() -> None:
    """Make `Defender` a subclass of OpenBackdoor's once that package has been imported by somebody."""
    module = sys.modules.get("openbackdoor.defenders.defender")
    theirs = getattr(module, "Defender", None)
    if theirs is not None and not issubclass(Defender, theirs):
        Defender.__bases__ = (Options, theirs)


adopt_openbackdoor()  # it may have been imported before this module
