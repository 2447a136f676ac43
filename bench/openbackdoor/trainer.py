"""Our defenses at training in OpenBackdoor's pipeline: a trainer that lets them wrap, hook and repair.

Its `attack()` hands a defender to nobody once the data are poisoned, so the defense is named where its pipeline looks
the trainer up, or given as an object:

    "train": {"name": "bench", "defense": {"name": "musclelora", "clean_samples": 32}, "lr": 2e-5, "epochs": 10, ...}
    attacker.poison_trainer = bench.openbackdoor.trainer.trainer_class()(defense=MuScleLora(), **config)

It trains by our loop (the same as in our grids), so what that loop has no setting for is refused.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.core.errors import RequestError
from bench.core.example import Example, blinded
from bench.core.knowledge import Knowledge
from bench.core.options import build
from bench.core.registry import DEFENDERS, plugin_class
from bench.core.seeding import derived_seed, python_rng
from bench.openbackdoor.victims import as_ours

if TYPE_CHECKING:
    from bench.victim.victim import Victim

FIXED = {
    "weight_decay": 0.0,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "loss_function": "ce",
    "visualize": False,
}


def bound(defender: Any, victim: Any, data: Mapping[str, Sequence[tuple]], seed: int = 0) -> Any:
    """Return a copy of a defender of ours that knows what it may, for `attack()` and `eval()` of its pipeline.

    `data` is the clean data set as its pipeline has it; of that the defender gets dev rows only. It needs this when it
    acts before training (BKI, CUBE) or takes its clean rows from its knowledge. A `victim` that is trained later is
    copied first: what the defender starts from is the victim as it is now.
    """
    return _bound(defender, as_ours(victim), data.get("dev") or (), seed)[0]


def _bound(defender: Any, victim: Victim, dev: Sequence[tuple], seed: int) -> tuple[Any, list[Example]]:
    """Return the defender bound to half of the clean dev rows, and the other half, which selects a checkpoint."""
    filled = defender.for_model(victim.spec, "released")
    rows = blinded(dev)
    rows = [rows[i] for i in python_rng(seed, "dev").sample(range(len(rows)), len(rows))]
    selection, pool = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    needed = filled.samples()
    if needed > len(pool):
        raise RequestError(
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
    if isinstance(defense, str):
        defense = {"name": defense}
    if not isinstance(defense, Mapping):
        return defense
    name = defense.get("name")
    if not isinstance(name, str):
        raise RequestError(f"The defense {dict(defense)!r} has no name.", "Write {name: NAME, option: value}.")
    options = {key: value for key, value in defense.items() if key != "name"}
    return build(plugin_class(DEFENDERS, name), options, "defender", name)


@functools.cache
def trainer_class() -> type:
    """Return our trainer, a real subclass of OpenBackdoor's `Trainer`.

    Raises:
        OpenBackdoorMissing: the package is not installed, or does not import.
    """
    theirs = importlib.import_module("bench.openbackdoor").Trainer

    class DefendedTrainer(theirs):
        """Trains a victim, theirs or ours, with a defense of ours; no folder is made and no checkpoint written."""

        def __init__(
            self,
            defense: Any = "vanilla",
            name: str = "bench",
            lr: float = 2e-5,
            epochs: int = 10,
            batch_size: int = 4,
            warm_up_epochs: float = 3,
            ckpt: str = "best",
            seed: int = 0,
            **config: Any,
        ) -> None:
            """Take its `Trainer`'s settings, the defense (a name, `{name, options}` or an object), and a seed.

            Everything else is the poisoner's: its `load_attacker` hands both sections of a configuration to this.

            Raises:
                RequestError: a setting that our loop does not have, or a defense that does not exist.
            """
            for setting, value in FIXED.items():
                if config.get(setting, value) != value:
                    raise RequestError(
                        f"Trainer 'bench' has {setting} {value!r}, not {config[setting]!r}.", f"Leave {setting} out."
                    )
            if ckpt not in ("best", "last"):
                raise RequestError(f"ckpt is {ckpt!r}: it is 'best' or 'last'.", "Write one of them.")
            self.name, self.lr, self.epochs, self.batch_size = name, lr, epochs, batch_size
            self.warm_up_epochs, self.ckpt, self.seed = warm_up_epochs, ckpt, seed
            self.save_path = config.get("save_path", "./models/checkpoints")
            for setting, value in FIXED.items():
                setattr(self, setting, value)
            self.defender = _defender(defense)
            self.log: Any = None  # what the last training did

        def train(self, model: Any, dataset: Mapping[str, Any], metrics: Sequence[str] = ("accuracy",)) -> Any:
            """Train `model` in place on `dataset["train"]` with the defense, and return it.

            `ckpt: best` keeps the weights with the best accuracy on half of `dev-clean`; the poisoned dev rows
            select nothing, as in our grids. A repair acts afterwards. A defense that acts at neither changes nothing.
            """
            settings = {
                "learning_rate": float(self.lr),
                "learning_rate_pet": float(self.lr),
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "warmup_epochs": float(self.warm_up_epochs),
            }
            victim = as_ours(model)
            given = victim.spec
            victim.spec = dataclasses.replace(given, **settings)
            try:
                self._train(victim, dataset)
            finally:
                victim.spec = given
            return model

        def _train(self, victim: Victim, dataset: Mapping[str, Any]) -> None:
            from bench.victim.training import train

            dev = dataset.get("dev-clean") or dataset.get("dev") or ()
            defender, selection = _bound(self.defender, victim, dev, self.seed)
            acting = defender.stages()
            if "train" in acting:
                defender.wrap(victim)
            hooks = defender.hooks(defender.knowledge) if "train" in acting else ()
            self.log = train(
                victim,
                blinded(dataset["train"]),
                selection if self.ckpt == "best" else (),
                seed=derived_seed(self.seed, "train"),
                hooks=hooks,
            )
            if "repair" in acting:
                repaired = defender.repair(victim, defender.knowledge)
                if repaired is not victim:
                    victim.load_state_dict(repaired.state_dict())

    return DefendedTrainer
