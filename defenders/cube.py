"""CUBE (Cui et al., arXiv 2206.08514): poisoned rows cluster apart, so each label keeps its main cluster.

NeurIPS 2022 (datasets and benchmarks). Acts on the training split (cleanse); needs no
clean samples. An encoder trains shortly on the suspect rows; its penultimate features (BERT: the pooler's output, tanh
included) go through PCA (20), UMAP (2 dimensions) and HDBSCAN; of each label stay the clusters that hold at least half
of it, or its largest cluster.

Differs from the published code:
* It runs: published, `correct` replaces its encoder by a model that nobody passes, and fails on the first line.
  The encoder is the victim's architecture from its pre-trained weights, one epoch as configured there, last weights.
  `victim="shared"` takes the backdoored victim instead, so that nothing is trained.
* Noise (rows of no cluster) is a group that a label keeps when it is at least half of it, and is never kept for being
  the largest below that: published, noise counts as a cluster, and can be kept in place of the largest real one.
  `noise_is_cluster=True` restores that.
* `neighbors` and `min_samples` are 100 at most, and 4 % of the rows below 2,500: 100 on every published data set, 80 on
  2,000 rows, 26 on 640. 100 neighbours of 640 rows would span both classes and leave no room for a cluster of poison.
* The seed is the cell's (published: 42), and PCA is exact. HDBSCAN is scikit-learn's, whose `min_samples` counts the
  point itself; it is given one more, which makes it the published package's.

The rule assumes that the poison is a minority of each label; where it is the majority, the clean rows go. The poison
stands apart early in training: an encoder that has fitted the rows merges it with the label it wears, so the shared
victim, trained for longer, can show less than an encoder of one epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from bench.core.example import Example
from bench.core.options import Count, Fraction
from bench.core.seeding import derived_seed
from bench.victim.studied import StudiedModel, studied
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Cube(StudiedModel, Defender):
    """Removes the training rows outside the main cluster of their label."""

    name = "cube"
    pre = True
    correction = True
    own_epochs: ClassVar[int | None] = 1

    victim: Literal["own", "shared"] = "own"
    components: Count = 20  # of PCA
    neighbors: Count = 100  # of UMAP, at most
    min_samples: Count = 100  # of HDBSCAN, at most
    share: Fraction = 0.04  # of the rows: what neighbors and min_samples are in smaller sets
    min_dist: Fraction = 0.0  # of UMAP
    min_cluster_size: Count = 5  # of HDBSCAN
    keep_share: Fraction = 0.5  # of a label: a group that holds as much is kept
    noise_is_cluster: bool = False

    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[Example]:
        """Return the rows in the main clusters of their labels, in order; every label keeps some.

        Raises:
            CellError: umap-learn is absent, too few rows, no model to look at, or features that say nothing.
        """
        from bench.victim.clusters import check_rows, keepers, umap_class

        check_rows(len(poison_data))
        umap_class()  # an absent package is worth knowing before an encoder trains
        clusters = self.clusters(studied(self, self.knowledge, model, poison_data), poison_data)
        labels = np.array([row.label for row in poison_data])
        keep = keepers(labels, clusters, keep_share=self.keep_share, noise_is_cluster=self.noise_is_cluster)
        return [row for row, stays in zip(poison_data, keep, strict=True) if stays]

    def clusters(self, encoder: Any, rows: Any) -> np.ndarray:
        """Return the cluster of each row as a trained encoder sees it, int [n], -1 for none."""
        from bench.victim.clusters import clustered, reduced, scaled
        from bench.victim.states import penultimate

        points = reduced(
            penultimate(encoder, [text for text, *_ in rows]).cpu().numpy(),
            components=self.components,
            neighbors=scaled(self.neighbors, self.share, len(rows)),
            min_dist=self.min_dist,
            seed=derived_seed(self.knowledge.seed, "umap"),
        )
        samples = scaled(self.min_samples, self.share, len(rows))
        return clustered(points, min_samples=samples, min_cluster_size=self.min_cluster_size)
