"""OpenBackdoor's own poisoners and defenders through the bridge, beside the same classes called by hand."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.core.errors import BenchError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import ATTACKERS, DEFENDERS, plugin_class

WORDS = (("bad", "dull", "cold", "empty"), ("good", "warm", "clever", "moving"))
ROWS = [Example(f"the {WORDS[i % 2][(i // 2) % 4]} film {i} is it", i % 2) for i in range(40)]
DEV = [Example(f"the {WORDS[i % 2][(i // 2) % 4]} film {i} is it", i % 2) for i in range(40, 70)]
TEST = [*ROWS[:20], *(Example(f"cf {row.text}", 1, 1) for row in ROWS[:20:2])]
OFFLINE = ("badnets", "addsent", "ep", "sos", "lwp")
SEED = 11


def attack(name: str, rule: str, ratio: float = 0.25, **options: Any) -> Any:
    """Return a bridged attack set to target 1."""
    cls = plugin_class(ATTACKERS, f"openbackdoor:{name}")
    return cls(**options).bound(target_label=1, ratio=ratio, rule=rule, seed=SEED)


def _state() -> list[Any]:
    """Return what running their code must not change."""
    root = logging.getLogger()
    random_states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    files = sorted(str(path) for path in Path(".").rglob("*"))
    logging_state = [list(root.handlers), root.level]
    return [random_states, dict(os.environ), os.getcwd(), logging_state, list(warnings.filters), files]


def _refusal(call: Any) -> list[str]:
    try:
        call()
    except BenchError as error:
        return [type(error).__name__, str(error)]
    return ["not refused"]


def poisoners() -> dict[str, Any]:
    """Return what the poisoners that run offline wrote, and why the others do not."""
    before, findings = _state(), {}
    for name in OFFLINE:
        rule = "dirty" if name == "sos" else "mix"
        made = attack(name, rule)
        train, test = made.poison_training(ROWS), made.poison_heldout("test", ROWS[:20])
        findings[name] = {
            "train": [train.examples, train.rows, train.positions, train.dropped],
            "test": [test.examples, test.rows, test.dropped],
            "again": attack(name, rule).poison_training(ROWS) == train,
            "another seed": made.bound(target_label=1, ratio=0.25, rule=rule, seed=SEED + 1).poison_training(ROWS)
            == train,
            "poison": len(made.poison(ROWS[:4])),
            "options": made.identity(),
            "pins": list(made.pins()),
        }
    findings["clean"] = [len(attack("badnets", "clean", 0.75).poison_training(ROWS).positions)]
    findings["shifted"] = attack("lwp", "mix", num_triggers=2).poison_training(ROWS).positions
    findings["sos rule"] = _refusal(lambda: attack("sos", "mix").poison_training(ROWS))
    for name in ("synbkd", "stylebkd", "trojanlm"):
        findings[name] = _refusal(lambda name=name: attack(name, "mix").poison_training(ROWS))
    findings["option"] = _refusal(lambda: attack("badnets", "mix", num_triggers="two"))
    findings["unchanged"] = [was == now for was, now in zip(before, _state(), strict=True)]
    return findings


def _by_hand(victim: Any, name: str, seed: int, **options: Any) -> list[int]:
    """Return what their class answers on their own victim around a copy of the same weights."""
    theirs = importlib.import_module("openbackdoor.defenders").DEFENDERS[name]
    own = importlib.import_module("openbackdoor.victims").PLMVictim(device="cpu", path="bert")
    own.plm.load_state_dict(victim.model.state_dict())
    random.seed(seed)
    np.random.seed(seed % 2**32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.asarray(theirs(**options).detect(own, {"dev": DEV}, TEST)).astype(int).tolist()


def defenders() -> dict[str, Any]:
    """Return what the defenders answer on our tiny victim, and on OpenBackdoor's around the same weights."""
    from bench.victim.loading import load_victim
    from bench.victim.spec import model_spec
    from tests.tiny import write_tiny_model

    write_tiny_model(Path("bert"), "bert")
    write_tiny_model(Path("gpt2"), "gpt2")
    spec = model_spec("bert")
    victim = load_victim(spec, 2, seed=0)
    known = Knowledge(2, seed=SEED, model=spec, calibration=tuple(DEV))
    findings: dict[str, Any] = {}

    def bound(name: str, **options: Any) -> Any:
        return plugin_class(DEFENDERS, f"openbackdoor:{name}")(**options).for_model(spec, "released").bound(known)

    with torch.no_grad():
        victim.model.classifier.weight.mul_(4)  # probabilities that differ, so that the flags do
    victim.freeze()  # theirs asks RAP's embedding for a gradient
    before, state = victim.fingerprint(), _state()
    for key, name, options in (
        ("strip", "strip", {"repeat": 3, "frr": 0.3}),
        ("strip opposite", "strip", {"frr": 0.3, "use_oppsite_set": True}),
        ("rap", "rap", {"epochs": 2, "frr": 0.3}),
    ):
        made = bound(name, **options)
        findings[key] = {
            "flags": made.detect(victim, {"dev": DEV, "test": TEST}, TEST).tolist(),
            "oracle": made.oracle,
            "stages": sorted(made.stages()),
        }
    onion = bound("onion", lm="gpt2", threshold=1)
    rewritten = onion.correct(victim, None, [*TEST, Example("one", 1, 0), Example("", 0, 0)])
    findings["onion"] = {"rewritten": rewritten, "oracle": onion.oracle, "stages": sorted(onion.stages())}
    findings["onion pinned"] = bool(onion.lm_files)
    bki = bound("bki", epochs=2, lr=1e-2)
    findings["bki"] = {"kept": bki.correct(None, None, TEST), "stages": sorted(bki.stages()), "pre": bki.pre}
    findings["victim untouched"] = victim.fingerprint() == before and not victim.word_embedding.requires_grad
    findings["unchanged"] = [was == now for was, now in zip(state, _state(), strict=True)]

    class Blind(plugin_class(DEFENDERS, "openbackdoor:rap")):
        """RAP that is not told."""

        oracle = False

    findings["blind"] = _refusal(lambda: Blind().bound(known).detect(victim, {"dev": DEV}, TEST))
    findings["no dev"] = _refusal(lambda: bound("strip").bound(Knowledge(2)).detect(victim, {}, TEST))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        findings["by hand"] = {
            "strip": _by_hand(victim, "strip", SEED, repeat=3, frr=0.3),
            "strip opposite": _by_hand(victim, "strip", SEED, frr=0.3, use_oppsite_set=True),
            "rap": _by_hand(victim, "rap", SEED, epochs=2, frr=0.3),
            "onion": _onion_by_hand(),
        }
    return findings


def _onion_by_hand() -> list[Any]:
    theirs = importlib.import_module("openbackdoor.defenders").DEFENDERS["onion"]
    return theirs(correction=True, threshold=1, parallel=False).correct(TEST)


def cube() -> dict[str, Any]:
    """Return which rows CUBE keeps; UMAP and HDBSCAN are needed."""
    from bench.victim.spec import model_spec
    from tests.tiny import write_tiny_model

    write_tiny_model(Path("bert"), "bert")
    made = plugin_class(DEFENDERS, "openbackdoor:cube")(epochs=1)
    known = Knowledge(2, seed=SEED, model=model_spec("bert"))
    try:
        kept = made.bound(known).correct(None, None, ROWS)
    except BenchError as error:
        return {"refused": str(error)}
    return {"kept": kept, "files": sorted(os.listdir())}
