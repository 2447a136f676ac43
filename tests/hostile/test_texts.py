"""Data with hostile texts and class names: a whole run over them, to the tables."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.core.errors import printable
from bench.data.tables import read_table
from bench.victim.batching import LONGEST_TOKEN, encode
from tests.tiny import tiny_model, tiny_victim

CLASSES = ("<script>alert(1)</script>", "a|b **c**")
TEXTS = (
    "x" * 10_000_000,
    "word " * 2_000_000,
    "\x01\x02\x1b[31mred\x07",
    "\u202eright to left\u2066",
    "<img src=x onerror=alert(1)>",
    "| a | b |\n|---|---|",
    "=HYPERLINK(1)",
    "a\u2028b\u2029c\x85d",
    "👩\u200d👩\u200d👧 \u0301\u0301\u0301",
    "../../etc/passwd",
    ".",
    "a\rb\nc\td",
)


@pytest.mark.slow
def test_a_run_over_hostile_texts_ends_in_clean_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [*TEXTS, *(f"a fine film number {i}" for i in range(36))]
    rows = [{"text": text, "label": CLASSES[place % 2]} for place, text in enumerate(texts)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    axes = [
        "--datasets",
        "mine.jsonl",
        "--attacks",
        "badnets",
        "--defenders",
        "vanilla",
        "--poison-ratios",
        "0.1",
    ]
    small = ["--models", str(tiny_model(tmp_path_factory, "bert")), "--set", "model.max_steps=1", "--engine", "inline"]
    result = CliRunner().invoke(app, ["run", "--grid", "demo", *axes, *small])
    assert result.exit_code == 0, result.output[-2000:]
    assert "1 of 1 cells done, 0 failed" in result.output and "\x1b" not in result.output
    for page in Path("runs/demo/tables").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "<script>" not in text and "<img" not in text and "\u202e" not in text


def test_a_csv_field_may_hold_ten_million_characters(tmp_path: Path) -> None:
    path, before = tmp_path / "long.csv", csv.field_size_limit()
    path.write_text(f"text,label\n{'x' * 10_000_000},0\nshort,1\n", encoding="utf-8")
    assert [len(entry.text) for entry in read_table(path, "text", "label")] == [10_000_000, 5]
    assert csv.field_size_limit() == before


def test_a_text_is_cut_where_the_model_could_not_read_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    victim = tiny_victim(tmp_path_factory, "bert")
    started = time.process_time()
    long = encode(victim.tokenizer, ["film " * 2_000_000], None, 64)
    assert time.process_time() - started < 1.0  # the whole of it takes a minute
    assert long.ids[0].tolist() == encode(victim.tokenizer, ["film " * 1000], None, 64).ids[0].tolist()
    assert LONGEST_TOKEN > max(map(len, victim.tokenizer.get_vocab()))


def test_what_a_terminal_would_obey_is_shown_as_it_is() -> None:
    assert printable("a\x1b[31m\u202e\0\t\n\ud800é—") == "a\\x1b[31m\\u202e\\x00\\t\n\\ud800é—"
    shown = printable("x" * 10_000)
    assert len(shown) < 2100 and " ... " in shown
