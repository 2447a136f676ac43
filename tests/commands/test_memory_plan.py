"""The memory lines of `bench plan`: what 7 B models take, what holds them, and the change that makes them fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app


def planned(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def rows(lines: list[str]) -> dict[str, dict[str, str]]:
    """Return the table of memories: training -> column -> text."""
    (place,) = (place for place, line in enumerate(lines) if line.startswith("memory of a training"))
    header = re.split(r"\s{2,}", lines[place + 1].strip())
    found = {}
    for line in lines[place + 2 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) == len(header):
            found[cells[1]] = dict(zip(header, cells, strict=True))
    return found


def test_seven_billion_on_24_and_80_gb() -> None:
    lines = planned("--grid", "table4", "--memory", "24GB,80GB")
    found = rows(lines)
    assert set(found) == {"vanilla (LoRA 1024)", "lora", "prefix", "musclelora"}
    assert {row["model"] for row in found.values()} == {"llama2-7b"}
    assert {row["weights"] for name, row in found.items() if name in ("lora", "musclelora")} == {"26.4"}
    assert {(row["fits 24GB"], row["fits 80GB"]) for row in found.values()} == {("no", "yes")}
    assert "  llama2-7b / lora fits 24GB with --precisions bf16 --set model.weights=bf16" in lines


def test_the_change_that_is_named_makes_it_fit() -> None:
    before = planned("--grid", "table4", "--memory", "24GB", "--defenders", "prefix")
    (advice,) = (line for line in before if "prefix fits 24GB with " in line)
    after = planned("--grid", "table4", "--memory", "24GB", "--defenders", "prefix", *advice.split(" with ")[1].split())
    assert rows(before)["prefix"]["fits 24GB"] == "no" and rows(after)["prefix"]["fits 24GB"] == "yes"


def test_the_whole_of_a_7b_model_needs_a_stand_in() -> None:
    whole = ["--grid", "table4", "--defenders", "vanilla", "--set", "model.stand_in_rank=null", "--memory", "80GB"]
    lines = planned(*whole)
    assert rows(lines)["vanilla"]["fits 80GB"] == "no"
    assert float(rows(lines)["vanilla"]["peak"]) > 105.7  # 16 bytes for each of 6.6 billion numbers
    assert "  llama2-7b / vanilla fits 80GB with --set model.stand_in_rank=1024" in lines


def test_the_default_is_a_share_of_this_machine_and_a_longer_batch_takes_more() -> None:
    short = planned("--grid", "table1", "--datasets", "sst2", "--attacks", "badnets", "--defenders", "vanilla")
    assert any("fits 80 % of this " in line for line in short)
    long = planned("--grid", "table1", "--datasets", "sst2", "--defenders", "vanilla", "--length", "512")
    assert float(rows(long)["vanilla"]["peak"]) > 2 * float(rows(short)["vanilla"]["peak"])


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    lines = planned("--grid", "demo", "--models", str(tmp_path), "--defenders", "vanilla", "--memory", "1GB")
    (said,) = (line for line in lines if "no memory estimate" in line)
    assert said.startswith(f"  no memory estimate for {tmp_path.name} / vanilla: ")
    assert not any(line.startswith("memory of a training") for line in lines)


@pytest.mark.parametrize("size", ["24GB", "24 gb", "22.35GiB", "24000 MB"])
def test_sizes(size: str) -> None:
    from bench.commands.memory_plan import budgets_of

    (found,) = budgets_of(size, None)
    assert found.size == pytest.approx(24e9, rel=1e-3)
