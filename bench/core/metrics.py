"""Metrics of stored per-example predictions and flags: CACC, ASR, FRR, FAR, AUROC, intervals.

Every rate is a fraction in [0, 1] and comes with its counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

NOT_TRAINED_MARGIN = 0.05  # a CACC this close to the majority class is no model


def rate(hits: int, n: int) -> dict[str, Any] | None:
    """Return `{"value", "hits", "n"}`, or None where nothing was counted."""
    return {"value": hits / n, "hits": int(hits), "n": int(n)} if n else None


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, Any] | None:
    """Return the share of predictions [n] that equal their labels [n]."""
    return rate(int(np.sum(np.asarray(predictions) == np.asarray(labels))), len(labels))


def attack_success(predictions: Sequence[int], target: int) -> dict[str, Any] | None:
    """Return the share of predictions [n], on poisoned versions of non-target samples, that are the target."""
    return rate(int(np.sum(np.asarray(predictions) == target)), len(predictions))


def with_flags(predictions: Sequence[int], flags: Sequence[int], rule: str, classes: int) -> np.ndarray:
    """Return the predictions [n] after a detector's flags [n] under a rule.

    `reject` (OpenBackdoor): a flagged input counts as the impossible class -1, so it is wrong when
    clean and no success when poisoned. `flip` (the rule behind the paper's tables) compares with the
    *flipped label*, which for two classes is the same as flipping the prediction.
    """
    predictions, flags = np.asarray(predictions), np.asarray(flags)
    if rule == "reject":
        return np.where(flags == 1, -1, predictions)
    if rule == "flip" and classes == 2:
        return np.where(flags == 1, 1 - predictions, predictions)
    raise ValueError(f"flag rule {rule!r} does not exist for {classes} classes: use 'reject', or 'flip' with 2 classes")


def detection_rates(flags: Sequence[int], poisoned: Sequence[int]) -> dict[str, Any]:
    """Return FRR (flagged share of clean examples) and FAR (passed share of poisoned ones).

    OpenBackdoor's names; a set without clean or without poisoned examples has no FRR or FAR.
    """
    flags, poisoned = np.asarray(flags), np.asarray(poisoned)
    clean, bad = flags[poisoned == 0], flags[poisoned == 1]
    return {"frr": rate(int(clean.sum()), len(clean)), "far": rate(int((bad == 0).sum()), len(bad))}


def auroc(scores: Sequence[float], poisoned: Sequence[int]) -> float | None:
    """Return the probability that a poisoned example scores above a clean one, ties counting half."""
    poisoned = np.asarray(poisoned)
    if len(set(poisoned.tolist())) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(poisoned, np.asarray(scores, dtype=float)))


def trained(cacc: float, labels: Sequence[int]) -> bool:
    """Tell whether a clean accuracy is more than 0.05 above always answering the majority class."""
    counts = np.bincount(np.asarray(labels, dtype=int))
    return bool(cacc > counts.max() / counts.sum() + NOT_TRAINED_MARGIN)


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a rate (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
