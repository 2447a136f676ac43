"""Fine-pruning and its frozen variant: activity by hand, what is zero and stays so, and how the ratio is chosen."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from bench.victim.pruning import activity, blocks, least_active, slices, zero
from defenders.fine_pruning import FinePruning
from defenders.fine_pruning_f import FinePruningF
from tests.defenders.planted import planted, planted_spec
from tests.tiny import ENCODERS, INNER, LAYERS, tiny_victim

ARCHITECTURES = (*ENCODERS, "gpt2", "llama", "qwen3")
ROWS = tuple(
    Example("the film is good and i like it" if row % 2 else "what a cold and empty mess", row % 2) for row in range(8)
)
KNOWN = Knowledge(2, clean=ROWS, calibration=ROWS, seed=4)


def zeros(victim: Any, parts: Any) -> list[torch.Tensor]:
    """Return the parts of the victim's weights as they are."""
    return [victim.tensors()[name].index_select(dimension, at).detach() for name, dimension, at in parts]


def pruned(victim: Any, indices: list[torch.Tensor], side: str) -> Any:
    """Return a copy of the victim without these neurons."""
    victim = copy.deepcopy(victim)
    zero(victim, slices(victim, blocks(victim), indices, side))
    return victim


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_either_side_silences_the_neurons_of_every_architecture(tmp_path_factory: Any, architecture: str) -> None:
    victim = tiny_victim(tmp_path_factory, architecture)
    layers = blocks(victim)
    assert [layer.neurons for layer in layers] == [INNER] * LAYERS
    before = activity(victim, layers, ROWS, "absolute")
    indices = [torch.tensor([0, 5]), torch.tensor([INNER - 1])]
    incoming, outgoing = (pruned(victim, indices, side) for side in ("incoming", "outgoing"))
    texts = [row.text for row in ROWS]
    assert torch.allclose(*(torch.from_numpy(item.predict(texts)) for item in (incoming, outgoing)), atol=1e-5)
    assert not torch.allclose(*(torch.from_numpy(item.predict(texts)) for item in (incoming, victim)), atol=1e-5)
    after = activity(incoming, layers, ROWS, "absolute")
    assert all((was > 0).all() for was in before)
    assert [(now == 0).nonzero().squeeze(1).tolist() for now in after] == [at.tolist() for at in indices]
    # Padding does not count, nor does the batch: each text alone gives the same mean over tokens.
    lengths = victim.encode(ROWS).lengths
    alone = sum(activity(victim, layers, [row], "signed")[0] * n for row, n in zip(ROWS, lengths, strict=True))
    assert torch.allclose(activity(victim, layers, ROWS, "signed")[0], alone / sum(lengths), atol=1e-5)


def test_activity_by_hand(tmp_path_factory: Any) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    layers = blocks(victim)
    first = victim.model.get_submodule(layers[0].leading)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.copy_(torch.linspace(-1, 1, INNER))
    expected = torch.nn.functional.gelu(torch.linspace(-1, 1, INNER)).double()  # whatever the token
    assert torch.allclose(activity(victim, layers, ROWS, "signed")[0], expected, atol=1e-6)
    assert torch.allclose(activity(victim, layers, ROWS, "absolute")[0], expected.abs(), atol=1e-6)
    with pytest.raises(CellError, match="no clean rows"):
        activity(victim, layers, (), "signed")


def test_the_least_active_of_each_layer_or_of_all() -> None:
    scores = [torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([30.0, 10.0, 20.0, 0.5])]
    assert [at.tolist() for at in least_active(scores, 0.5, "layer")] == [[1, 3], [1, 3]]
    assert [at.tolist() for at in least_active(scores, 0.5, "model")] == [[1, 2, 3], [3]]
    assert [at.tolist() for at in least_active(scores, 0.0, "layer")] == [[], []]


