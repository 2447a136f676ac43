"""Figures 1, 2, 5 and 11 to 13 as pictures: frequency ratios as lines, relative errors as heat maps."""

from __future__ import annotations

from typing import Any

from bench.report.figures.spectra import MAPPINGS, Panel, Row, Watched
from bench.report.figures.style import LOOKS, canvas, note_below
from bench.report.paper import printed_name

PARTS = (("clean", "low"), ("clean", "high"), ("backdoor", "low"), ("backdoor", "high"))
LIMITS = (0.1, 1.0)  # the published heat maps are cut to these
WHY = {"identity": "the filter is the identity here", "constant": "the filter is a plain mean here"}
SAME = "no high part: the labels are all alike"


def draw(data: Watched) -> Any:
    """Return the figure: a column for each training, a row for each filter that is not degenerate."""
    rows = data.rows()
    height = 2.1 if data.spectrum.kind == "ratios" else 1.55
    figure = canvas(max(6.4, 2.6 + 2.9 * len(data.panels)), 1.7 + height * max(1, len(rows)))
    panels = figure.subplots(max(1, len(rows)), len(data.panels), squeeze=False, sharex="col")
    if not rows:
        for panel, training in zip(panels[0], data.panels, strict=True):
            panel.set_title(_name(data, training))
            _say(panel, "every filter asked for is degenerate:\nthere is nothing to draw (see below)")
    image = None
    for place, (line, row) in enumerate(zip(panels, rows, strict=False)):
        for panel, training in zip(line, data.panels, strict=True):
            if data.spectrum.kind == "ratios":
                _ratios(panel, training, row)
            else:
                image = _errors(panel, training, row, labelled=panel is line[0]) or image
            if place == 0:
                panel.set_title(_name(data, training))
        line[0].set_ylabel(row.title(data.delta(row)), fontsize=7)
    for panel, training in zip(panels[-1], data.panels, strict=True):
        panel.set_xlabel(f"optimizer step ({training.steps_per_epoch} per epoch)")
    if rows and data.spectrum.kind == "ratios":
        # A mapping may be degenerate in some panels: the legend has what any of them shows.
        shown = [pair for panel in panels.flat for pair in zip(*panel.get_legend_handles_labels(), strict=True)]
        named = {label: handle for handle, label in reversed(shown)}
        labels = sorted(named, key=lambda label: (label.split()[1] != "clean", label.split()[0] != "LFR"))
        figure.legend([named[label] for label in labels], labels, loc="outside upper center", ncols=4)
    if rows and data.spectrum.kind == "ratios":
        figure.supylabel("share of the mapping's norm: LFR its low, HFR its high part (log)", fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 2.4 / len(rows)), extend="both", pad=0.01)
        bar.set_label(f"relative error (dark: small; cut to {LIMITS[0]:g} to {LIMITS[1]:g})")
    note_below(figure, _notes(data), int(18 * figure.get_figwidth()))
    return figure


def _name(data: Watched, training: Panel) -> str:
    # Methods of the paper's go by their name, its ablations by what they lack.
    return printed_name(data.spectrum.panels, training.name, training.name in ("mslr", "lora+ga"))


def _say(panel: Any, text: str) -> None:
    panel.text(0.5, 0.5, text, ha="center", va="center", transform=panel.transAxes, fontsize=7)
    panel.set_yticks([])
    panel.grid(visible=False)


def _ratios(panel: Any, training: Panel, row: Row) -> None:
    """Draw LFR and HFR of both mappings; a mapping without them gets a line of words."""
    words = []
    for mapping, look, size in zip(MAPPINGS, LOOKS, (7, 3.5), strict=False):  # either shows where both lie at 1
        entry = training.rows.get(row, {}).get(mapping)
        if entry is None or entry["degenerate"]:
            words.append(f"{mapping}: " + (WHY[entry["degenerate"]] if entry else "not analysed"))
            continue
        for name, line, face in (("lfr", "-", look.colour), ("hfr", "--", "white")):
            values = [value if value > 0 else float("nan") for value in entry[name]]  # 0 has no place on a log axis
            panel.plot(
                training.steps, values, line, color=look.colour, marker=look.marker, markersize=size,
                markerfacecolor=face, label=f"{name.upper()} {mapping}",
            )  # fmt: skip
    panel.set_yscale("log")
    panel.set_ylim(top=2)
    if words:
        panel.text(
            0.98, 0.06, "\n".join(words), transform=panel.transAxes, fontsize=7, ha="right",  # curves lie above
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _errors(panel: Any, training: Panel, row: Row, labelled: bool) -> Any:
    """Draw one strip for each part of each mapping; a strip without numbers is hatched and says why."""
    steps = training.steps
    edges = [(a + b) / 2 for a, b in zip(steps, steps[1:], strict=False)]
    edges = [steps[0], *edges, steps[-1]]
    image = None
    panel.grid(visible=False)
    for place, (mapping, part) in enumerate(PARTS):
        entry = training.rows.get(row, {}).get(mapping)
        values = entry and entry[f"{part}_error"]
        top, bottom = -place + 0.45, -place - 0.45
        if values is None:
            reason = "not analysed" if entry is None else WHY.get(entry["degenerate"] or "", SAME)
            panel.fill_between([edges[0], edges[-1]], bottom, top, facecolor="white", edgecolor="0.6", hatch="////")
            panel.text(
                (edges[0] + edges[-1]) / 2, -place, reason, ha="center", va="center", fontsize=6,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            continue
        image = panel.pcolormesh(edges, [bottom, top], [values], cmap="viridis", vmin=LIMITS[0], vmax=LIMITS[1])
        panel.annotate(f"{values[-1]:.2f}", (1.01, -place), xycoords=("axes fraction", "data"), va="center", fontsize=6)
    panel.set_xlim(edges[0], edges[-1])
    panel.set_ylim(-3.55, 0.55)
    panel.set_yticks([0, -1, -2, -3], [f"{mapping} {part}" for mapping, part in PARTS] if labelled else [""] * 4)
    panel.tick_params(axis="y", length=0, labelsize=7)
    for side in ("left", "bottom"):
        panel.spines[side].set_visible(False)
    return image


def _notes(data: Watched) -> list[str]:
    recipe, precision = data.setting
    seeds = sorted({seed for training in data.panels for seed in training.seeds})
    listed = ", ".join(map(str, seeds))
    trained = "No defense" if data.spectrum.panels == "attacks" else printed_name("attacks", data.spectrum.attack or "")
    what = f"{trained}, {printed_name('models', data.model)}, {printed_name('datasets', data.dataset)}"
    lines = [f"{what}; recipe {recipe}, {precision}; seed{'s' * (len(seeds) > 1)} {listed}."]
    if data.spectrum.kind == "errors":
        lines[0] += " Numbers at the right: the last look."
    if data.degenerate():
        lines.append("Degenerate filters: " + "; ".join(data.degenerate()) + ".")
    return lines
