"""Importing any module of the packages has no effect, and what planning needs does not load torch."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = "bench.openbackdoor"  # importing it is asking for the package that it bridges to
ENTRANCE = "bench.__main__"  # importing it is running it
MAY_LOAD_TORCH = ("bench.victim.", "bench.engine.work_", "bench.engine.victims", "bench.analysis.")
HEAVY = ("torch", "transformers", "peft", "pandas", "sklearn", "datasets", "matplotlib", "nltk", "openbackdoor")

# What the script prints: the modules, which heavy package each brought, and what each changed in the process.
SCRIPT = """
import importlib, json, locale, logging, os, pkgutil, random, sys, threading, warnings

def modules():
    for package in ("defenders", "attackers", "bench"):
        yield package
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            yield info.name

def state():
    root = logging.getLogger()
    now = {
        "handlers": len(root.handlers), "level": root.level, "environment": dict(os.environ),
        "folder": [os.getcwd(), sorted(os.listdir())], "path": list(sys.path), "filters": len(warnings.filters),
        "random": hash(random.getstate()), "threads": threading.active_count(),
        "locale": locale.setlocale(locale.LC_ALL),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        now |= {
            "dtype": str(torch.get_default_dtype()), "workers": torch.get_num_threads(),
            "seed": torch.random.get_rng_state().sum().item(), "gradients": torch.is_grad_enabled(),
            "device": str(torch.get_default_device()), "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        now |= {"errors": numpy.geterr(), "numpy": int(numpy.random.get_state()[1].sum())}
    return now

def imported(names):
    for name in names:
        loaded = {package for package in heavy if package in sys.modules}
        importlib.import_module(name)
        brought[name] = sorted(package for package in heavy if package in sys.modules and package not in loaded)

def compared(before):
    after = state()
    return {what: [value, after[what]] for what, value in before.items() if after[what] != value}

skipped, may_load_torch, heavy = (tuple(item) for item in json.loads(sys.argv[1]))
brought, changed = {}, {}
names = [name for name in modules() if name not in skipped]
light = [name for name in names if not name.startswith(may_load_torch)]
import numpy, pydantic, rich.console, typer  # rich draws from the global generator, which is its own affair
before = state()
imported(light)
changed.update(compared(before))
import torch, transformers, peft  # what these do to the process is theirs
importlib.import_module("transformers.integrations.sdpa_attention")
transformers.AutoModelForSequenceClassification
before = state()
imported([name for name in names if name not in light])
changed.update(compared(before))
print(json.dumps({"names": names, "light": light, "brought": brought, "changed": changed}))
"""


def python(*arguments: str, folder: Path) -> str:
    """Return what a fresh interpreter prints; a failure shows its traceback."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("BENCH_OPENBACKDOOR", None)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What importing every module did, in an interpreter of its own."""
    arguments = json.dumps([[BRIDGE, ENTRANCE], MAY_LOAD_TORCH, HEAVY])
    return json.loads(python("-c", SCRIPT, arguments, folder=tmp_path_factory.mktemp("imports")).splitlines()[-1])


def test_every_module_was_imported(report: dict) -> None:
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("bench", "attackers", "defenders")
        for path in (ROOT / package).rglob("*.py")
    }
    assert set(report["names"]) == files - {BRIDGE, ENTRANCE}


def test_importing_every_module_changes_nothing(report: dict) -> None:
    assert report["changed"] == {}


def test_plugins_and_planning_load_nothing_heavy(report: dict) -> None:
    assert {name: report["brought"][name] for name in report["light"] if report["brought"][name]} == {}


def test_importing_the_plugins_takes_less_than_a_second(tmp_path: Path) -> None:
    def cost(code: str) -> float:
        """Return the least seconds of a core that an interpreter needs for this, of three tries."""
        costs = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            python("-c", code, folder=tmp_path)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(costs)

    # Beyond a bare start, with room for a machine on which that alone is slow.
    bare = cost("pass")
    assert cost("import defenders") < bare + max(1.0, 10 * bare)
    assert cost("import attackers") < bare + max(1.0, 10 * bare)
