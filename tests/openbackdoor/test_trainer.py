"""The contract of OpenBackdoor's four classes, its victims in our hands, and our trainer; the package is not needed."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from attackers.base import Attacker
from bench.core.errors import CellError, RequestError
from bench.core.example import Example
from bench.openbackdoor.trainer import Training, bound
from bench.openbackdoor.victims import as_ours
from bench.victim.victim import Victim
from defenders.base import Defender
from defenders.lora import Lora
from defenders.strip import Strip
from tests.openbackdoor.signatures import OURS, SIGNATURES, signature
from tests.tiny import tiny_victim

CLASSES = {"Defender": Defender, "Poisoner": Attacker, "Victim": Victim, "Trainer": Training}
ROWS = [Example(f"the {('bad', 'good')[i % 2]} film number {i}", i % 2, int(i % 8 == 1)) for i in range(24)]
DATA = {"train": ROWS, "dev-clean": ROWS[:16], "dev-poison": ROWS[:4]}
SETTINGS = {"lr": 1e-2, "epochs": 1, "batch_size": 8, "warm_up_epochs": 0, "ckpt": "last"}


@pytest.fixture
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return tiny_victim(tmp_path_factory, "bert")


def theirs(victim: Victim) -> Any:
    """Return what their `PLMVictim` holds, around the model of a victim of ours."""
    return SimpleNamespace(plm=victim.model, tokenizer=victim.tokenizer, max_len=32)


def copied(victim: Victim) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in victim.tensors().items()}


@pytest.mark.parametrize("name", CLASSES)
def test_ours_takes_what_theirs_takes(name: str) -> None:
    for method, parameters in SIGNATURES[name].items():
        known = {key: OURS[name].get(key, default) for key, default in parameters.items()}
        found = signature(CLASSES[name], method)
        assert {key: found.get(key, "missing") for key in known} == known, method
        if method != "__init__":
            extra = {key: value for key, value in found.items() if key not in known}
            assert "(required)" not in extra.values(), method


def test_a_victim_answers_as_theirs_do(victim: Victim) -> None:
    batch = {"text": ["a good film", "the bad one is it"], "label": torch.tensor([1, 0]), "poison_label": [0, 1]}
    inputs, labels = victim.process(batch)
    assert labels.tolist() == [1, 0] and set(inputs) >= {"input_ids", "attention_mask"}
    output = victim(inputs)
    assert output.logits.shape == (2, 2) and output[0] is output.logits and len(output.hidden_states) == 3
    assert output.hidden_states[-1].shape == (*inputs["input_ids"].shape, 32)
    assert isinstance(victim.word_embedding, torch.nn.Parameter) and victim.plm is victim.model
    assert victim.device.type == "cpu" and "input_ids" in victim.tokenizer("a")


def test_a_victim_of_theirs_is_seen_through_ours(victim: Victim) -> None:
    given = theirs(victim)
    victim.model.train()
    ours = as_ours(given)
    assert as_ours(victim) is victim and isinstance(ours, Victim) and ours.model is given.plm
    assert ours.classes == 2 and ours.max_length == 32 and ours.spec.penultimate == "bert.pooler.dense"
    assert ours.model.training
    victim.model.eval()
    texts = [text for text, *_ in ROWS]
    assert (ours.predict(texts) == victim.predict(texts)).all()


def test_what_a_detector_asks_is_answered_by_a_victim_of_theirs(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("openbackdoor.victims.victim")
    module.Victim = SimpleNamespace
    monkeypatch.setitem(sys.modules, module.__name__, module)
    strip = bound(Strip(repeat=2), victim, {"dev": ROWS})
    flags = [list(strip.detect(given, {"dev": ROWS}, ROWS[:6])) for given in (victim, theirs(victim))]
    assert flags[0] == flags[1] and len(flags[0]) == 6


@pytest.mark.parametrize("given", [SimpleNamespace(), SimpleNamespace(plm=torch.nn.Linear(2, 2))])
def test_a_victim_without_a_classifier_is_refused(given: Any) -> None:
    with pytest.raises(CellError, match="no sequence classifier"):
        as_ours(given)


def test_without_a_defense_everything_trains_and_the_spec_stays(victim: Victim) -> None:
    before, spec, state = copied(victim), victim.spec, random.getstate()
    trainer = Training(**SETTINGS)
    assert trainer.train(victim, DATA) is victim
    assert victim.spec is spec and random.getstate() == state
    assert (trainer.log.steps, trainer.log.epochs, trainer.log.best) == (3, 1, None)
    assert not any(value.equal(before[name]) for name, value in victim.tensors().items() if "classifier" in name)


def test_a_defense_wraps_the_model_of_a_victim_of_theirs(victim: Victim) -> None:
    before, given = copied(victim), theirs(victim)
    assert Training(defense={"name": "lora", "rank": 2}, **SETTINGS).train(given, DATA) is given
    after = dict(given.plm.named_parameters())
    inserted = [name for name in after if "lora" in name]
    assert inserted and all(after[name].requires_grad for name in inserted)
    assert any(after[name].abs().sum() > 0 for name in inserted if "lora_B" in name)  # they start at 0
    kept = {name: value for name, value in after.items() if name in before}
    assert len(kept) > 10 and all(value.equal(before[name]) for name, value in kept.items())


def test_the_hooks_of_a_defense_change_the_gradients(victim: Victim) -> None:
    found = {}
    start = victim.state_dict()
    start = {name: value.clone() for name, value in start.items()}
    for name in ("ga(clean_samples=4)", "vanilla"):
        victim.load_state_dict(start)
        defense = {"name": "ga", "clean_samples": 4} if name != "vanilla" else name
        Training(defense=defense, **SETTINGS).train(victim, DATA)
        found[name] = copied(victim)
    classifier = "classifier.weight"
    assert not found["ga(clean_samples=4)"][classifier].equal(found["vanilla"][classifier])


def test_a_repair_acts_after_the_training(victim: Victim) -> None:
    before = copied(victim)
    trainer = Training(defense={"name": "e-pur", "words": 3, "share": 1.0}, **SETTINGS)
    trainer.train(victim, DATA)
    (note,) = trainer.decided
    rows = victim.tokenizer.convert_tokens_to_ids(note["reset"])
    own, pretrained = victim.word_embedding, before["bert.embeddings.word_embeddings.weight"]
    assert len(rows) == 3 and own[rows].equal(pretrained[rows]) and not own.equal(pretrained)


def test_selection_and_the_defense_get_different_clean_rows(victim: Victim) -> None:
    knowledge = bound(Lora(rank=2), victim, {"dev": ROWS[:16], "test": ROWS}).knowledge
    assert (knowledge.clean, knowledge.calibration, knowledge.pretrained) == ((), (), None)
    trainer = Training(defense={"name": "musclelora", "clean_samples": 8}, **{**SETTINGS, "ckpt": "best"})
    trainer.train(victim, DATA)
    assert len(trainer.log.selection) == 1 and all(share * 8 % 1 == 0 for share in trainer.log.selection)
    with pytest.raises(CellError, match="needs 9 clean samples, and half of the dev split holds 8"):
        Training(defense={"name": "musclelora", "clean_samples": 9}, **SETTINGS).train(victim, DATA)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"weight_decay": 0.1}, "weight_decay 0.0, not 0.1"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps 1, not 2"),
        ({"visualize": True}, "visualize False, not True"),
        ({"ckpt": "first"}, "ckpt is 'first'"),
        ({"defense": "musclelra"}, "no defender named 'musclelra'"),
        ({"defense": {"rank": 2}}, "has no name"),
        ({"defense": {"name": "lora", "rnk": 2}}, "named 'rnk'"),
        ({"defense": {"name": "bki"}}, r"'bki' acts at cleanse; a trainer applies train and repair.*attack\(\)"),
        ({"defense": "cube"}, "'cube' acts at cleanse"),
        ({"defense": "onion"}, "'onion' acts at filter"),
        ({"defense": Strip()}, r"'strip' acts at detect.*eval\(\)"),
    ],
)
def test_a_wrong_setting_is_refused(setting: dict, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        Training(**setting)
