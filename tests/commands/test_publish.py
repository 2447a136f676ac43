"""`bench publish`: everything of a leaderboard from the records, the same bytes again, without torch."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench.commands.publish import publish_run, show_tables
from bench.core.errors import RequestError
from tests.report.fixtures import board_records, record

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    (out / "records").mkdir()
    for one in board_records():
        (out / "records" / f"{one['key']}.json").write_text(json.dumps(one), encoding="utf-8")
    (out / "figures").mkdir()
    (out / "figures" / "figure4.svg").write_text("<svg/>", encoding="utf-8")
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publish(out: Path, to: Path) -> dict[str, bytes]:
    assert publish_run(out, to, Console(quiet=True)) == 0
    return content(to)


def test_a_leaderboard_holds_every_table_in_every_format_and_the_site(run: Path, tmp_path: Path) -> None:
    found = publish(run, tmp_path)
    stems = ["board", "fine-mixing", "equal-budget", *(f"table{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9))]
    assert {f"data/{stem}.{ending}" for stem in stems for ending in ("csv", "tex", "json")} <= set(found)
    assert {f"{stem}.md" for stem in stems[1:]} | {"README.md", "site/index.html", "figures/figure4.svg"} <= set(found)
    for name in ("DEVIATIONS.md", "RECIPES.md"):
        assert found[name] == (ROOT / "leaderboard" / name).read_bytes()


def test_publishing_again_changes_no_byte_and_a_leaderboard_renews_itself(run: Path, tmp_path: Path) -> None:
    first = publish(run, tmp_path)
    assert publish(run, tmp_path) == first
    (tmp_path / "table1.md").unlink()
    assert publish(tmp_path, tmp_path) == first


def test_a_page_written_by_hand_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "DEVIATIONS.md").write_text("mine\n")
    assert publish(run, tmp_path)["DEVIATIONS.md"] == b"mine\n"


def test_publishing_imports_no_heavy_package(run: Path, tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "datasets", "pandas", "sklearn", "matplotlib")
    script = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from bench.commands.publish import publish_run\n"
        f"publish_run(Path({str(run)!r}), Path({str(tmp_path)!r}), Console(quiet=True))\n"
        f"assert not set({heavy!r}) & set(sys.modules), set({heavy!r}) & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"defenders": ("loraa",)}, "has loraa as defense. Did you mean 'lora'?"),
        ({"attacks": ("badnets",), "seeds": (500,)}, "has 500 as seed. There are: 0"),
        ({"defenders": ("lora",), "models": ("none",)}, "has none as model."),
    ],
)
def test_axes_that_no_record_is_on_are_named_with_what_there_is(run: Path, axes: dict, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        show_tables(run, False, axes, Console(quiet=True))
    assert said in str(caught.value)


def test_what_was_added_and_what_was_left_out_is_counted(tmp_path: Path) -> None:
    (tmp_path / "run" / "records").mkdir(parents=True)
    for one in (record(), record(seed=1), record(limit=64)):
        (tmp_path / "run" / "records" / f"{one['key']}.json").write_text(json.dumps(one), encoding="utf-8")
    said = []
    for _ in range(2):
        console = Console(record=True, width=200, quiet=False, file=io.StringIO())
        publish_run(tmp_path / "run", tmp_path / "board", console)
        said.append(console.export_text().splitlines()[-1])
    assert said[0].endswith("2 of them new; 1 with a row limit were left out; 2 are published")
    assert "2 records of" in said[1] and "0 of them new" in said[1]


def test_a_published_result_is_replaced_aloud_and_by_no_failure(tmp_path: Path) -> None:
    first, second = record(asr=(600, 912)), record(seed=1, asr=(500, 912))
    same, other = record(seed=2), record(seed=1, asr=(400, 912))
    broken, mended = record(seed=3, error=("Error", "no such package", "Install it.")), record(seed=3, asr=(300, 912))
    failed = record(error=("Error", "no such package", "Install it."))
    assert (first["key"], second["key"]) == (failed["key"], other["key"])
    for name, records in (("one", (first, second, same, broken)), ("two", (failed, other, same, mended))):
        (tmp_path / name / "records").mkdir(parents=True)
        for item in records:
            (tmp_path / name / "records" / f"{item['key']}.json").write_text(json.dumps(item), encoding="utf-8")
    publish(tmp_path / "one", tmp_path / "board")
    console = Console(record=True, width=200, file=io.StringIO())
    publish_run(tmp_path / "two", tmp_path / "board", console)
    said = [line for line in console.export_text().splitlines() if not line.startswith("published: ")]
    assert len(said) == 3
    assert said[0] == "kept: sst2 / badnets / bert-base / lora @ 0.1 (clean), seed 0, which failed here"
    assert said[1] == "replaced by other numbers: sst2 / badnets / bert-base / lora @ 0.1 (clean), seed 1"
    assert said[2].endswith("0 of them new; 4 are published")
    held = [json.loads(line) for line in (tmp_path / "board" / "records.jsonl").read_text("utf-8").splitlines()]
    assert {one["cell"]["seed"]: one["metrics"]["asr"]["hits"] for one in held} == {0: 600, 1: 400, 2: 600, 3: 300}


def test_a_disk_that_fills_up_takes_nothing_of_what_is_published(run: Path, tmp_path: Path) -> None:
    before = publish(run, tmp_path)
    (tmp_path / "second" / "records").mkdir(parents=True)
    added = record(seed=9)
    (tmp_path / "second" / "records" / f"{added['key']}.json").write_text(json.dumps(added), encoding="utf-8")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["records.jsonl"]) // 2, limits[1]))
    try:
        with pytest.raises(RequestError, match="cannot be written"):
            publish(tmp_path / "second", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (tmp_path / "second" / "records" / f"{added['key']}.json").unlink()
    assert content(tmp_path) == before


def test_a_disk_that_fills_up_takes_no_figure_that_is_published(run: Path, tmp_path: Path) -> None:
    before = publish(run, tmp_path / "board")
    room = 2 * max(map(len, before.values()))
    (tmp_path / "second" / "figures").mkdir(parents=True)
    (tmp_path / "second" / "records").symlink_to(run / "records")
    (tmp_path / "second" / "figures" / "figure4.svg").write_text("<svg>" + "x" * room + "</svg>", encoding="utf-8")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(RequestError, match="cannot be written"):
            publish(tmp_path / "second", tmp_path / "board")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path / "board") == before


@pytest.mark.parametrize("failed_last", [True, False])
def test_of_two_lines_of_one_cell_the_result_stays(tmp_path: Path, failed_last: bool) -> None:
    good, failed = record(), record(error=("Error", "no such package", "Install it."))
    lines = [json.dumps(one) + "\n" for one in ((good, failed) if failed_last else (failed, good))]
    for name in ("board", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    publish(tmp_path / "board", tmp_path / "board")
    publish(tmp_path / "other", tmp_path / "anew")
    for name in ("board", "anew"):
        (held,) = (json.loads(line) for line in (tmp_path / name / "records.jsonl").read_text("utf-8").splitlines())
        assert held["status"] == "ok"
