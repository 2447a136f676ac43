"""Which of OpenBackdoor's twelve attackers run in its own pipeline on this machine: a tiny BERT, no hub, no GPU."""

from __future__ import annotations

import contextlib
import importlib
import io
from pathlib import Path
from typing import Any
from unittest import mock

from tests.openbackdoor.pipeline import rows, settings

# Attack -> (attacker, trainer, poisoner) as its configurations name them.
TWELVE = {
    "badnets": ("base", "base", "badnets"),
    "addsent": ("base", "base", "addsent"),
    "synbkd": ("base", "base", "synbkd"),
    "stylebkd": ("base", "base", "stylebkd"),
    "trojanlm": ("base", "base", "trojanlm"),
    "ep": ("ep", "ep", "ep"),
    "sos": ("sos", "sos", "sos"),
    "lwp": ("lwp", "lwp", "lwp"),
    "ripples": ("ripples", "ripples", "badnets"),
    "neuba": ("neuba", "neuba", "neuba"),
    "por": ("por", "por", "por"),
    "lws": ("lws", "lws", "badnets"),
}


def run() -> dict[str, Any]:
    """Return for each attacker `runs` with its results, or the error that stopped it."""
    importlib.import_module("bench.openbackdoor").load()
    from tests.tiny import write_tiny_model

    write_tiny_model(Path("tiny"), "bert")
    findings = {}
    for name, parts in TWELVE.items():
        output = io.StringIO()
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            mock.patch("os.system", side_effect=OSError("a download through the shell")),
        ):
            try:
                findings[name] = ["runs", _attacked(*parts)]
            except Exception as error:  # whatever it is, it is the answer
                findings[name] = [type(error).__name__, str(error).strip().splitlines()[0] if str(error) else ""]
    return findings


def _attacked(attacker: str, trainer: str, poisoner: str) -> dict[str, float]:
    config = settings(Path("tiny"))
    config["attacker"]["name"] = attacker
    config["attacker"]["train"].update({"name": trainer, "batch_size": 8, "ckpt": "last"})
    section = config["attacker"]["poisoner"]
    section["name"] = poisoner
    if attacker in ("neuba", "por"):  # these write into a masked language model
        config["victim"].update({"type": "mlm", "max_len": 64})
        config["attacker"]["from_scratch"] = True
        section["embed_length"] = 32
        section["target_label"] = 0  # the class that the untuned victim gives POR's trigger: without one, no test row
    for option in ("triggers", "num_triggers"):
        section.pop(option)
    config = importlib.import_module("openbackdoor.utils").set_config(config)
    importlib.import_module("openbackdoor.utils").set_seed(0)
    victim = importlib.import_module("openbackdoor.victims").load_victim(config["victim"])
    made = importlib.import_module("openbackdoor.attackers").load_attacker(config["attacker"])
    data = {"train": rows(40, 0), "dev": rows(20, 100), "test": rows(20, 200)}
    results = made.eval(made.attack(victim, data, config), data)
    return {split: results[split]["accuracy"] for split in ("test-clean", "test-poison")}
