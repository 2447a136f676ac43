"""Fine-mixing, Fine-mixing (Sel) and fine-tuning: the mask, both ends of rho, its choice, a planted trigger."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.core.errors import CellError, RequestError
from bench.core.knowledge import Knowledge
from bench.core.options import build
from bench.core.registry import DEFENDERS, plugin_class
from bench.engine.clean_rows import divide
from bench.victim.clean_tuning import first_reaching
from bench.victim.loading import load_victim
from bench.victim.mixing import drawn, kept_entries, lowest, mix, mixable, moved
from bench.victim.spec import model_spec
from tests.defenders.planted import TARGET, Planted, planted, planted_spec
from tests.tiny import tiny_victim

REPAIRS = ("fine-tuning", "fine-mixing", "fine-mixing-sel", "fine-pruning", "fine-pruning-f", "e-pur")


def defense(name: str, **options: Any) -> Any:
    """Return a defense with the planted model's learning rate filled in."""
    made = build(plugin_class(DEFENDERS, name), options, "defender", name)
    return made if name == "e-pur" else dataclasses.replace(made, learning_rate=made.learning_rate or 3e-3)


def accuracies(victim: Any, data: Planted) -> tuple[float, float]:
    """Return clean accuracy and attack success rate."""
    clean = victim.predict([row.text for row in data.test_clean]).argmax(-1) == [row.label for row in data.test_clean]
    return clean.mean(), (victim.predict([row.text for row in data.test_poisoned]).argmax(-1) == TARGET).mean()


@pytest.fixture
def data(tmp_path_factory: Any) -> Planted:
    """Return the planted victim and its data."""
    return planted(tmp_path_factory)


@pytest.fixture
def knowledge(tmp_path_factory: Any, data: Planted) -> Callable[..., Knowledge]:
    """Return a maker of what a repair may know; each fresh victim has another head than the planted one."""
    spec = planted_spec(tmp_path_factory)

    def make(rows: int = 64, seed: int = 5) -> Knowledge:
        clean, rest = tuple(data.dev[:rows]), tuple(data.dev[64:])
        return Knowledge(2, clean, rest, seed=seed, model=spec, pretrained=lambda: load_victim(spec, 2, seed=99))

    return make


def repaired(data: Planted, known: Knowledge, name: str, **options: Any) -> Any:
    """Return a repaired copy of the planted victim."""
    made = defense(name, **options)
    return made.bound(known).repair(copy.deepcopy(data.victim), known)


