"""What is done in a fresh process with the real package; each scene prints its findings as one line of JSON.

Run as `python -m tests.openbackdoor.scenes SCENE`, with the package importable, in an empty folder.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import sys
import warnings
from importlib.machinery import ModuleSpec
from typing import Any
from unittest import mock

# Slow to import and of no use here: shown as absent, so that stand-ins take their places.
HIDDEN = ("umap", "matplotlib")
ABSENT = (
    "language_tool_python",
    "sentence_transformers",
    "jsonlines",
    "strsimpy",
    "strsimpy.levenshtein",
    "OpenAttack",
    "umap",
    "hdbscan",
    "matplotlib",
    "matplotlib.pyplot",
)


def absent() -> dict[str, Any]:
    """Import the bridge where the package cannot be found, and use what there is."""
    sys.modules["openbackdoor"] = None  # type: ignore[assignment]
    before = (dict(os.environ), os.listdir())
    bridge = importlib.import_module("bench.openbackdoor")
    shims = importlib.import_module("bench.openbackdoor.shims")
    module = shims.StandIn("strsimpy.levenshtein", "Run: pip install strsimpy.")
    return {
        "imported": [name for name in ("torch", "transformers", "defenders.base") if name in sys.modules],
        "changed": before != (dict(os.environ), os.listdir()),
        "load": _refusal(bridge.load),
        "registered": _refusal(lambda: bridge.registered().__enter__()),
        "attribute": _refusal(lambda: bridge.Defender),
        "unknown attribute": hasattr(bridge, "Defenders"),
        "stand-in": [type(module.Levenshtein).__name__, module.__spec__.name, hasattr(module, "__file__")],
        "use": _refusal(lambda: module.Levenshtein(metric="l1")),
        "deep use": _refusal(lambda: module.a.b.c()),
    }


def _refusal(call: Any) -> list[str]:
    """Return the types and the text of the error of ours that a call raises."""
    from bench.core.errors import BenchError

    try:
        call()
    except BenchError as error:
        return [*(kind.__name__ for kind in type(error).__mro__[:-3]), str(error)]
    return ["not refused"]


def ours_first() -> dict[str, Any]:
    """Import our bases and make objects, then the bridge; compare the process before and after; use its pipeline."""
    from attackers.badnets import BadNets
    from defenders.base import Defender
    from tests.openbackdoor.pipeline import run
    from tests.openbackdoor.plugins import FlagsWord

    old = (FlagsWord(), BadNets())
    handler = logging.StreamHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    before = (dict(os.environ), list(root.handlers), root.level, os.listdir())
    bridge = importlib.import_module("bench.openbackdoor")
    after = (dict(os.environ), list(root.handlers), root.level, os.listdir())
    transformers = sys.modules["transformers"]

    evaluator = importlib.import_module("openbackdoor.utils.evaluator")
    style = importlib.import_module("openbackdoor.attackers.poisoners").StyleBkdPoisoner
    optimizer = importlib.import_module("openbackdoor.trainers.trainer").AdamW
    changed = zip(("environment", "handlers", "level", "folder"), before, after, strict=True)
    shims = importlib.import_module("bench.openbackdoor.shims")
    stand_ins = [name for name, module in sys.modules.items() if isinstance(module, shims.StandIn)]
    return {
        "subclass": issubclass(Defender, bridge.Defender),
        "module": bridge.Defender.__module__,
        "old objects": [isinstance(old[0], bridge.Defender), isinstance(old[1], bridge.Poisoner)],
        "new objects": [isinstance(FlagsWord(), bridge.Defender), isinstance(BadNets(), bridge.Poisoner)],
        "flags": FlagsWord().detect(poison_data=[("a cf", 0, 1), ("a b", 0, 0)]),
        "changed": [name for name, was, now in changed if was != now],
        "stand-ins left": stand_ins,
        "shim left": hasattr(transformers, "AdamW"),
        "optimizer": optimizer.__init__.__defaults__,
        "grammar": _refusal(evaluator.GrammarChecker),
        "style": _refusal(lambda: style(style_id=0)),
        "pipeline": run(),
    }


def theirs_first() -> dict[str, Any]:
    """Import the package as a user with shims of their own does, then our bases, and never the bridge."""
    import torch

    _ = importlib.import_module("transformers").GPT2LMHeadModel
    sys.modules["transformers"].AdamW = torch.optim.AdamW
    for name in ABSENT:
        sys.modules[name] = mock.MagicMock(__spec__=ModuleSpec(name, None))
    with warnings.catch_warnings(action="ignore"):
        import openbackdoor.attackers.poisoners
        import openbackdoor.defenders

    from attackers.base import Attacker
    from defenders.base import Defender

    findings = {
        "subclass": [
            issubclass(Defender, openbackdoor.defenders.Defender),
            issubclass(Attacker, openbackdoor.attackers.poisoners.Poisoner),
        ],
        "signatures": _signatures(openbackdoor, Defender, Attacker),
        "constructors": {
            "Defender": _defaults(openbackdoor.defenders.Defender),
            "Poisoner": _defaults(openbackdoor.attackers.poisoners.Poisoner),
        },
    }
    bridge = importlib.import_module("bench.openbackdoor")
    return {**findings, "same package": bridge.load() is openbackdoor}


def _signatures(package: Any, defender: type, attacker: type) -> dict[str, list[bool]]:
    """Return whether names and defaults of each shared method are theirs, for Defender and Poisoner."""
    pairs = {
        defender: (package.defenders.Defender, ("detect", "correct", "eval_detect", "get_target_label")),
        attacker: (package.attackers.poisoners.Poisoner, ("__call__", "poison", "get_non_target")),
    }
    return {
        method: [_shape(getattr(ours, method)) == _shape(getattr(theirs, method))]
        for ours, (theirs, methods) in pairs.items()
        for method in methods
    }


def _shape(method: Any) -> list[tuple[str, Any]]:
    return [(name, item.default) for name, item in inspect.signature(method).parameters.items()]


def _defaults(cls: type) -> dict[str, Any]:
    """Return the named parameters of a constructor of theirs with their defaults."""
    parameters = inspect.signature(cls.__init__).parameters.items()
    return {name: item.default for name, item in parameters if item.default is not item.empty}


def poisoners() -> dict[str, Any]:
    """Run its poisoners through the bridge."""
    return importlib.import_module("tests.openbackdoor.bridged").poisoners()


def defenders() -> dict[str, Any]:
    """Run its defenders through the bridge."""
    return importlib.import_module("tests.openbackdoor.bridged").defenders()


def cube() -> dict[str, Any]:
    """Run its CUBE through the bridge."""
    return importlib.import_module("tests.openbackdoor.bridged").cube()


def defended() -> dict[str, Any]:
    """Run our defenses in its pipeline."""
    return importlib.import_module("tests.openbackdoor.defended").run()


def twelve() -> dict[str, Any]:
    """Run each of its attackers in its own pipeline."""
    return importlib.import_module("tests.openbackdoor.attackers").run()


def contract() -> dict[str, Any]:
    """Return where its classes differ from what is recorded of them."""
    from tests.openbackdoor.signatures import SIGNATURES, signature

    bridge = importlib.import_module("bench.openbackdoor")
    found = {
        (name, method): signature(getattr(bridge, name), method)
        for name, methods in SIGNATURES.items()
        for method in methods
    }
    return {"differs": [key for key, value in found.items() if value != SIGNATURES[key[0]][key[1]]]}


ALL = (absent, ours_first, theirs_first, poisoners, defenders, cube, defended, twelve, contract)
SCENES = {scene.__name__: scene for scene in ALL}

if __name__ == "__main__":
    if sys.argv[1] != "cube":
        for name in HIDDEN:
            sys.modules[name] = None  # type: ignore[assignment]
    findings = SCENES[sys.argv[1]]()
    sys.stdout.write("\n" + json.dumps(findings, default=str) + "\n")
