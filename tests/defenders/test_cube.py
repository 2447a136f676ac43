"""CUBE: the rule of the kept clusters worked out by hand, planted clusters of features, and a tiny run end to end."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest

from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.core.registry import DEFENDERS, plugin_class
from bench.victim.clusters import clustered, keepers, reduced, scaled
from bench.victim.studied import studied
from defenders.cube import Cube
from tests.defenders.planted import TARGET, TRIGGER, planted_spec, reviews, with_trigger
from tests.tiny import ARCHITECTURES, tiny_victim

ROWS = [Example(f"the film is {word}", number % 2) for number, word in enumerate("abcdefghijklmnopqrstuvwxyz")]
SETTINGS = {"components": 20, "neighbors": 12, "min_dist": 0.0}


def own(factory: Any, classes: int = 2, seed: int = 1, **options: Any) -> Cube:
    """Return CUBE bound to the pre-trained weights of the planted victims."""
    from bench.victim.loading import load_victim

    spec = planted_spec(factory)
    known = Knowledge(classes, seed=seed, pretrained=lambda: load_victim(spec, classes, seed=5))
    return Cube(**options).bound(known)


@pytest.mark.parametrize(
    ("rows", "count"),
    # SST-2, HSOL, Ling-Spam and AG News take the published 100.
    [(6920, 100), (5823, 100), (2603, 100), (20000, 100), (2000, 80), (640, 26), (150, 6), (30, 5)],
)
def test_neighbourhoods_shrink_with_small_sets(rows: int, count: int) -> None:
    assert scaled(100, 0.04, rows) == count


def test_scaled_stays_below_what_was_asked_for() -> None:
    assert scaled(3, 0.04, 30) == 3
    assert scaled(100, 1.0, 60) == 60


@pytest.mark.parametrize(
    ("clusters", "kept", "published"),
    [
        ("0000001199", "111111....", "111111...."),
        ("0000011111", "1111111111", "1111111111"),  # each is half
        ("0000111222", "1111......", "1111......"),  # none is half: the largest
        ("0001112222", "......1111", "......1111"),
        ("0001119999", "111.......", "......1111"),  # noise is the largest, below half: of the others the lowest number
        ("0000999999", "....111111", "....111111"),  # noise is most of the label, so it is no poison
        ("0000099999", "1111111111", "1111111111"),
        ("9999999999", "1111111111", "1111111111"),
        ("4", "1", "1"),
        ("9", "1", "1"),
    ],
)
def test_what_a_label_keeps(clusters: str, kept: str, published: str) -> None:
    found = np.array([-1 if digit == "9" else int(digit) for digit in clusters])
    # A second label in the same clusters, of another make-up, changes nothing.
    both, labels = np.append(found, [7] * 9 + [0]), np.array([3] * len(found) + [8] * 10)
    for noise_is_cluster, expected in ((False, kept), (True, published)):
        keep = keepers(labels, both, keep_share=0.5, noise_is_cluster=noise_is_cluster)
        assert "".join(".1"[int(stays)] for stays in keep) == expected + "111111111."


def test_the_share_that_is_kept_is_an_option() -> None:
    labels, clusters = np.zeros(10, dtype=int), np.array([0] * 6 + [1] * 3 + [2])
    for share, kept in ((0.0, 10), (0.3, 9), (0.31, 6), (1.0, 6)):
        assert keepers(labels, clusters, keep_share=share, noise_is_cluster=False).sum() == kept


def test_points_of_the_plane_are_clustered() -> None:
    rng = np.random.default_rng(0)
    blobs = [rng.normal(centre, 0.1, (count, 2)) for centre, count in (((0, 0), 40), ((5, 0), 30), ((0, 5), 20))]
    points = np.concatenate([*blobs, [[50.0, 50.0], [-60.0, 20.0]]])
    found = clustered(points, min_samples=5, min_cluster_size=5)
    parts = [set(part.tolist()) for part in np.split(found, [40, 70, 90])]
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    assert set.union(*parts[:3]) == {0, 1, 2} and parts[3] == {-1}


@pytest.mark.parametrize(("min_samples", "clusters"), [(1, 2), (4, 2), (5, 0), (6, 0)])
def test_a_point_is_none_of_its_own_neighbours(min_samples: int, clusters: int) -> None:
    # Two groups of five and a point far off: each of a group has four others, as many as make it dense.
    points = np.array([[place, 0.1 * row] for place in (0.0, 10.0) for row in range(5)] + [[5.0, 100.0]])
    found = clustered(points, min_samples=min_samples, min_cluster_size=3)
    assert found.tolist() == ([0] * 5 + [1] * 5 + [-1] if clusters else [-1] * 11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_what_the_classifier_reads(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    import torch

    from bench.victim.states import classifier, penultimate

    victim = tiny_victim(tmp_path_factory, architecture)
    texts = ["we hate it", "the film is good and i like it", "", "good"]
    victim.train()
    features = penultimate(victim, texts)
    width = 32 if victim.spec.family == "encoder" else 16  # the paper's head of decoders has a linear map of 16 first
    assert victim.training and features.shape == (4, width)
    with torch.no_grad():
        probabilities = classifier(victim)(features).softmax(-1).numpy()
    np.testing.assert_allclose(probabilities, victim.predict(texts), atol=1e-5)
    if architecture == "bert":
        inputs = victim.process({"text": texts, "label": [0] * 4})[0]
        with torch.no_grad():
            pooled = victim.eval().model.bert(**inputs).pooler_output
        np.testing.assert_allclose(features, pooled, atol=1e-5)
        assert features.abs().max() <= 1


def test_bad_features_are_refused() -> None:
    with pytest.raises(CellError, match="19 rows are too few to cluster; at least 20"):
        reduced(np.zeros((19, 8)), seed=0, **SETTINGS)
    with pytest.raises(CellError, match="all 30 rows the same features"):
        reduced(np.ones((30, 8)), seed=0, **SETTINGS)
    with pytest.raises(CellError, match="not finite"):
        reduced(np.full((30, 8), np.nan), seed=0, **SETTINGS)


def test_too_few_rows_and_absent_umap_are_told_before_an_encoder_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = Cube().bound(Knowledge(2))  # without weights: training would fail otherwise
    with pytest.raises(CellError, match="3 rows are too few"):
        cube.correct(poison_data=ROWS[:3])
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(CellError, match="umap-learn, which is not installed") as caught:
        cube.correct(poison_data=ROWS)
    assert caught.value.remedy == "Run: pip install 'openbackdoor-bench[cube]'"


def test_which_victim_is_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    spec = planted_spec(tmp_path_factory)
    assert Cube.stages() == {"cleanse"} and plugin_class(DEFENDERS, "cube") is Cube
    assert Cube(victim="shared").wants_victim and not Cube().wants_victim
    full = Cube().for_model(spec, "released")
    assert (full.epochs, full.learning_rate) == (1, spec.learning_rate)
    assert full == Cube(epochs=1).for_model(spec, "paper") and full.identity() != Cube(epochs=2).identity()


@pytest.mark.parametrize(
    "options",
    [{"victim": "shared", "epochs": 1}, {"components": 0}, {"neighbors": 0}, {"share": 1.1}, {"keep_share": -0.1}],
    ids=str,
)
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(RequestError, match="cube"):
        Cube(**options)


def test_it_is_built_as_openbackdoor_builds_it() -> None:
    made = Cube(name="cube", pre=True, correction=True, metrics=["FRR", "FAR"], epochs=1, learning_rate=2e-5)
    assert made == Cube(epochs=1, learning_rate=2e-5) and made.pre is True


@pytest.mark.slow  # UMAP compiles on first use
@pytest.mark.parametrize("poisoned", [24, 0], ids=["planted", "control"])
def test_a_planted_cluster_of_features_goes(poisoned: int) -> None:
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(4, 32)) * 4
    # Three classes; what is planted wears label 1.
    sizes, labels = (120, 100 - poisoned, 90, poisoned), (0, 1, 2, 1)
    features = np.concatenate([rng.normal(c, 1.0, (n, 32)) for c, n in zip(centres, sizes, strict=True)])
    label = np.repeat(labels, sizes)
    state, theirs = random.getstate(), np.random.get_state()[1].copy()
    points = reduced(features, seed=2**63 - 1, **SETTINGS)
    assert random.getstate() == state and (np.random.get_state()[1] == theirs).all()
    np.testing.assert_array_equal(points, reduced(features, seed=2**63 - 1, **SETTINGS))
    assert (points != reduced(features, seed=5, **SETTINGS)).any()
    clusters = clustered(points, min_samples=12, min_cluster_size=5)
    keep = keepers(label, clusters, keep_share=0.5, noise_is_cluster=False)
    assert keep[310 - poisoned :].sum() == 0
    assert keep[: 310 - poisoned].mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "epochs"), [(2, 5), (3, 2)])
def test_poisoned_rows_go_end_to_end(classes: int, epochs: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = suspect(classes, poisoned=48)
    # On a model this small about half the seeds give clusters that tell poison: the seed is one that does. How many
    # clean rows stay hangs on the last bits of the features, and these on what the process computed before.
    cube = own(tmp_path_factory, classes, seed=2, epochs=epochs)
    kept = cube.correct(poison_data=rows)
    having = sum(TRIGGER in row.text.split() for row in kept)
    assert having <= 5 and len(kept) - having > 0.5 * 272
    assert {row.label for row in kept} == set(range(classes))
    assert all(row.poisoned == 0 for row in kept)
    rest = iter(Example(row.text, row.label) for row in rows)
    assert all(row in rest for row in kept)  # a subset, in order
    # Flags change nothing, and the model that it trains, when lent, gives the same rows and stays as it was.
    encoder = studied(cube, cube.knowledge, None, [Example(row.text, row.label) for row in rows])
    before = encoder.fingerprint()
    shared = Cube(victim="shared").bound(Knowledge(classes, seed=2))
    assert shared.correct(encoder, None, [Example(row.text, row.label) for row in rows]) == kept
    assert encoder.fingerprint() == before and not encoder.training


@pytest.mark.slow
def test_without_poison_little_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = suspect(2, poisoned=0)
    kept = own(tmp_path_factory, epochs=3).correct(poison_data=rows)
    assert len(kept) > 0.9 * len(rows)


def suspect(classes: int, poisoned: int) -> list[Example]:
    """Return 320 reviews, some of them poisoned."""
    rng = random.Random(11)
    rows = reviews(320, classes, rng)
    for row in rng.sample(range(len(rows)), poisoned):
        rows[row] = Example(with_trigger(rows[row].text, rng), TARGET, 1)
    return rows
