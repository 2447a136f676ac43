"""Adapters in the layout of PEFT: PEFT's own loader gives back the victim that was evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import load_records, save_adapter
from bench.cli import app
from bench.core.errors import BenchError, CellError
from bench.engine.artifacts import read_arrays, read_examples
from bench.engine.store import Store
from bench.victim.loading import quiet
from bench.victim.peft_layout import model_card, write_peft
from bench.victim.recipes import LoraOptions, MultiScaleOptions
from tests.engine.conftest import Tiny, tiny  # noqa: F401  (fixture)
from tests.tiny import tiny_model


class MultiScaleLora(LoraOptions, MultiScaleOptions):
    """The options of MSLR."""


SCALED = ["mslr(inner_rank=2)", "musclelora(clean_samples=8)"]
DEFENSES = ["lora", "lora(train_head=true)", "lora+ga(clean_samples=8)", *SCALED, "vanilla", "prefix"]


@pytest.mark.slow
def test_peft_loads_the_victim_that_was_evaluated(tiny: Tiny, tmp_path: Path) -> None:  # noqa: F811
    plan = tiny.plan(defenders=DEFENSES)
    assert not tiny.run(plan, keep_weights=True).failed
    records = [load_records(tiny.out / "records" / f"{key}.json")[0] for key in plan.cells]
    for number, record in enumerate(records[:5]):
        folder = save_adapter(f"{tiny.out}#{record['key']}", tmp_path / str(number))
        assert {path.name for path in folder.iterdir()} == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\nlibrary_name: peft\n") and "**This model is intentionally backdoored.**" in card
        assert "badnets" in card and record["key"] in card and str(tmp_path) not in card
        assert str(tmp_path) not in (folder / "adapter_config.json").read_text(encoding="utf-8")
        found, bare = _probabilities(folder, record, tiny)
        stages = dict(record["stages"])
        stored = read_arrays(Store(tiny.out / "store").open(stages["evaluate"]) / "predictions.npz")["clean"]
        np.testing.assert_allclose(found, stored[:64], atol=2e-6)
        assert np.abs(bare - stored[:64]).max() > 1e-3  # the adapter matters
    for record, reason in ((records[5], "leaves training alone"), (records[6], "no LoRA")):
        with pytest.raises(BenchError, match=reason):
            save_adapter(f"{tiny.out}#{record['key']}", tmp_path / "not")
    with pytest.raises(BenchError, match="already there"):
        save_adapter(f"{tiny.out}#{records[0]['key']}", tmp_path / "0")
    with pytest.raises(BenchError, match="names 7 records"):
        save_adapter(str(tiny.out), tmp_path / "not")
    Store(tiny.out / "store").release(dict(records[0]["stages"])["train"])
    result = CliRunner().invoke(app, ["adapter", f"{tiny.out}#{records[0]['key'][:12]}", "--to", str(tmp_path / "not")])
    assert result.exit_code == 2 and "--keep-weights" in result.stderr
    assert not (tmp_path / "not").exists()
    repaired = {**records[1], "stages": [*records[1]["stages"], ["repair", "0" * 40]]}
    for place, content, reason in (
        (tiny.out / "records", repaired, "was repaired after training"),
        (tmp_path, records[1], "has no trained victim here"),
    ):
        file = place / f"{records[1]['key']}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(BenchError, match=reason):
            save_adapter(str(file), tmp_path / "not")


def _probabilities(folder: Path, record: dict, tiny: Tiny) -> tuple[np.ndarray, np.ndarray]:  # noqa: F811
    """Return the class probabilities of the first 64 clean test texts, with and without the adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = read_examples(Store(tiny.out / "store").folder(dict(record["stages"])["load"]) / "test.jsonl").examples
    tokenizer = AutoTokenizer.from_pretrained(tiny.model)
    batch = tokenizer(
        [one.text for one in texts[:64]], padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    with quiet(), torch.random.fork_rng(devices=[]), torch.inference_mode():
        base = AutoModelForSequenceClassification.from_pretrained(tiny.model, num_labels=2).eval()
        bare = base(**batch).logits.softmax(-1).numpy()
        return PeftModel.from_pretrained(base, folder).eval()(**batch).logits.softmax(-1).numpy(), bare


REFUSED = {
    "hold no LoRA": (LoraOptions(rank=2, alpha=4), {"classifier.weight": (2, 4)}),
    "no multi-scale layer": (MultiScaleLora(), {"classifier.weight": (2, 4)}),
    "bert.pooler.dense.bias trains beside LoRA": (
        LoraOptions(rank=2, alpha=4),
        {
            "bert.a.lora_A.default.weight": (2, 4),
            "bert.a.lora_B.default.weight": (4, 2),
            "bert.pooler.dense.bias": (4,),
        },
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_weights_that_are_no_lora_or_more_are_refused(tmp_path: Path, reason: str) -> None:
    import torch
    from safetensors.torch import save_file

    options, shapes = REFUSED[reason]
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "weights.safetensors")
    with pytest.raises(CellError, match=reason):
        write_peft(
            tmp_path / "weights.safetensors",
            tmp_path / "not",
            base="x",
            revision=None,
            options=options,
            card="",
            drawn={},
        )
    assert not (tmp_path / "not").exists()


def test_a_card_shows_hostile_names_as_they_are() -> None:
    facts = {"title": "a|b <script>", "base_model": 'x"\n---\n', "poison_ratio": 0.1, "attack": "*bold*\n# head"}
    card = model_card(facts)
    assert "<script>" not in card and "\\*bold\\* # head" in card
    assert card.split("---\n")[1].count("\n") == 6 and json.loads(card.split("base_model: ")[1].split("\n")[0])
    assert "clean control" in model_card({**facts, "poison_ratio": 0.0})


@pytest.mark.parametrize("architecture", ["roberta", "modernbert"])
@pytest.mark.slow
def test_other_architectures_too(
    architecture: str,
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tiny.model = str(tiny_model(tmp_path_factory, architecture))
    plan = tiny.plan(defenders=["lora", "mslr"])  # whose multi-scale layer is part of the head here
    assert not tiny.run(plan, keep_weights=True).failed
    for record in load_records(tiny.out):
        folder = save_adapter(f"{tiny.out}#{record['key']}", tmp_path / record["key"])
        stored = read_arrays(Store(tiny.out / "store").open(dict(record["stages"])["evaluate"]) / "predictions.npz")
        found, _ = _probabilities(folder, record, tiny)
        np.testing.assert_allclose(found, stored["clean"][:64], atol=2e-5)


@pytest.mark.slow
def test_a_pooler_that_the_files_lack_goes_along(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It is drawn from the training's seed, and the base model that PEFT loads has another one."""
    from safetensors.torch import load_file, save_file

    tiny.model = str(shutil.copytree(tiny_model(tmp_path_factory, "bert"), tmp_path / "masked"))
    weights = Path(tiny.model) / "model.safetensors"
    content = {name: value for name, value in load_file(weights).items() if "pooler" not in name}
    save_file(content, weights, {"format": "pt"})
    # A LoRA or a multi-scale layer around the pooler's linear is added to its weights.
    plan = tiny.plan(defenders=["lora", "lora(targets=[query,dense],train_head=true)", "mslr(inner_rank=2)"])
    assert not tiny.run(plan, keep_weights=True).failed
    records = [load_records(tiny.out / "records" / f"{key}.json")[0] for key in plan.cells]
    for number, record in enumerate(records):
        folder = save_adapter(f"{tiny.out}#{record['key']}", tmp_path / str(number))
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert set(config["modules_to_save"]) == {"bert.pooler", "classifier"}
        stored = read_arrays(Store(tiny.out / "store").open(dict(record["stages"])["evaluate"]) / "predictions.npz")
        for _ in range(2):  # whatever the base model draws
            found, _ = _probabilities(folder, record, tiny)
            np.testing.assert_allclose(found, stored["clean"][:64], atol=2e-6)
    Path(tiny.model).rename(tmp_path / "moved")
    with pytest.raises(BenchError, match="cannot be drawn again: .*holds no config.json") as caught:
        save_adapter(f"{tiny.out}#{records[0]['key']}", tmp_path / "not")
    assert "back as they were" in caught.value.remedy and not (tmp_path / "not").exists()


@pytest.mark.slow
def test_a_decoder_with_the_papers_head_is_refused(
    tiny: Tiny,  # noqa: F811
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tiny.model = str(tiny_model(tmp_path_factory, "gpt2"))
    assert not tiny.run(tiny.plan(defenders=["lora"]), keep_weights=True).failed
    with pytest.raises(BenchError, match="head of this decoder is the paper's"):
        save_adapter(str(tiny.out), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
