"""Our defenses at training in OpenBackdoor's pipeline: a trainer that lets them wrap, hook and repair.

Its `attack()` gives a defender to nobody once the data are poisoned, so the defense is named where its pipeline looks
the trainer up (inside `bench.openbackdoor.registered()`), or given as an object:

    "train": {"name": "bench", "defense": {"name": "musclelora", "clean_samples": 32}, "lr": 2e-5, "epochs": 10}
    attacker.poison_trainer = trainer_class()(defense=MuScleLora(clean_samples=32), lr=2e-5, epochs=10)

It trains by our loop, the one of our grids, and refuses the settings that our loop does not have.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.core.errors import CellError, RequestError
from bench.core.example import Example, blinded
from bench.core.knowledge import Knowledge
from bench.core.options import build
from bench.core.registry import DEFENDERS, plugin_class
from bench.core.seeding import derived_seed, python_rng
from bench.openbackdoor.victims import as_ours

if TYPE_CHECKING:
    from bench.victim.victim import Victim

# Settings of its Trainer that our loop has at one value alone.
FIXED = {
    "weight_decay": 0.0,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "loss_function": "ce",
    "visualize": False,
}
ACTS = ("train", "repair")  # the stages of a defense that a trainer reaches


def bound(defender: Any, victim: Any, data: Mapping[str, Sequence[tuple]], seed: int = 0) -> Any:
    """Return a copy of a defender of ours that knows what it may, for `attack()` and `eval()` of its pipeline.

    Needed by a defense that acts before training (BKI, CUBE), since `attack()` gives it only the rows. Of `data`,
    the clean splits by name, it gets dev rows only; the pre-trained model is the `victim` as it is now.

    Raises:
        CellError: too few dev rows, or an option that the model does not allow.
    """
    return _bound(defender, as_ours(victim), data.get("dev") or (), seed)[0]


def _bound(defender: Any, victim: Victim, dev: Sequence[tuple], seed: int) -> tuple[Any, list[Example]]:
    """Return the defender bound to one half of the clean dev rows, and the other half, which selects a checkpoint."""
    filled = defender.for_model(victim.spec, "released")
    rows = blinded(dev)
    rows = [rows[i] for i in python_rng(seed, "dev").sample(range(len(rows)), len(rows))]
    selection, pool = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    needed = filled.samples()
    if needed > len(pool):
        raise CellError(
            f"Defender {filled.name!r} needs {needed} clean samples, and half of the dev split holds {len(pool)}.",
            "Lower its clean_samples, or take a data set with more dev rows.",
        )
    before = copy.deepcopy(victim) if {"cleanse", "repair"} & filled.stages() else None
    knowledge = Knowledge(
        classes=victim.classes,
        clean=tuple(pool[:needed]),
        calibration=tuple(pool[needed:]) if filled.calibrated else (),
        seed=derived_seed(seed, "defense"),
        device=str(victim.device),
        model=victim.spec,
        pretrained=None if before is None else lambda: copy.deepcopy(before),
    )
    return filled.bound(knowledge), selection


def _defender(defense: Any) -> Any:
    """Return the defense that a setting names.

    Raises:
        RequestError: there is none such, or it acts where no trainer reaches, so that it would not defend.
    """
    defender = _constructed(defense)
    elsewhere = sorted(defender.stages().difference(ACTS))
    if elsewhere:
        raise RequestError(
            f"Defense {defender.name!r} acts at {', '.join(elsewhere)}; a trainer applies {' and '.join(ACTS)} alone.",
            "Give it to attack() if it acts at cleanse, to eval() if at filter or detect: see docs/openbackdoor.md.",
        )
    return defender


def _constructed(defense: Any) -> Any:
    if isinstance(defense, str):
        defense = {"name": defense}
    if not isinstance(defense, Mapping):
        return defense
    name = defense.get("name")
    if not isinstance(name, str):
        raise RequestError(f"The defense {dict(defense)!r} has no name.", "Write {name: NAME, option: value}.")
    options = {key: value for key, value in defense.items() if key != "name"}
    return build(plugin_class(DEFENDERS, name), options, "defender", name)


class Training:
    """A trainer of victims, theirs or ours, with a defense of ours; it makes no folder and writes no checkpoint."""

    def __init__(
        self,
        name: str = "bench",
        lr: float = 2e-5,
        weight_decay: float = 0.0,
        epochs: int = 10,
        batch_size: int = 4,
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float = 1.0,
        warm_up_epochs: float = 3,
        ckpt: str = "best",
        save_path: str = "./models/checkpoints",
        loss_function: str = "ce",
        visualize: bool = False,
        poison_setting: str = "mix",
        poison_method: str = "Base",
        poison_rate: float = 0.01,
        defense: Any = "vanilla",
        seed: int = 0,
        **poisoner: Any,
    ) -> None:
        """Take the settings of its `Trainer`, a defense (a name, `{name, options}`, an object) and a seed.

        Its `load_attacker` hands the trainer the poisoner's settings too: all else is taken for one of them.

        Raises:
            RequestError: a setting that our loop does not have, or a defense that does not exist or acts elsewhere.
        """
        self.name, self.lr, self.weight_decay, self.epochs, self.batch_size = name, lr, weight_decay, epochs, batch_size
        self.gradient_accumulation_steps, self.max_grad_norm = gradient_accumulation_steps, max_grad_norm
        self.warm_up_epochs, self.ckpt, self.save_path = warm_up_epochs, ckpt, save_path
        self.loss_function, self.visualize = loss_function, visualize
        self.poison_setting, self.poison_method, self.poison_rate = poison_setting, poison_method, poison_rate
        self.defender, self.seed = _defender(defense), seed
        self.log: Any = None  # what the last training did
        self.decided: list[dict[str, Any]] = []  # and what its repair did
        for setting, value in FIXED.items():
            if getattr(self, setting) != value:
                raise RequestError(
                    f"Trainer {name!r} has {setting} {value!r}, not {getattr(self, setting)!r}.",
                    f"Leave {setting} out, or use OpenBackdoor's own trainer.",
                )
        if ckpt not in ("best", "last"):
            raise RequestError(f"ckpt is {ckpt!r}: it is 'best' or 'last'.", "Write one of them.")

    def train(self, model: Any, dataset: Mapping[str, Any], metrics: Sequence[str] = ("accuracy",)) -> Any:
        """Train `model` in place on `dataset["train"]` with the defense, and return it.

        `ckpt: best` keeps the weights with the best accuracy on half of `dev-clean`: poisoned dev rows select nothing,
        as in our grids. The other half is the defense's. A repair acts afterwards.

        Raises:
            CellError: too few dev rows for the defense, or what the training itself reports.
        """
        victim = as_ours(model)
        given = victim.spec
        victim.spec = dataclasses.replace(
            given,
            learning_rate=float(self.lr),
            learning_rate_pet=float(self.lr),
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup_epochs=float(self.warm_up_epochs),
        )
        try:
            self._train(victim, dataset)
        finally:
            victim.spec = given
        return model

    def _train(self, victim: Victim, dataset: Mapping[str, Any]) -> None:
        from bench.victim.training import train

        defender, selection = _bound(self.defender, victim, dataset.get("dev-clean") or (), self.seed)
        acting = defender.stages()
        hooks: Sequence[Any] = ()
        if "train" in acting:
            defender.wrap(victim)
            hooks = defender.hooks(defender.knowledge)
        self.log = train(
            victim,
            blinded(dataset["train"]),
            selection if self.ckpt == "best" else (),
            seed=derived_seed(self.seed, "train"),
            hooks=hooks,
        )
        if "repair" in acting:
            repaired = defender.repair(victim, defender.knowledge)
            self.decided = list(getattr(repaired, "repairs", []))
            if repaired is not victim:
                victim.load_state_dict(repaired.state_dict())


@functools.cache
def trainer_class() -> type:
    """Return our trainer as a real subclass of OpenBackdoor's `Trainer`.

    Raises:
        OpenBackdoorMissing: the package is not installed, or does not import.
    """
    theirs = importlib.import_module("bench.openbackdoor").Trainer
    return type("BenchTrainer", (Training, theirs), {"__doc__": Training.__doc__})