@pytest.mark.parametrize("side", ["incoming", "outgoing"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert", "gpt2", "llama"])
def test_what_is_pruned_stays_zero_only_when_frozen(tmp_path_factory: Any, architecture: str, side: str) -> None:
    victim = tiny_victim(tmp_path_factory, architecture, options={"learning_rate": 1e-2})
    layers, options = blocks(victim), {"ratio": 0.25, "epochs": 2, "batch_size": 4, "side": side}
    at = least_active(activity(victim, layers, ROWS, "absolute"), 0.25, "layer")
    parts = slices(victim, layers, at, side)
    assert sum(len(indices) for indices in at) == LAYERS * INNER // 4
    frozen, free = (cls(**options).repair(copy.deepcopy(victim), KNOWN) for cls in (FinePruningF, FinePruning))
    # The bit patterns: no negative zero either.
    assert all((value.view(torch.int32) == 0).all() for value in zeros(frozen, parts))
    assert any((value != 0).any() for value in zeros(free, parts))
    assert all((value != 0).any() for value in zeros(victim, parts) if value.dim() == 2)
    # The rest was trained in both.
    for repaired in (frozen, free):
        assert not torch.equal(repaired.word_embedding, victim.word_embedding) and repaired.spec == victim.spec
        assert repaired.repairs == [{"ratio": 0.25}]


def test_a_ratio_of_0_is_fine_tuning_and_the_last_layer_can_be_pruned_alone(tmp_path_factory: Any) -> None:
    from defenders.fine_tuning import FineTuning

    victim = tiny_victim(tmp_path_factory, "bert")
    tuned = FineTuning(epochs=1).repair(copy.deepcopy(victim), KNOWN)
    assert FinePruning(ratio=0.0, epochs=1).repair(copy.deepcopy(victim), KNOWN).fingerprint() == tuned.fingerprint()
    last = FinePruningF(ratio=0.5, layers="last", epochs=1).repair(copy.deepcopy(victim), KNOWN)
    silent = [int((last.model.get_submodule(layer.leading).weight == 0).all(1).sum()) for layer in blocks(last)]
    assert silent == [0, INNER // 2]


def test_the_ratio_is_the_largest_that_keeps_clean_accuracy(tmp_path_factory: Any) -> None:
    data, spec = planted(tmp_path_factory), planted_spec(tmp_path_factory)
    known = Knowledge(2, tuple(data.dev[:64]), tuple(data.dev[64:]), seed=1, model=spec)
    held_out = data.victim.encode(known.calibration)
    layers = blocks(data.victim)
    scores = activity(data.victim, layers, known.clean, "absolute")
    grid = (0.1, 0.5, 1.0)
    by_hand = {
        ratio: pruned(data.victim, least_active(scores, ratio, "layer"), "incoming").accuracy(held_out)
        for ratio in grid
    }
    # Halfway between all neurons gone, which must not do, and few gone, which must: then all candidates are tried.
    accepted = data.victim.accuracy(held_out) - (by_hand[1.0] + by_hand[0.1]) / 2
    needed = data.victim.accuracy(held_out) - accepted
    options = FinePruning(grid=grid, accepted_loss=accepted, epochs=1)
    (note,) = options.repair(copy.deepcopy(data.victim), known).repairs
    assert note["needed"] == needed
    assert note["ratio"] == max(ratio for ratio in grid if by_hand[ratio] >= needed)
    assert note["accuracies"] == {str(key): by_hand[key] for key in sorted(grid, reverse=True) if key >= note["ratio"]}
    assert by_hand[1.0] < needed and len(note["accuracies"]) > 1  # each candidate prunes the victim as it was
    impossible = dataclasses.replace(options, grid=(0.3,), accepted_loss=0.0)
    (note,) = impossible.repair(copy.deepcopy(data.victim), known).repairs
    assert note["ratio"] == 0.3
    with pytest.raises(CellError, match="No clean rows are left to choose ratio by"):
        options.repair(copy.deepcopy(data.victim), dataclasses.replace(known, calibration=()))


def test_repairs_repeat_exactly(tmp_path_factory: Any) -> None:
    victim = tiny_victim(tmp_path_factory, "gpt2")
    found = []
    for seed, noise in ((4, 0), (4, 1), (5, 0)):
        torch.manual_seed(noise)
        known = dataclasses.replace(KNOWN, seed=seed)
        found.append(FinePruningF(epochs=1, batch_size=4).repair(copy.deepcopy(victim), known).fingerprint())
    assert found[0] == found[1] != found[2]
