"""What is in the store is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.engine.store import Store, StoreError, write_json

KEY = "ab" * 20


def build(store: Store, text: str = "content") -> None:
    with store.draft(KEY) as aside:
        (aside / "data.txt").write_text(text)
        (aside / "weights.safetensors").write_bytes(b"w" * 100)
        store.finish(KEY, aside, {"kind": "train", "seconds": 1.0})


def test_a_finished_stage_is_there_with_the_sha256_of_each_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.has(KEY)
    build(store)
    assert store.has(KEY)
    assert (store.open(KEY) / "data.txt").read_text() == "content"
    # sha256 of "content", computed with coreutils
    expected = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert store.manifest(KEY)["files"]["data.txt"] == expected


def test_a_draft_that_raises_or_is_never_finished_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError), store.draft(KEY) as aside:
        (aside / "data.txt").write_text("half")
        raise ZeroDivisionError
    with store.draft(KEY):
        pass
    assert not store.has(KEY)
    assert not any((tmp_path / ".drafts").iterdir())


def test_of_two_builders_the_first_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "first")
    build(store, "second")
    assert (store.open(KEY) / "data.txt").read_text() == "first"


@pytest.mark.parametrize("change", ["altered", "missing"])
def test_an_altered_or_missing_file_is_noticed_when_the_stage_is_opened(tmp_path: Path, change: str) -> None:
    store = Store(tmp_path)
    build(store)
    path = store.folder(KEY) / "data.txt"
    path.unlink() if change == "missing" else path.write_text("Content")
    with pytest.raises(StoreError, match=f"data.txt of stage {KEY} (is missing|was altered)"):
        store.open(KEY)


def test_released_weights_are_gone_the_rest_stays_and_a_rebuilt_stage_gives_them_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "first")
    assert store.release(KEY) == 100
    assert store.has(KEY) and not store.has(KEY, weights=True)
    assert (store.open(KEY) / "data.txt").read_text() == "first"
    assert store.release(KEY) == 0
    build(store, "again")
    assert store.has(KEY, weights=True)
    # What records have been made from stays.
    assert (store.open(KEY) / "data.txt").read_text() == "first"


def test_a_store_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"), Store(blocked / "store").draft(KEY):
        pass


def test_the_name_of_a_folder_that_is_no_utf8_can_be_written_and_read(tmp_path: Path) -> None:
    content = {"folder": os.fsdecode(b"/data/caf\xe9"), "plain": "café"}
    write_json(tmp_path / "requests.json", content)
    assert json.loads((tmp_path / "requests.json").read_text(encoding="utf-8")) == content
    assert "café" in (tmp_path / "requests.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["requests.json"]
