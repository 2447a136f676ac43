"""The commit that a record names: of the checkout, marked where the code that ran is not that commit's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.engine.environment import commit_of


def test_code_that_is_not_the_commits_is_marked(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert commit_of(tmp_path) is None
    git("init", "-q")
    for folder in ("bench", "attackers", "defenders", "configs", "docs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text("1\n")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert commit_of(tmp_path) == head
    (tmp_path / "docs" / "one.py").write_text("2\n")
    assert commit_of(tmp_path) == head, "pages are no code"
    (tmp_path / "defenders" / "new.py").write_text("a defense that nobody else has\n")
    assert commit_of(tmp_path) == f"{head}+changes"
    (tmp_path / "defenders" / "new.py").unlink()
    (tmp_path / "bench" / "one.py").write_text("2\n")
    assert commit_of(tmp_path) == f"{head}+changes"