def masks(shapes: dict[str, tuple[int, ...]], rho: float, within: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the masks that are drawn for zeros of these shapes."""
    empty = {name: torch.zeros(shape) for name, shape in shapes.items()}
    score = drawn(seed)
    return dict(kept_entries(((name, score(name, value, value)) for name, value in empty.items()), rho, within))


def test_the_share_kept_is_rho_and_a_function_of_the_seed() -> None:
    shapes = {"a": (300, 100), "b": (10_000,), "c": (7,)}
    first = masks(shapes, 0.3, "entries")
    # The standard error of a share of 30,000 entries is 0.0026, of 10,000 it is 0.0046.
    assert abs(first["a"].double().mean() - 0.3) < 0.012 and abs(first["b"].double().mean() - 0.3) < 0.02
    assert all(torch.equal(mask, masks(shapes, 0.3, "entries")[name]) for name, mask in first.items())
    other = masks(shapes, 0.3, "entries", seed=1)["a"]
    # Two independent draws at 0.3 keep 0.09 in common; two tensors of one seed are drawn apart as well.
    assert abs((other & first["a"]).double().mean() - 0.09) < 0.01
    assert abs((first["a"].flatten()[:10_000] & first["b"]).double().mean() - 0.09) < 0.015
    wider = masks(shapes, 0.6, "entries")
    assert all((mask <= wider[name]).all() for name, mask in first.items())


def test_an_exact_share_of_each_tensor_or_of_all() -> None:
    shapes = {"a": (30, 10), "b": (101,), "c": (7,)}
    assert {name: int(mask.sum()) for name, mask in masks(shapes, 0.3, "tensor").items()} == {"a": 90, "b": 30, "c": 2}
    assert sum(int(mask.sum()) for mask in masks(shapes, 0.3, "model").values()) == 122  # of 408
    for within in ("entries", "tensor", "model"):
        assert not any(mask.any() for mask in masks(shapes, 0.0, within).values())
        assert all(mask.all() for mask in masks(shapes, 1.0, within).values())


def test_the_lowest_of_equals_are_the_first() -> None:
    values = torch.tensor([2.0, 1.0, 0.0, 1.0, 1.0])
    assert lowest(values, 2).tolist() == [False, True, True, False, False]
    assert lowest(values, 3).tolist() == [False, True, True, True, False]
    assert not lowest(values, 0).any() and lowest(values, 5).all()


def test_selection_keeps_what_moved_least_or_most() -> None:
    own, before = torch.tensor([1.0, -3.0, 2.0, 0.5]), torch.tensor([1.0, 1.0, 0.0, 1.0])  # distances 0, 4, 2, 0.5
    for sign, expected in ((1, [True, False, False, True]), (-1, [False, True, True, False])):
        ((_, mask),) = kept_entries(iter([("w", moved(sign)("w", own, before))]), 0.5, "tensor")
        assert mask.tolist() == expected


@pytest.mark.parametrize("name", ["fine-mixing", "fine-mixing-sel"])
def test_rho_1_is_fine_tuning(data: Planted, knowledge: Any, name: str) -> None:
    known = knowledge(rows=24)
    assert (
        repaired(data, known, name, rho=1.0, epochs=2).fingerprint()
        == repaired(data, known, "fine-tuning", epochs=2).fingerprint()
        != data.victim.fingerprint()
    )


def test_rho_0_starts_from_the_pretrained_weights_exactly(
    data: Planted, knowledge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, torch.Tensor]] = []

    def train(victim: Any, rows: Any, selection: Any, *, seed: int, hooks: Any) -> None:
        started.append({name: value.detach().clone() for name, value in victim.tensors().items()})

    monkeypatch.setattr("bench.victim.clean_tuning.train", train)
    known = knowledge()
    fresh, planted_tensors = known.fresh_victim().tensors(), data.victim.tensors()
    for name, head in (("fine-mixing", "kept"), ("fine-mixing-sel", "kept"), ("fine-mixing", "fresh")):
        repaired(data, known, name, rho=0.0, head=head)
        for tensor, value in started.pop().items():
            backbone = tensor.startswith("bert.")
            assert torch.equal(value, (fresh if backbone or head == "fresh" else planted_tensors)[tensor]), tensor
    assert not torch.equal(fresh["classifier.weight"], planted_tensors["classifier.weight"])
    # Between the ends every entry is one of the two, and both occur.
    repaired(data, known, "fine-mixing", rho=0.5)
    value, own, before = (group["bert.pooler.dense.weight"] for group in (started.pop(), planted_tensors, fresh))
    assert ((value == own) | (value == before)).all() and 0.4 < (value == own).double().mean() < 0.6


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "gpt2", "llama"])
def test_what_is_mixed_is_an_option_on_every_architecture(tmp_path_factory: Any, architecture: str) -> None:
    victim = tiny_victim(tmp_path_factory, architecture)
    prefix = f"{victim.model.base_model_prefix}."
    backbone = [name for name in victim.tensors() if name.startswith(prefix)]
    assert mixable(victim, defense("fine-mixing")) == backbone
    bare = mixable(victim, defense("fine-mixing", embeddings=False, norms=False, biases=False, pooler=False))
    # What is left are the maps of the layers: no vectors, no tables of words or positions, no pooler.
    assert bare and all(victim.tensors()[name].dim() == 2 and ".pooler." not in name for name in bare)
    words = next(name for name, value in victim.tensors().items() if value is victim.word_embedding)
    assert words in backbone and words not in bare
    pooled = set(backbone) - set(mixable(victim, defense("fine-mixing", pooler=False)))
    assert {name.removeprefix(prefix) for name in pooled} == (
        {"pooler.dense.weight", "pooler.dense.bias"} if architecture == "bert" else set()
    )
    own = {name: torch.ones_like(victim.tensors()[name]) for name in backbone}
    mix(victim, own, {name: torch.zeros_like(value) for name, value in own.items()}, 0.25, drawn(0), "entries")
    share = torch.cat([victim.tensors()[name].detach().flatten() for name in backbone])
    assert set(share.unique().tolist()) == {0.0, 1.0} and abs(share.mean() - 0.25) < 0.02


def test_rho_is_the_first_candidate_that_is_accurate_enough() -> None:
    calls: list[float] = []

    def attempt(rho: float) -> float:
        calls.append(rho)
        return {0.1: 0.5, 0.3: 0.8, 0.5: 0.8, 0.7: 0.7}[rho]

    assert first_reaching((0.1, 0.3, 0.5, 0.7), attempt, 0.8) == (0.3, {0.1: 0.5, 0.3: 0.8})
    assert calls == [0.1, 0.3]
    calls.clear()
    # None reaches it: the smaller of the two best, and its weights are made again.
    assert first_reaching((0.1, 0.3, 0.5, 0.7), attempt, 0.9)[0] == 0.3
    assert calls == [0.1, 0.3, 0.5, 0.7, 0.3]


def test_fine_mixing_takes_the_trigger_out_and_keeps_the_task(data: Planted, knowledge: Any) -> None:
    before = accuracies(data.victim, data)
    known = knowledge()
    assert before[0] > 0.9 and before[1] > 0.95
    tuned = accuracies(repaired(data, known, "fine-tuning"), data)
    mixed_victim = repaired(data, known, "fine-mixing")
    mixed = accuracies(mixed_victim, data)
    assert mixed[1] < before[1] - 0.5 < tuned[1] and mixed[0] > before[0] - 0.1
    (note,) = mixed_victim.repairs
    assert note["rho"] == 0.1 and note["accuracies"]["0.1"] >= note["needed"] - 1e-9
    assert mixed_victim.spec == data.victim.spec and not mixed_victim.training


def test_the_same_seed_repairs_alike(data: Planted, knowledge: Any) -> None:
    found = []
    for seed, noise in ((5, 0), (5, 1), (6, 0)):
        torch.manual_seed(noise)
        found.append(repaired(data, knowledge(16, seed), "fine-mixing", rho=0.4, epochs=1).fingerprint())
    assert found[0] == found[1] != found[2]


def test_only_choosing_rho_needs_other_rows(data: Planted, knowledge: Any) -> None:
    known = dataclasses.replace(knowledge(8), calibration=())
    assert repaired(data, known, "fine-mixing", rho=0.4, epochs=1).repairs == [{"rho": 0.4}]
    with pytest.raises(CellError, match="No clean rows are left to choose rho by"):
        repaired(data, known, "fine-mixing", epochs=1)
    with pytest.raises(CellError, match="There are no training rows"):
        repaired(data, dataclasses.replace(known, clean=()), "fine-mixing", rho=0.4)


def test_rows_for_tuning_and_for_choosing_are_disjoint(data: Planted) -> None:
    made = defense("fine-mixing", clean_samples=40)
    numbered = [row._replace(text=f"{place} {row.text}") for place, row in enumerate(data.dev)]
    parts = divide(numbered, made.samples(), made.calibrated, "planted", 0)
    groups = [{row.text for row in part} for part in parts]
    assert [len(group) for group in groups] == [60, 40, 20] and len(set().union(*groups)) == 120
    assert divide(numbered, made.samples(), defense("fine-mixing", rho=0.5).calibrated, "planted", 0).calibration == ()
    for name in REPAIRS[:-1]:
        assert defense(name).samples() == 64
        with pytest.raises(CellError, match="needs 64 clean samples, and half of the dev split holds 60"):
            divide(numbered, defense(name).samples(), False, "planted", 0)


def test_victims_of_inserted_modules(tmp_path_factory: Any, data: Planted, knowledge: Any) -> None:
    known = knowledge(16)
    lora = plugin_class(DEFENDERS, "lora")(rank=2, alpha=4.0, targets=("query",), train_head=True).bound(known)
    victim = load_victim(known.model, 2, seed=1)
    lora.wrap(victim)
    before = victim.fingerprint()
    for name in ("fine-mixing", "fine-mixing-sel", "fine-pruning", "fine-pruning-f"):
        with pytest.raises(CellError, match="only inserted modules"):
            defense(name).repair(victim, known)
    with pytest.raises(CellError, match="word embedding of this victim was not trained"):
        defense("e-pur").repair(victim, known)
    assert victim.fingerprint() == before
    frozen = victim.word_embedding.detach().clone()
    tuned = defense("fine-tuning", epochs=1, learning_rate_pet=1e-2).repair(victim, known)
    assert torch.equal(tuned.word_embedding, frozen) and tuned.fingerprint() != before
    # AdamW's first step is one learning rate long: the rate of inserted modules is the one in force.
    factor = next(value for name, value in tuned.trainable().items() if "lora_B" in name)
    assert factor.abs().max() > 5e-3


@pytest.mark.parametrize("name", REPAIRS)
def test_stages_options_and_openbackdoors_keywords(name: str) -> None:
    cls, model = plugin_class(DEFENDERS, name), model_spec("minilm-l6")
    assert cls.stages() == {"repair"} and cls().calibrated is (name != "fine-tuning")
    # What OpenBackdoor's load_defender passes, beside the options.
    keywords = {"name": name, "pre": False, "correction": False, "metrics": ["FRR", "FAR"]}
    options = {"words": 10} if name == "e-pur" else {"epochs": 3}
    made = cls(**keywords, **options)
    assert made == cls(**options) and next(iter(options.items())) in made.identity().items()
    full = cls().for_model(model, "released")
    assert build(cls, full.identity(), "defender", name).for_model(model, "paper") == full
    assert name == "e-pur" or full.learning_rate == model.learning_rate


def test_options_out_of_range_are_refused() -> None:
    for name, options in {
        "fine-mixing": {"rho": 1.5},
        "fine-mixing-sel": {"keep": "middle"},
        "fine-pruning": {"grid": ()},
        "fine-tuning": {"clean_samples": 0},
        "e-pur": {"words": 0},
    }.items():
        with pytest.raises(RequestError, match=next(iter(options))):
            defense(name, **options)


def test_importing_the_repairs_imports_no_torch() -> None:
    modules = ", ".join(f"defenders.{name.replace('-', '_')}" for name in REPAIRS)
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
