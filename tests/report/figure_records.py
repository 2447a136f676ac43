"""Records for figures: sweeps, and trainings that a Fourier analysis watched, with made-up but plausible curves."""

from __future__ import annotations

import math
from typing import Any

from tests.report.fixtures import ATTACKS, record

STEPS = list(range(0, 105, 5))
SCALES = {
    "S_1": [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5],
    "S_2": [1, 2, 3, 4, 5, 6, 7, 8, 9],
    "S_3": [1, 2, 4, 6, 8, 10, 12, 14, 16],
    "S_4": [1, 4, 8, 12, 16, 20, 24, 28, 32],
}
DEFAULTS = {"clean_samples": 96, "mu_max": 0.1, "scales": SCALES["S_2"]}


def swept(model: str = "bert-large", seed: int = 0, ratio: float = 0.1, rate: float = 2e-5, **options: Any) -> list:
    """Return a record of MuScleLoRA for each attack, with some options changed."""
    found = []
    for place, attack in enumerate(ATTACKS):
        hits = int(80 + 90 * place + 900 * ratio + 4e6 * rate - options.get("clean_samples", 96) / 2 + 7 * seed)
        clean = int(1560 + 20 * place - 300 * ratio + options.get("clean_samples", 96) / 4 + 3 * seed)
        parts = {"defense": {**DEFAULTS, **options}, "model": {"learning_rate_pet": rate}}
        counts = {"cacc": (clean, 1821), "asr": (max(5, min(hits, 912)), 912)}
        found.append(record("sst2", attack, "musclelora", model, seed, ratio, **counts, options=parts))
    return found


def sweep_records() -> list[dict[str, Any]]:
    """Return every sweep of Figures 4 and 6 to 10."""
    found = []
    for seed in (0, 1):
        for ratio in (0.01, 0.05, 0.1, 0.2, 0.3):
            found += swept("bert-base", seed, ratio) + swept("bert-large", seed, ratio)
    for count in (16, 32, 64, 128):
        found += swept(clean_samples=count)
    for rate in (5e-6, 1e-5, 5e-5, 1e-4):
        found += swept(rate=rate)
    for mu in (0.0, 0.05, 0.2, 0.4):
        found += swept(mu_max=mu)
    for name in ("S_1", "S_3", "S_4"):
        found += swept(scales=SCALES[name])
    return found


def curve(start: float, end: float, pace: float) -> list[float]:
    """Return a value at each look that goes from start to end."""
    return [end + (start - end) * math.exp(-pace * step / 20) for step in STEPS]


def entry(over: str, kernel: str, delta: float, quantile: float | None, mapping: str, pace: float) -> dict[str, Any]:
    """Return what one filter found of one mapping; the paper's kernel at a given delta is the identity."""
    about = {"kernel": kernel, "delta": delta, "quantile": quantile, "over": over, "mapping": mapping}
    if kernel == "paper" and quantile is None:
        nothing = dict.fromkeys(("lfr", "hfr", "low_error", "high_error"))
        return {**about, "self_weight": 0.9999, "spread": 0.001, "degenerate": "identity", **nothing, "note": "-"}
    alike = over == "separate" and mapping == "backdoor"
    return {
        **about,
        "self_weight": 0.4,
        "spread": 0.3,
        "degenerate": None,
        "lfr": curve(0.99, 0.97 if alike else 0.85, pace),
        "hfr": curve(0.01, 0.005 if alike else 0.3, pace),
        "low_error": curve(0.8, 0.02, 4 * pace if mapping == "backdoor" else pace),
        "high_error": None if alike else curve(1.0, 0.3, pace / 2),
        "note": None,
    }


def analysis(pace: float) -> dict[str, Any]:
    """Return what a record holds of a watched training."""
    filters = [
        entry(over, kernel, delta, quantile, mapping, pace)
        for over in ("separate", "joint")
        for kernel, delta, quantile in (
            ("released", 4.0, None),
            ("released", 5.69, 0.5),
            ("paper", 4.0, None),
            ("paper", 437.8, 0.5),
        )
        for mapping in ("clean", "backdoor")
    ]
    return {
        "name": "fourier",
        "version": 1,
        "options": {},
        "rows": {"clean": 500, "backdoor": 500},
        "steps": STEPS,
        "steps_per_epoch": 35,
        "distances": {"0.05": 40.0, "0.5": 77.0, "0.95": 95.0},
        "accuracy": {"clean": curve(0.5, 0.9, pace), "backdoor": curve(0.1, 1.0, pace)},
        "filters": filters,
    }


def watched_records() -> list[dict[str, Any]]:
    """Return the watched trainings of Figures 1, 2, 5 and 11 to 13."""
    wanted = [("bert-base", attack, "vanilla") for attack in ("badnets", "addsent")]
    for defense in ("lora", "mslr", "lora+ga", "musclelora"):
        wanted += [(model, "badnets", defense) for model in ("bert-base", "bert-large")]
        wanted += [("llama2-7b", attack, defense) for attack in ("addsent", "hiddenkiller")]
    found = []
    for place, (model, attack, defense) in enumerate(wanted):
        one = record("sst2", attack, defense, model)
        found.append({**one, "analysis": analysis(0.5 + 0.1 * place)})
    return found
