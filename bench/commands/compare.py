"""`bench compare A B`: what changed between two runs or two records, with paired tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.core.errors import RequestError
from bench.report.compare import compare_references
from bench.report.markdown import DASH, percent
from bench.report.references import resolve

HEADLINE = {"cacc": "CACC", "asr": "ASR", "asr_floor": "ASR floor", "frr": "FRR", "far": "FAR"}


def compare(first: str, second: str) -> dict[str, Any]:
    """Return what differs between two runs or two records, as `report.compare.compare_references` says.

    Raises:
        BenchError: a reference names nothing, or no cell is in both.
    """
    return compare_references(resolve(first), resolve(second))


def show_comparison(first: str, second: str, json_file: Path | None, console: Console) -> int:
    """Print what differs between A and B, and write it as JSON where asked to."""
    found = compare(first, second)

    def show(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    show(f"A: {first}")
    show(f"B: {second}")
    for side, name in (("only_first", "A"), ("only_second", "B")):
        if found[side]:
            show(f"{len(found[side])} cells are only in {name}:")
            for title in found[side][:10]:
                show(f"  {title}")
            if len(found[side]) > 10:
                show(f"  and {len(found[side]) - 10} more")
    for cell in found["cells"]:
        for line in _cell_lines(cell):
            show(line)
    for group in found["seeds"]:
        show(f"Over seeds {', '.join(map(str, group['seeds']))}: {group['title']}")
        for name in ("cacc", "asr"):
            if name in group:
                change = _signed(group[name]["mean_difference"])
                show(f"  {HEADLINE[name]} {change} on average; paired sign-flip test p = {group[name]['p']:.3g}")
        show(f"  (with {len(group['seeds'])} seeds p cannot be below {2 / 2 ** len(group['seeds']):.3g})")
    if json_file is not None:
        _write(json_file, found)
        show(f"written: {json_file}")
    return 0


def _cell_lines(cell: dict[str, Any]) -> list[str]:
    lines = ["", cell["title"]]
    lines += [f"  {path}: {_short(pair[0])} -> {_short(pair[1])}" for path, pair in cell["differs"].items()]
    if "failed" in cell["status"]:
        return [*lines, f"  status: {cell['status'][0]} -> {cell['status'][1]}"]
    for name, change in cell["metrics"].items():
        if change["first"] is None and change["second"] is None:
            continue
        text = f"  {HEADLINE[name]:9} {percent(change['first']):>6} -> {percent(change['second']):>6}"
        if change["difference"] is not None:
            text += f"  ({_signed(change['difference'])})"
        test = cell["tests"].get(name)
        if test:
            text += (
                f"  McNemar exact p = {test['p']:.3g}: {test['first_only']} of {test['n']} only in A, "
                f"{test['second_only']} only in B"
            )
        lines.append(text)
    if cell["no_test"]:
        lines.append(f"  No paired test: {str(cell['no_test']).rstrip('.')}.")
    return lines


def _signed(difference: float) -> str:
    return f"{100 * difference:+.2f} points" if difference else "+0.00 points"


def _short(value: Any) -> str:
    text = DASH if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}.", "Name a file that can be.") from None
