"""Cells on decoders end to end: the defenses of Table 4 on a tiny Llama, and what planning refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.engine.expand import expand
from bench.engine.grid import Grid, load_grid, narrowed
from bench.report.paper import published_table, settings
from bench.report.render import render
from bench.victim.spec import model_spec
from tests.defenders.judges import causal
from tests.engine.conftest import Tiny
from tests.tiny import tiny_model

STAND_IN = {"vanilla", "onion", "strip"}


@pytest.mark.slow
def test_the_defenses_of_table_4_on_a_decoder(tmp_path: Path, tmp_path_factory: Any) -> None:
    """Six cells, four trainings: what trains the whole model shares one LoRA victim, and the pages say so."""
    tiny = Tiny(tmp_path / "out", str(tiny_model(tmp_path_factory, "llama")), [])
    defenders = ["vanilla", "lora", "prefix", f"onion(lm={causal(tmp_path_factory, 'gpt2')})", "strip(repeat=2)"]
    defenders.append("musclelora(clean_samples=40)")
    plan = tiny.plan(defenders=defenders, limit=None, set={"model.stand_in_rank": 16})
    report = tiny.run(plan)
    assert not report.failed and report.cells == 6
    assert tiny.events.count("train") == 4
    records = _records(tiny.out)
    assert {name for name, one in records.items() if one["stand_in_rank"] == 16} == STAND_IN
    assert all(one["stand_in_rank"] is None for name, one in records.items() if name not in STAND_IN)
    # q_proj 32 -> 32 and v_proj 32 -> 16, rank 16, two layers; the head stays frozen.
    assert records["onion"]["cost"]["trainable_parameters"] == 2 * 16 * (32 + 32 + 32 + 16)
    assert records["musclelora"]["knowledge"]["method"] == 40  # the demo has no 128 to give
    assert records["strip"]["metrics"]["frr"] is not None
    pages = render(list(records.values()))
    said = [line for line in pages["README.md"].splitlines() if "stands for full fine-tuning" in line]
    assert said == ["- LoRA of rank 16 stands for full fine-tuning of llama under Vanilla, ONION, STRIP."]


def _records(out: Path) -> dict[str, Any]:
    from bench.report.records import load_records

    return {record["cell"]["defense"]["name"]: record for record in load_records(out)}


def test_table_4_is_the_transcription() -> None:
    """Its cells, S, mu_max, clean samples and training settings; LoRA of rank 1024 stands for full fine-tuning."""
    cells = list(expand(load_grid("table4").blocks()).cells.values())
    found = {(cell.dataset.name, cell.model.name, cell.attack.name, cell.defense.name) for cell in cells}
    assert found == set(published_table(4)) and len(cells) == 18
    paper = settings()["models"]["llama2-7b"]
    for cell in cells:
        assert cell.model.options["stand_in_rank"] == 1024 and cell.model.options["head"] == "paper"
        if cell.defense.name == "musclelora":
            options = cell.defense.options
            assert options["scales"] == paper["scaling_factors"] == [1, 2, 3, 4]
            assert (options["mu_max"], options["clean_samples"]) == (paper["mu_max"], paper["clean_auxiliary_samples"])
            assert (options["rank"], options["inner_rank"]) == (paper["pet_bottleneck_dim"], paper["bandwidth_r"])
    whole = expand(narrowed(load_grid("table4").blocks(), {"set": {"model.stand_in_rank": None}})).cells.values()
    assert all("stand_in_rank" not in cell.model.options for cell in whole)


def test_bf16_weights_are_refused_where_they_would_train_or_pass_for_fp32() -> None:
    def reasons(**options: Any) -> dict[tuple[str, str], str]:
        model = {"name": "llama2-7b", "weights": "bf16", **options}
        grid = Grid(
            datasets=("demo",),
            attacks=("addsent",),
            models=(model,),
            defenders=("vanilla", "onion", "ga", "lora", "lora>strip"),
            precisions=("fp32", "bf16"),
        )
        found = expand([grid])
        return {
            (cell.defense.name, cell.precision): found.impossible[key].problem
            for key, cell in found.cells.items()
            if key in found.impossible
        }

    whole = reasons()
    assert {place for place, text in whole.items() if "have bf16 weights" in text or "has bf16 weights" in text} == {
        (name, "fp32") for name in ("vanilla", "onion", "ga", "lora", "lora>strip")
    }
    assert {place for place in whole if place[1] == "bf16"} == {(name, "bf16") for name in ("vanilla", "onion", "ga")}
    assert "trains the whole of model 'llama2-7b'" in whole["onion", "bf16"]
    assert {place for place in reasons(stand_in_rank=1024) if place[1] == "bf16"} == set()


def test_a_setting_of_no_effect_on_results_is_not_in_the_identity() -> None:
    """What the memory plan reads of a model file is not an option of the model."""
    assert "shape" not in model_spec("llama2-7b").identity()
