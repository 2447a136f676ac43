"""Names that no file system takes: in Python, where no shell stands before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import compare, load_records, plan_grid
from bench.core.errors import BenchError
from bench.core.paths import is_file, is_folder, is_name

STRANGE = ["x" * 5000, "/" + "x" * 5000, "a\0b", "a/\0b", "a\0.csv", "x" * 5000 + ".csv", "\ud800/x", "\ud800.jsonl"]


@pytest.mark.parametrize("name", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_name_is_refused_wherever_a_path_may_stand(name: str) -> None:
    for axes in ({"datasets": [name]}, {"models": [name]}):
        with pytest.raises(BenchError):
            plan_grid("demo", **axes)
    for grid in (name, f"{name}.yaml"):
        with pytest.raises(BenchError):
            plan_grid(grid)
    for read in (load_records, lambda path: compare(path, path)):
        with pytest.raises(BenchError):
            read(name)
    try:
        assert plan_grid(
            "demo", settings={"model.path": name}, defenders=["vanilla"]
        ).cells  # they fail with the reason
    except BenchError as error:
        assert "path" in error.problem


def test_what_is_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert is_folder(tmp_path) and not is_folder(tmp_path / "file") and not is_folder("a\0b")
    assert is_file(tmp_path / "file") and not is_file(tmp_path) and not is_file("x" * 5000)
    assert is_name("ä/b") and not is_name("a\0") and not is_name("\ud800") and not is_name("")
