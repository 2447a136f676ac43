"""Tables 6 and 10: the scaling vectors of our model files and sweeps beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.footer import bullets
from bench.report.markdown import DASH, escape, table
from bench.report.paper import SOURCE, order, printed_name, settings

TITLES = {6: "Scaling vectors S", 10: "Notation of scaling vectors"}
SWEEP = "figure10"


def table6() -> str:
    """Return the page of Table 6: S of each model file, as the published code and as the text have it."""
    from bench.victim.spec import model_names, model_spec

    published = settings()["table_6_scaling_factors"]
    rows = []
    for name in order("models", set(model_names()) | set(published)):
        spec = model_spec(name) if name in model_names() else None
        ours = (
            [DASH, DASH] if spec is None or not spec.penultimate else [vector(spec.scales), vector(spec.scales_paper)]
        )
        paper = vector(published[name]) if name in published else DASH
        rows.append([escape(printed_name("models", name)), *ours, paper])
    headers = ["Model", "S, recipe released", "S, recipe paper", "S, the paper's Table 6"]
    lines = [
        "The published code has no 32 in S of BERT-base; the recipe `released` follows the code, `paper` the table.",
        f"{DASH}: the model has no layer that S could scale here, or the paper does not have the model.",
    ]
    return _page(6, table(headers, rows, len(headers)), lines)


def table10() -> str:
    """Return the page of Table 10: the vectors that the grid of Figure 10 sweeps, in order, beside S_1 to S_4."""
    from bench.engine.grid import load_grid

    blocks = load_grid(SWEEP).blocks()
    swept = [block.set["defense.scales"] for block in blocks]
    published = _notation()
    rows = []
    for place, name in enumerate(published):
        ours = vector(swept[place]) if place < len(swept) else DASH
        rows.append([escape(name), ours, vector(published[name])])
    rows += [[DASH, vector(extra), DASH] for extra in swept[len(published) :]]
    models = ", ".join(
        printed_name("models", name) for name in dict.fromkeys(blocks[0].models) if isinstance(name, str)
    )
    lines = [f"Ours are those of the grid `{SWEEP}` ({models}), which Figure 10 draws."]
    return _page(10, table(["Notation", "S, ours", "S, the paper's Table 10"], rows, 3), lines)


def vector(values: Sequence[float]) -> str:
    """Return a scaling vector as Markdown text."""
    return escape("[" + ", ".join(f"{value:g}" for value in values) + "]")


def _notation() -> dict[str, list[float]]:
    given = settings()["table_10_scaling_notation"]
    return {name: given[name] for name in given if name.startswith("S_")}


def _page(number: int, body: str, lines: Sequence[str]) -> str:
    parts = [f"# Table {number}: {TITLES[number]}", f"Mirrors Table {number} of {SOURCE}.", body]
    return "\n\n".join([*parts, "## Notes", bullets(list(lines))]) + "\n"


PAGES = {6: table6, 10: table10}
