"""Our defenses, those at training included, in OpenBackdoor's pipeline, on its victim and on ours."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from pathlib import Path
from typing import Any

from tests.openbackdoor.pipeline import HELDOUT, TRAIN, rows, settings

SMALL = {"clean_samples": 4}
DEFENSES: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "lora": {"rank": 2},
    "musclelora": SMALL,
    "ga": SMALL,
    "e-pur": {"words": 3},
    "strip": {"repeat": 2, "frr": 0.9},  # rejects most texts
    "onion": {"lm": "gpt2"},
    "bki": {"victim": "own"},
}
BEFORE = ("bki",)  # acts before the training
INFERENCE = ("strip", "onion")


def run() -> dict[str, Any]:
    """Run each defense in the current folder and return what came out."""
    bridge = importlib.import_module("bench.openbackdoor")
    from tests.tiny import write_tiny_model

    write_tiny_model(Path("tiny"), "bert")
    write_tiny_model(Path("gpt2"), "gpt2")
    files = sorted(os.listdir())
    findings: dict[str, Any] = {}
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), bridge.registered():
        for name, options in DEFENSES.items():
            findings[name] = _attacked(name, options, ours=False)
        findings["files"] = sorted(set(os.listdir()) - set(files))
        findings["ours"] = {name: _attacked(name, DEFENSES[name], ours=True) for name in ("lora", "strip")}
        findings["their trainer"] = _attacked("strip", DEFENSES["strip"], ours=True, trainer="base")
        findings["subclass"] = issubclass(type(_attacker("vanilla", {}).poison_trainer), bridge.Trainer)
    findings["restored"] = "bench" not in importlib.import_module("openbackdoor.trainers").TRAINERS
    return findings


def _config(name: str, options: dict[str, Any], trainer: str) -> dict[str, Any]:
    config = settings(Path("tiny"))
    poisoner = {"poison_data_basepath": None, "poisoned_data_path": None, "poison_setting": "mix"}
    config["attacker"]["poisoner"].update(poisoner)
    train = {"name": trainer, "batch_size": 8, "ckpt": "best"}
    config["attacker"]["train"].update(train)
    if trainer == "bench" and name not in BEFORE + INFERENCE:  # those it would refuse
        config["attacker"]["train"]["defense"] = {"name": name, **options}
    return config


def _attacker(name: str, options: dict[str, Any], trainer: str = "bench") -> Any:
    config = _config(name, options, trainer)
    return importlib.import_module("openbackdoor.attackers").load_attacker(config["attacker"])


def _attacked(name: str, options: dict[str, Any], *, ours: bool, trainer: str = "bench") -> dict[str, Any]:
    from bench.openbackdoor.trainer import bound
    from bench.victim.loading import load_victim
    from bench.victim.spec import model_spec

    importlib.import_module("openbackdoor.utils").set_seed(0)
    config = _config(name, options, trainer)
    if ours:
        victim = load_victim(model_spec("tiny"), 2, seed=0)
    else:
        victim = importlib.import_module("openbackdoor.victims").load_victim(config["victim"])
    data = {"train": rows(TRAIN, 0), "dev": rows(HELDOUT, 100), "test": rows(HELDOUT, 200)}
    attacker = _attacker(name, options, trainer)
    defender = importlib.import_module("openbackdoor.defenders").load_defender({"name": name, **options})
    if name in BEFORE:
        defender = bound(defender, victim, data)
    start = {key: value.detach().clone() for key, value in victim.plm.named_parameters()}
    model = attacker.attack(victim, data, config, defender)
    found = attacker.eval(model, data, defender)
    now = dict(model.plm.named_parameters())
    log = getattr(attacker.poison_trainer, "log", None)
    return {
        "same": model is victim,
        "results": {split: found[split]["accuracy"] for split in ("test-clean", "test-poison")},
        "moved": sorted(key for key, value in now.items() if key in start and not value.equal(start[key])),
        "inserted": sorted(set(now) - set(start)),
        "kept": sum(key in start and value.equal(start[key]) for key, value in now.items()),
        "head": float(now["classifier.weight"].abs().sum()),
        "steps": None if log is None else log.steps,
        "decided": len(getattr(attacker.poison_trainer, "decided", [])),
    }
