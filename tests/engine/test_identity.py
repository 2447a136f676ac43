"""Who is the same: what options mean and what files hold, not how it is written or where it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import RequestError
from bench.core.spec import Cell, Part
from bench.data import dataset_spec
from bench.engine.chain import links_of
from bench.engine.expand import dataset_part, expand, model_part
from bench.engine.grid import Grid
from bench.engine.plan import make_plan
from tests.engine.conftest import Tiny
from tests.engine.keys import keys_of
from tests.engine.test_faults import records

ROOT = Path(__file__).resolve().parents[2]
SST2_2K = "8a6aa87a506231cb93a09074d4970e73392a37659c7d22783c95d8dd5dca8daa"
COUNTS = "the\t100\nfilm\t20\n"


def cells(**axes: Any) -> dict[str, Cell]:
    base = {"datasets": ["demo"], "attacks": ["badnets"], "models": ["minilm-l6"], "defenders": ["vanilla"]}
    return dict(expand([Grid(**{**base, **axes})]).cells)


def test_the_published_cells_keep_their_ids() -> None:
    lines = (ROOT / "leaderboard" / "records.jsonl").read_text("utf-8").splitlines()
    for record in map(json.loads, lines):
        given = record["cell"]
        choices = {
            axis: {**given[of]["options"], "name": given[of].get("source") or given[of]["name"]}
            for axis, of in (("attacks", "attack"), ("models", "model"))
        }
        parts = [Part(given[of]["name"], given[of]["options"], given[of].get("source", "")) for of in ("defense",)]
        scalars = {name: given[name] for name in ("label_rule", "target_label", "seed", "recipe", "precision")}
        dataset = dataset_part(given["dataset"]["name"], {})[0]
        assert dataset.json() == given["dataset"]
        trained = {name: given["model"]["options"][name] for name in ("epochs", "learning_rate_pet")}
        model = model_part(given["model"]["name"], trained)[0]
        attack = next(iter(cells(attacks=[choices["attacks"]], recipes=[given["recipe"]]).values())).attack
        ratio = {"poison_ratio": given["poison_ratio"], "limit": given["limit"]}
        watched = given.get("analysis")
        looks_on = {"analysis": None if watched is None else Part(watched["name"], watched["options"])}
        cell = Cell(dataset=dataset, attack=attack, model=model, defense=parts[0], **scalars, **ratio, **looks_on)
        assert cell.key == record["key"]


def test_a_data_set_option_that_changes_nothing_is_no_other_data_set() -> None:
    plain = dataset_part("sst2-2k", {})[0]
    assert plain.options["subset_digest"] == SST2_2K
    for options in ({"subset": 2000}, {"subset": 2000, "subset_seed": 0, "disjoint": False}, {"dev": "file"}):
        assert dataset_part("sst2-2k", options)[0] == plain
    assert len(cells(datasets=["sst2-2k", "sst2-2k(subset=2000)"])) == 1
    # Other rows have another digest, or none that is known.
    for options in ({"subset": 1999}, {"subset_seed": 1}, {"disjoint": True}):
        assert dataset_spec("sst2-2k", options).subset_digest == ""
    assert dataset_spec("sst2-2k", {"subset_digest": "0" * 64}).subset_digest == "0" * 64


def test_a_model_is_what_its_folder_holds_wherever_that_lies(tiny: Tiny, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / Path(tiny.model).name
    shutil.copytree(tiny.model, moved)
    here, there = (tiny.plan(defenders=["vanilla"], models=[model]) for model in (tiny.model, str(moved)))
    assert len(here.cells) == 1 and list(here.cells) == list(there.cells)
    assert [stage.key for stage in here.unique()] == [stage.key for stage in there.unique()]
    assert tiny.run(there).done == 1
    (found,) = records(tiny.out).values()
    assert found["cell"]["model"]["options"]["path"].startswith("files:") and str(tmp_path) not in json.dumps(found)
    again = Tiny(tmp_path / "again", tiny.model, [])
    assert again.run(here).done == 1 and list(records(again.out).values()) == [found]
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "another": 1}))
    assert set(tiny.plan(defenders=["vanilla"], models=[str(moved)]).cells).isdisjoint(here.cells)


def test_a_worker_with_another_working_folder_finds_what_was_named_from_here(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    shutil.copytree(tiny.model, tmp_path / "here" / "model")
    (tmp_path / "here" / "counts.tsv").write_text(COUNTS)
    rows = [f"{'good' if number % 2 else 'bad'} film {number},{number % 2}" for number in range(60)]
    (tmp_path / "here" / "mine.csv").write_text("\n".join(["text,label", *rows]))
    monkeypatch.chdir(tmp_path / "here")
    defenders = ["e-pur(frequencies=counts.tsv, share=1)"]
    plan = tiny.plan(datasets=["mine.csv"], models=["./model"], defenders=defenders, limit=None)
    monkeypatch.chdir(tmp_path)
    assert tiny.run(plan).done == 1


def test_a_path_that_no_file_can_have_is_no_traceback_and_not_made_absolute() -> None:
    (cell,) = cells(models=["minilm-l6"], set={"model.path": "a\0b"}).values()
    assert cell.model.place == {"path": "a\0b"}
    for axes in (
        {"attacks": [{"name": "stylebkd", "bank_file": "a\0b"}]},
        {"defenders": [{"name": "e-pur", "frequencies": "a\0b"}]},
    ):
        with pytest.raises(RequestError, match="no file can have this name"):
            cells(**axes)


@pytest.mark.parametrize("chain", ["e-pur", "e-pur>fine-mixing"])
def test_a_file_of_word_counts_is_what_it_holds(tmp_path: Path, chain: str) -> None:
    found = []
    for folder, text in (("a", COUNTS), ("b", COUNTS), ("c", COUNTS + "dull\t3\n")):
        path = tmp_path / folder / "counts.tsv"
        path.parent.mkdir()
        path.write_text(text)
        (cell,) = cells(defenders=[chain.replace("e-pur", f"e-pur(frequencies={path})")]).values()
        assert str(tmp_path) not in json.dumps(cell.json())
        (_, defense), *_ = links_of(cell.defense)
        assert defense.frequencies == str(path) and not defense.calibrated  # a worker is told where it lies
        found.append((cell.key, {kind: sorted(keys) for kind, keys in keys_of(cell).items()}))
    assert found[0] == found[1] and found[0][0] != found[2][0] and found[0][1] != found[2][1]


def test_a_language_model_of_onion_is_what_its_folder_holds(tiny: Tiny, tmp_path: Path) -> None:
    found = set()
    for name in ("a", "b"):
        shutil.copytree(tiny.model, tmp_path / name)
        (cell,) = cells(defenders=[{"name": "onion", "lm": str(tmp_path / name)}]).values()
        ((_, defense),) = links_of(cell.defense)
        assert defense.lm == str(tmp_path / name) and cell.defense.options["lm"] == defense.lm_files
        found.add(cell.key)
    assert len(found) == 1


def test_what_both_recipes_train_alike_is_trained_once() -> None:
    axes = {"attacks": ["hiddenkiller"], "recipes": ["released", "paper"], "defenders": ["vanilla", "strip", "lora"]}
    plan = make_plan(expand([Grid(datasets=["demo"], models=["minilm-l6"], **axes)]))
    trainings = [stage for stage in plan.unique() if stage.kind == "train"]
    assert len(plan.cells) == 6 and len(trainings) == 3  # vanilla's, and LoRA's of each recipe
    assert sorted(stage.content["recipe"] for stage in trainings) == ["paper", "released", "released"]
    # Of decoders with a LoRA that stands for the whole model the recipe decides whether the head trains beside it.
    large = {"models": ["llama2-7b"], "defenders": ["vanilla"], "set": {"model.stand_in_rank": 4}}
    stood_for = make_plan(expand([Grid(datasets=["demo"], **{**axes, **large})]))
    assert sum(stage.kind == "train" for stage in stood_for.unique()) == 2
