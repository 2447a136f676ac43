"""The suite from Python: what `docs/api.md` says, names that are offered, and nothing done at import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.core.errors import RequestError
from bench.engine.store import UnwritableError
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[1]


def test_every_name_that_is_offered_is_there_and_documented() -> None:
    from bench import api

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(bench.OFFERED) == sorted(api.__all__)
    assert set(bench.OFFERED) <= set(dir(bench))
    for name in bench.OFFERED:
        assert callable(getattr(bench, name)) and f"`{name}(" in page, name
    with pytest.raises(AttributeError, match="no attribute 'run_gird'"):
        bench.run_gird  # noqa: B018


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    code = "import bench, sys; print([name for name in sys.modules if name.startswith('bench.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plan_grid_counts_and_refuses() -> None:
    plan = bench.plan_grid("demo", attacks="badnets", defenders=["vanilla", "strip"], seeds=[0, 1])
    assert plan.summary()["cells"] == 8 and plan.summary()["trainings"] == 4
    with pytest.raises(RequestError, match="'musclelora'"):
        bench.plan_grid("demo", defenders=["musclelra"])
    with pytest.raises(RequestError, match="replaced by nothing"):
        bench.plan_grid("demo", defenders=[])


def test_a_disk_that_cannot_be_written_is_raised(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (tmp_path / "records").write_text("in the way")
    axes = {"attacks": "badnets", "defenders": "vanilla", "models": str(tiny_model(tmp_path_factory, "bert"))}
    with pytest.raises(UnwritableError, match="records cannot be written"):
        bench.run_grid(
            "demo", out=tmp_path, device="cpu", limit=48, poison_ratios=[0.1], settings={"model.max_steps": 1}, **axes
        )


@pytest.mark.slow
def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its blocks, one after the other, with a random model of two layers in place of MiniLM."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert code.count('"minilm-l6"') == 1
    model = repr(str(tiny_model(tmp_path_factory, "bert")))
    code = code.replace('"minilm-l6"', model).replace('"model.max_steps": 40', '"model.max_steps": 1')
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(code, "docs/api.md", "exec"), scope)
    assert [record["status"] for record in scope["records"]] == ["ok", "ok"]
    assert list(scope["frame"]["defense"]) == ["vanilla", "lora"]
    assert scope["found"]["cells"][0]["tests"]["cacc"]["n"] > 100
    assert (tmp_path / "lora-demo" / "adapter_config.json").is_file()
