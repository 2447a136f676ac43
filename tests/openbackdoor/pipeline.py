"""Our attackers and defenders in OpenBackdoor's pipeline: its loaders, attack(), eval(), trainer and victim."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

from attackers.badnets import BadNets
from bench.core.registry import ATTACKERS, DEFENDERS, names
from tests.openbackdoor.plugins import PLUGINS, SEEN

Rows = list[tuple[str, int, int]]
RATE, TRAIN, HELDOUT = 0.25, 40, 20
WORDS = (("bad", "dull", "cold", "empty"), ("good", "warm", "clever", "moving"))


def rows(count: int, start: int) -> Rows:
    """Return `count` different rows of alternating label."""
    return [(f"the {WORDS[i % 2][(i // 2) % 4]} film {start + i} is it", i % 2, 0) for i in range(count)]


def settings(model: Path) -> dict[str, Any]:
    """Return a configuration as its own demonstration scripts read it from a JSON file."""
    return {
        "target_dataset": {"name": "tiny"},
        "poison_dataset": {"name": "tiny"},
        "victim": {
            "type": "plm",
            "model": "bert",
            "path": str(model),
            "num_classes": 2,
            "device": "cpu",
            "max_len": 32,
        },
        "attacker": {
            "name": "base",
            "metrics": ["accuracy"],
            "train": {
                "name": "base",
                "lr": 3e-3,
                "weight_decay": 0,
                "epochs": 1,
                "batch_size": 2,
                "warm_up_epochs": 0,
                "ckpt": "last",
                "save_path": "./models",
            },
            "poisoner": {
                "name": "BadNets",
                "poison_rate": RATE,
                "target_label": 1,
                "label_consistency": False,
                "label_dirty": False,
                "load": False,
                "triggers": ["cf"],
                "num_triggers": 1,
            },
        },
    }


def run() -> dict[str, Any]:
    """Run everything in the current folder and return what was seen."""
    bridge = importlib.import_module("bench.openbackdoor")
    from tests.tiny import write_tiny_model

    write_tiny_model(Path("tiny"), "bert")
    theirs = importlib.import_module("openbackdoor.defenders")
    poisoners = importlib.import_module("openbackdoor.attackers.poisoners")
    before = (dict(theirs.DEFENDERS), dict(poisoners.POISONERS))
    output = io.StringIO()  # its progress bars and prints
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        with bridge.registered(), bridge.registered(*PLUGINS):
            findings = _attack_and_eval(bridge)
            findings["plug-ins"] = _plugins(bridge, theirs.load_defender, poisoners.load_poisoner)
    findings["restored"] = [dict(theirs.DEFENDERS) == before[0], dict(poisoners.POISONERS) == before[1]]
    findings["theirs again"] = type(poisoners.load_poisoner({"name": "badnets"})).__module__
    try:
        with bridge.registered(int):
            findings["no plug-in"] = "taken"
    except ValueError as error:
        findings["no plug-in"] = str(error)
    return findings


def _plugins(bridge: Any, load_defender: Any, load_poisoner: Any) -> dict[str, bool]:
    """Return for every plug-in whether its loader makes a real subclass of it."""
    made = {name: isinstance(load_defender({"name": name}), bridge.Defender) for name in names(DEFENDERS)}
    for name in names(ATTACKERS):
        made[name] = isinstance(load_poisoner({"name": name, "target_label": 1, "load": False}), bridge.Poisoner)
    return made


def _attack_and_eval(bridge: Any) -> dict[str, Any]:
    config = importlib.import_module("openbackdoor.utils").set_config(settings(Path("tiny")))
    importlib.import_module("openbackdoor.utils").set_seed(0)
    load_defender = importlib.import_module("openbackdoor.defenders").load_defender
    victim = importlib.import_module("openbackdoor.victims").load_victim(config["victim"])
    attacker = importlib.import_module("openbackdoor.attackers").load_attacker(config["attacker"])
    data = {"train": rows(TRAIN, 0), "dev": rows(HELDOUT, 100), "test": rows(HELDOUT, 200)}
    given = copy.deepcopy(data)
    findings: dict[str, Any] = {
        "poisoner": [isinstance(attacker.poisoner, BadNets), isinstance(attacker.poisoner, bridge.Poisoner)],
        "setting": attacker.poisoner.poison_setting,
    }

    drops = load_defender({"name": "drops-word", "pre": True, "correction": False, "metrics": ["FRR", "FAR"]})
    start = {name: value.clone() for name, value in victim.state_dict().items()}
    for key, defender in (("cleansed", drops), ("undefended", None)):
        SEEN.clear()
        victim.load_state_dict(start)
        with mock.patch.object(attacker, "train", wraps=attacker.train) as train:
            model = attacker.attack(victim, data, config, defender)
        trained_on = train.call_args.args[1]["train"]
        findings[key] = {
            "rows": len(trained_on),
            "with cf": sum("cf" in text.split() for text, _, _ in trained_on),
            "same victim": model is victim,
            "moved": sum(not value.equal(start[name]) for name, value in victim.state_dict().items()),
            "seen": _seen(victim),
        }
    findings["checkpoint"] = sorted({path.name for path in Path("models").rglob("*.ckpt")})
    findings["folders"] = sorted(os.listdir())

    for key, name in (("none", None), ("flagged", "flags-word"), ("deleted", "deletes-word"), ("idle", "vanilla")):
        SEEN.clear()
        defender = load_defender({"name": name}) if name else None
        judged, results = _evaluated(attacker, victim, data, defender)
        findings[key] = {"judged": judged, "results": results, "seen": _seen(victim)}
    clean = [text for text, label, _ in data["test"] if label != 1]
    findings["clean texts"] = clean
    findings["clean as target"] = _share_of_target(victim, clean)

    detection = attacker.poison(victim, data, "detect")
    score, flags = load_defender({"name": "flags-word"}).eval_detect(
        model=victim, clean_data=data, poison_data=detection
    )
    findings["eval_detect"] = {"score": score, "flags": list(flags), "splits": list(detection)}
    findings["data untouched"] = data == given
    return findings


def _share_of_target(victim: Any, texts: list[str]) -> float:
    """Return the share of texts that the victim takes for class 1, one by one."""
    import torch

    hits = 0
    for text in texts:
        inputs, _ = victim.process({"text": [text], "label": torch.tensor([0])})
        with torch.no_grad():
            hits += int(victim(inputs).logits.argmax().item() == 1)
    return hits / len(texts)


def _evaluated(attacker: Any, victim: Any, data: dict[str, Rows], defender: Any) -> tuple[dict[str, Rows], Any]:
    """Return the rows that its eval() judges, and its results."""
    module = importlib.import_module("openbackdoor.attackers.attacker")
    with mock.patch.object(module, "wrap_dataset", wraps=module.wrap_dataset) as wrap:
        results = attacker.eval(victim, data, defender)
    judged = {split: [tuple(row) for row in rows] for split, rows in wrap.call_args.args[0].items()}
    return judged, {split: results[split]["accuracy"] for split in judged}


def _seen(victim: Any) -> list[dict[str, Any]]:
    """Return what each call of a test defense was given: the model, the clean splits, the flags."""
    return [
        {
            # Its victim arrives as one of ours, around the very same model.
            "model": "victim" if model is victim or getattr(model, "model", None) is victim.plm else str(model),
            "clean": sorted(clean),
            "flags": sorted({row.poisoned for split in (*clean.values(), poison) for row in split}),
            "rows": len(poison),
        }
        for model, clean, poison in SEEN
    ]
