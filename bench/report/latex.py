"""A page as LaTeX: one booktabs table each, columns grouped as the paper groups them, the notes below."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from bench.report.reading import Grid, Heading, Line, Part, Text, plain

PREAMBLE = (
    "% Made by `python -m bench publish` from the records; not edited by hand.\n"
    "% Needs \\usepackage{booktabs,graphicx,amssymb,hyperref} and \\usepackage[T1]{fontenc}.\n"
)
_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "—": "---",
    "–": "--",
    "†": r"\dag{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "✓": r"\checkmark{}",
    "…": r"\dots{}",
    "−": "$-$",
}
WIDE = 7  # columns from which a table spans the page


def escape(text: str) -> str:
    """Return text that LaTeX prints as it stands; a letter that pdfLaTeX has no glyph for becomes its code point."""
    return "".join(_CHARACTERS.get(letter) or _letter(letter) for letter in text)


def _letter(letter: str) -> str:
    return letter if letter < "\u0180" and letter.isprintable() else f"[U+{ord(letter):04X}]"


def latex(parts: Sequence[Part]) -> str:
    """Return the LaTeX of a page: its tables, with the headings above them as captions, and its texts."""
    headings: dict[int, str] = {}
    lines = [PREAMBLE]
    for is_item, group in itertools.groupby(parts, key=lambda part: isinstance(part, Text) and part.item):
        members = list(group)
        if is_item:
            items = "\n".join(f"  \\item {_opening(_line(part.line))}" for part in members if isinstance(part, Text))
            lines.append(f"{{\\footnotesize\\begin{{itemize}}\n{items}\n\\end{{itemize}}}}\n")
            continue
        for part in members:
            if isinstance(part, Heading):
                headings = {level: text for level, text in headings.items() if level < part.level}
                headings[part.level] = _line(part.line)
                if part.level == 1 or plain(part.line) == "Notes":
                    lines.append(f"\\{'section' if part.level == 1 else 'paragraph'}*{{{_line(part.line)}}}\n")
            elif isinstance(part, Text):
                lines.append(f"{_line(part.line)}\n")
            else:
                lines.append(_table(part, _caption([headings[level] for level in sorted(headings)])))
    return "\n".join(lines)


def _caption(headings: Sequence[str]) -> str:
    # LaTeX numbers the tables of a document itself: the paper's number goes into brackets.
    return re.sub(r"^Table (\d+): ([^.]*)", r"\2 (Table \1 of the paper)", ". ".join(headings))


def _line(line: Line) -> str:
    shown = []
    for span in line:
        text = escape(span.text)
        text = f"\\texttt{{{text}}}" if span.code else text
        text = f"\\emph{{{text}}}" if span.italic else text
        text = f"\\underline{{{text}}}" if span.underline else text
        text = f"\\textbf{{{text}}}" if span.bold else text
        if span.link.startswith("https://"):
            text = f"\\href{{{escape(span.link)}}}{{{text}}}"
        shown.append(text)
    return "".join(shown)


def _opening(text: str) -> str:
    """Return text that may follow a rule, an item or the end of a row: these take a `[` or `*` for their own."""
    return f"{{{text[0]}}}{text[1:]}" if text.startswith(("[", "*")) else text


def _row(cells: Iterable[str]) -> str:
    return f"{_opening(' & '.join(cells))} \\\\"


def _table(grid: Grid, caption: str) -> str:
    width = len(grid.headers)
    star = "*" if width >= WIDE else ""
    columns = "l" * grid.labels + "r" * (width - grid.labels)
    room = "\\textwidth" if star else "\\columnwidth"
    shrink = f"\\resizebox{{\\ifdim\\width>{room} {room}\\else\\width\\fi}}{{!}}{{%"
    lines = [f"\\begin{{table{star}}}", "\\centering", f"\\caption{{{caption}}}", shrink]
    lines += [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", *_headers(grid), "\\midrule"]
    before: tuple[Line, ...] | None = None
    grouped = grid.labels > 1 and len({row[0] for row in grid.rows}) < len(grid.rows)
    for row in grid.rows:
        if before is not None and grouped and row[0] != before[0]:
            lines.append("\\midrule")
        elif before is not None and grid.labels > 2 and plain(grid.headers[1]) == "Model" and row[1] != before[1]:
            lines.append("\\addlinespace")
        shown = [_line(cell) for cell in row]
        if before is not None and grid.labels > 1:
            for place in range(grid.labels - 1):  # what repeats from the row above is not said again
                if row[: place + 1] != before[: place + 1]:
                    break
                shown[place] = ""
        lines.append(_row(shown))
        before = row
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", f"\\end{{table{star}}}", ""])


def _headers(grid: Grid) -> list[str]:
    """Return the header lines: "LoRA CACC" and "LoRA ASR" become one "LoRA" above "CACC" and "ASR"."""
    texts = [plain(header) for header in grid.headers]
    split = [_split(text) if place >= grid.labels else ("", text) for place, text in enumerate(texts)]
    runs = [(name, len(list(members))) for name, members in itertools.groupby(split, key=lambda pair: pair[0])]
    if not any(name and count > 1 for name, count in runs):
        return [_row(escape(text) for text in texts)]
    top, rules, bottom, column = [], [], [], 1
    for name, count in runs:
        if name and count > 1:
            top.append(f"\\multicolumn{{{count}}}{{c}}{{{escape(name)}}}")
            rules.append(f"\\cmidrule(lr){{{column}-{column + count - 1}}}")
            bottom += [escape(metric) for _, metric in split[column - 1 : column - 1 + count]]
        else:
            top += [""] * count
            bottom += [escape(text) for text in texts[column - 1 : column - 1 + count]]
        column += count
    return [_row(top), " ".join(rules), _row(bottom)]


def _split(text: str) -> tuple[str, str]:
    name, space, metric = text.rpartition(" ")
    return (name, metric) if space and metric in ("CACC", "ASR", "FRR", "FAR", "AUROC", "rank") else ("", text)
