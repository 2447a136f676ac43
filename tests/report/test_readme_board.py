"""README.md: its board is the leaderboard's, its links lead somewhere, and it stays a three-minute read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.core.errors import RequestError
from bench.report.readme_board import BEGIN, END, with_board

ROOT = Path(__file__).resolve().parents[2]
LEADERBOARD = """# Leaderboard

## sst2, bert-base (recipe released, fp32)

Attacks: Badnets.

| Defense | Seeds | Clean samples |  CACC |   ASR | Average rank | Peak MB |
|:--------|------:|--------------:|------:|------:|-------------:|--------:|
| A       |     3 |     0 + 4 + 0 | 91.00 | **1.00** | 1.00 |       7 |
| B       |     1 |     0 + 4 + 0 | 92.00 |     — |            — |       7 |
| D       |     1 |     0 + 4 + 0 |     — |     — |            — |       7 |

## other

| Defense |
|:--------|
| C       |
"""


def test_the_board_is_the_first_block_of_the_leaderboard() -> None:
    found = with_board(f"before\n{BEGIN}\nold\n{END}\nafter\n", LEADERBOARD)
    assert found.startswith(
        f"before\n{BEGIN}\nsst2, bert-base (recipe released, fp32). Attacks: Badnets. "
        "The best average rank by ASR first.\n\n| Defense "
    )
    assert found.endswith(f"|\n{END}\nafter\n") and "old" not in found and "Peak" not in found
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in found.splitlines() if line.startswith("| ")]
    assert rows == [
        ["Defense", "Seeds", "Clean samples", "CACC", "ASR", "Average rank"],
        ["A", "3", "0 + 4 + 0", "91.00", "**1.00**", "1.00"],
        ["B", "1", "0 + 4 + 0", "92.00", "—", "—"],
    ]
    assert with_board(found, LEADERBOARD) == found
    assert "No results yet." in with_board(f"{BEGIN}{END}", "# Leaderboard\n")
    with pytest.raises(RequestError, match="README.md does not hold"):
        with_board("no marks", LEADERBOARD)


def test_the_readme_shows_the_published_board() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    leaderboard = (ROOT / "leaderboard" / "README.md").read_text(encoding="utf-8")
    assert readme == with_board(readme, leaderboard), "run: python -m bench docs"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/api.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    for link in links:
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


def prose_words(text: str) -> int:
    """Return how many words of a page are neither code nor a table nor the target of a link."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return len(re.sub(r"^ {4}.*$|^\|.*$|<!--.*?-->|\]\([^)]*\)", "", text, flags=re.MULTILINE).split())


def test_the_readme_is_read_in_three_minutes() -> None:
    assert prose_words("one [two](a/b) three\n\n    code here\n\n| a | b |\n\nfour\n```\nx y\n```\nfive `six`\n") == 6
    assert prose_words((ROOT / "README.md").read_text(encoding="utf-8")) < 750  # at 250 words a minute
