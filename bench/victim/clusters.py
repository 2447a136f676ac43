"""Density clusters of features and which rows of each label they keep: PCA, UMAP, HDBSCAN, then a count.

numpy alone at import; scikit-learn and umap-learn (slow: it compiles on first use) are loaded where they are used.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from bench.core.errors import CellError
from bench.victim.compiled import keep_compiled

NOISE = -1  # what HDBSCAN calls a point of no cluster
FEWEST_ROWS = 20  # below it the neighbourhoods of a few rows are the whole set
LEAST = 5  # neighbours and samples of the smallest neighbourhood that says anything about density


def umap_class() -> Any:
    """Return the class UMAP.

    Raises:
        CellError: umap-learn is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces that TensorFlow is absent
            from umap import UMAP
    except ImportError as error:
        raise CellError(
            "CUBE needs the package umap-learn, which is not installed.",
            "Run: pip install 'openbackdoor-bench[cube]'",
        ) from error
    keep_compiled()
    return UMAP


def scaled(most: int, share: float, rows: int) -> int:
    """Return a share of the rows as a count: at most `most`, at least LEAST (or `most`, where that is smaller)."""
    return min(most, max(LEAST, round(share * rows)))


def check_rows(rows: int) -> None:
    """Raise CellError when there are fewer than FEWEST_ROWS rows to cluster."""
    if rows < FEWEST_ROWS:
        raise CellError(f"{rows} rows are too few to cluster; at least {FEWEST_ROWS} are needed.", "Give more rows.")


def reduced(features: np.ndarray, *, components: int, neighbors: int, min_dist: float, seed: int) -> np.ndarray:
    """Return features [n, width] as points in the plane, float [n, 2]: PCA to `components`, then UMAP; exact by seed.

    Raises:
        CellError: fewer than FEWEST_ROWS rows, features that are not finite or all the same, or no umap-learn.
    """
    check_rows(len(features))
    if not np.isfinite(features).all():
        raise CellError("The features to cluster are not finite.", "Lower the learning rate of the encoder.")
    if not np.ptp(features, axis=0).max() > 0:
        raise CellError(f"The encoder gives all {len(features)} rows the same features.", "Lower its learning rate.")
    from sklearn.decomposition import PCA

    bounded = min(components, *features.shape)
    points = PCA(bounded, svd_solver="full").fit_transform(np.asarray(features, dtype=np.float64))
    plane = umap_class()(
        n_neighbors=min(neighbors, len(features) - 1),
        min_dist=min_dist,
        n_components=2,
        random_state=seed % 2**32,
        n_jobs=1,  # the only number of threads whose result a seed decides
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separate clusters make its graph disconnected, and it says so
        return plane.fit_transform(points)


def clustered(points: np.ndarray, *, min_samples: int, min_cluster_size: int) -> np.ndarray:
    """Return the HDBSCAN cluster of each point, int [n], NOISE for none.

    `min_samples` does not count the point itself, as in the package hdbscan; scikit-learn's own does.
    """
    from sklearn.cluster import HDBSCAN

    samples = min(min_samples + 1, len(points))
    return HDBSCAN(min_cluster_size=max(2, min_cluster_size), min_samples=samples, copy=True).fit_predict(points)


def keepers(labels: np.ndarray, clusters: np.ndarray, *, keep_share: float, noise_is_cluster: bool) -> np.ndarray:
    """Return which rows stay, bool [n]: of each label, every group of at least `keep_share` of it, else its largest.

    The points of no cluster are such a group, but with `noise_is_cluster` False never the one kept for being largest
    where the label has a cluster. Every label keeps a row. Of equally large groups the lowest number stays.
    """
    keep = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = labels == label
        numbers, counts = np.unique(clusters[rows], return_counts=True)
        stay = set(numbers[counts >= keep_share * rows.sum()].tolist())
        candidates = np.ones(len(numbers), dtype=bool) if noise_is_cluster else numbers != NOISE
        if not stay:
            if not candidates.any():
                candidates[:] = True
            stay.add(int(numbers[candidates][counts[candidates].argmax()]))
        keep |= rows & np.isin(clusters, sorted(stay))
    return keep
