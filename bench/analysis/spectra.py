"""From the outputs of a training to the series of every filter: the content of a record's `analysis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.analysis.filtering import Filtered, GaussianFilter, low_parts
from bench.analysis.frequency import chosen_delta, degeneracy, distance_quantiles, measures
from bench.analysis.texts import Embedding, TextPoints
from bench.analysis.watchers.fourier import QUANTILE_ROWS, Fourier
from bench.victim.batching import Encoded

SHOWN = (0.05, 0.5, 0.95)  # quantiles of the distances that a record tells
REASONS = {
    "identity": "the filter is nearly the identity: the low part is the mapping itself, whatever the mapping is",
    "constant": "the filter is nearly a plain mean: the low part is one constant, whatever the mapping is",
}
NO_HIGH_PART = "the labels are the same everywhere here, so the true mapping has no high part to be far from"


def spectra(
    options: Fourier,
    texts: Encoded,
    labels: Sequence[int],
    clean: int,
    outputs: Sequence[np.ndarray],
    embedding: Embedding,
    classes: int,
) -> dict[str, Any]:
    """Return distances, accuracies and the series of each kernel, delta, neighbourhood and mapping.

    Args:
        texts: the clean rows, then the poisoned ones.
        clean: how many are clean.
        outputs: per look, class probabilities [rows, classes].
    """
    device = embedding.device
    truth = torch.nn.functional.one_hot(torch.tensor(list(labels)), classes).double().to(device)
    values = torch.stack([torch.from_numpy(one) for one in outputs], 1).double().to(device)  # [rows, looks, classes]
    some = range(0, len(labels), -(-len(labels) // QUANTILE_ROWS))
    fractions = (*SHOWN, *options.quantiles)
    found = distance_quantiles(TextPoints(texts, some, embedding), fractions)
    chosen = dict(zip(options.quantiles, found[len(SHOWN) :], strict=True))
    filters = _filters(options, chosen, min(clean, len(labels) - clean))
    mappings = {"clean": slice(0, clean), "backdoor": slice(clean, len(labels))}
    entries = []
    for over in options.over:
        groups = [mappings] if over == "joint" else [{name: rows} for name, rows in mappings.items()]
        for group in groups:
            covered = range(min(rows.start for rows in group.values()), max(rows.stop for rows in group.values()))
            part = slice(covered.start, covered.stop)
            columns = torch.cat([values[part], truth[part, None]], 1)
            passed = low_parts(TextPoints(texts, covered, embedding), columns.flatten(1), [one for one, _ in filters])
            for (one, quantile), result in zip(filters, passed, strict=True):
                for name, rows in group.items():
                    local = slice(rows.start - part.start, rows.stop - part.start)
                    about = {"kernel": one.kernel, "delta": one.delta, "quantile": quantile, "over": over}
                    entries.append({**about, "mapping": name, **_entry(result, columns, local)})
    right = values.argmax(-1) == torch.tensor(list(labels), device=device)[:, None]
    return {
        "distances": {f"{fraction:g}": value for fraction, value in zip(SHOWN, found, strict=False)},
        "accuracy": {name: right[rows].double().mean(0).tolist() for name, rows in mappings.items()},
        "filters": entries,
    }


def _filters(options: Fourier, chosen: dict[float, float], points: int) -> list[tuple[GaussianFilter, float | None]]:
    """Return each filter with the quantile that chose its delta, None for a delta that was given."""
    filters: list[tuple[GaussianFilter, float | None]] = []
    for kernel in options.kernels:
        filters += [(GaussianFilter(kernel, delta), None) for delta in options.deltas]
        for quantile, distance in chosen.items():
            filters.append((GaussianFilter(kernel, chosen_delta(distance, points, kernel)), quantile))
    return filters


def _entry(result: Filtered, columns: Tensor, rows: slice) -> dict[str, Any]:
    """Return what one filter shows of one mapping; a degenerate one shows its reason and no series."""
    about = {
        "self_weight": float(result.self_weight[rows].mean()),
        "spread": float(result.spread[rows].mean()),
        "degenerate": degeneracy(result, rows),
    }
    nothing = {"lfr": None, "hfr": None, "low_error": None, "high_error": None}
    if about["degenerate"]:
        return {**about, **nothing, "note": REASONS[about["degenerate"]]}
    low = result.low.view_as(columns)[rows]
    whole = columns[rows]
    seen = measures(whole[:, :-1], whole[:, -1], low[:, :-1], low[:, -1])
    return {
        **about,
        "lfr": seen.low_ratio.tolist(),
        "hfr": seen.high_ratio.tolist(),
        "low_error": seen.low_error.tolist(),
        "high_error": None if seen.high_error is None else seen.high_error.tolist(),
        "note": NO_HIGH_PART if seen.high_error is None else None,
    }
