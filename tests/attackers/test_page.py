"""The page of the attacks names every one of them."""

from __future__ import annotations

import re
from pathlib import Path

from bench.core.registry import ATTACKERS, own_plugins

PAGE = Path(__file__).resolve().parents[2] / "docs" / "attacks.md"


def test_the_page_has_a_row_for_each_attack_of_the_folder() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(own_plugins(ATTACKERS))
