"""OpenBackdoor's interface at 1192ba3 as its callers see it, and reading the same off a class."""

from __future__ import annotations

import inspect
from typing import Any

REQUIRED = "(required)"
DATA = {"model": None, "clean_data": None, "poison_data": None}
SHARED = {"target_label": 0, "poison_rate": 0.1, "label_consistency": False, "label_dirty": False, "load": False}

# Class -> method -> parameter -> default, without `self`; what a constructor takes besides is not listed.
SIGNATURES: dict[str, dict[str, dict[str, Any]]] = {
    "Defender": {
        "__init__": {"name": "Base", "pre": False, "correction": False, "metrics": ["FRR", "FAR"]},
        "detect": DATA,
        "correct": DATA,
        "eval_detect": DATA,
        "get_target_label": {"data": REQUIRED},
    },
    "Poisoner": {
        "__init__": {"name": "Base", **SHARED, "poison_data_basepath": None, "poisoned_data_path": None},
        "__call__": {"data": REQUIRED, "mode": REQUIRED},
        "poison": {"data": REQUIRED},
        "get_non_target": {"data": REQUIRED},
    },
    "Victim": {"forward": {"inputs": REQUIRED}, "process": {"batch": REQUIRED}},
    "Trainer": {
        "__init__": {
            "name": "Base",
            "lr": 2e-5,
            "weight_decay": 0.0,
            "epochs": 10,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_grad_norm": 1.0,
            "warm_up_epochs": 3,
            "ckpt": "best",
            "save_path": "./models/checkpoints",
            "loss_function": "ce",
            "visualize": False,
            "poison_setting": "mix",
            "poison_method": "Base",
            "poison_rate": 0.01,
        },
        "train": {"model": REQUIRED, "dataset": REQUIRED, "metrics": ["accuracy"]},
    },
}
# Where ours says otherwise: our banks serve target 1, and a trainer of ours has a name of its own.
OURS = {
    "Defender": {"name": "base", "metrics": ("FRR", "FAR")},
    "Poisoner": {"name": "base", "target_label": 1},
    "Trainer": {"name": "bench", "metrics": ("accuracy",)},
    "Victim": {},
}


def signature(cls: type, method: str) -> dict[str, Any]:
    """Return the parameters of a method with their defaults, without `self` and open-ended ones."""
    named = list(inspect.signature(getattr(cls, method)).parameters.values())[1:]
    return {
        item.name: REQUIRED if item.default is item.empty else item.default
        for item in named
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
