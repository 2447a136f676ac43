"""Figures: which records they take, what stands where in the picture, the same bytes for the same records."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.commands.figures import draw_figures
from bench.core.errors import RequestError
from bench.report.figures.catalog import render_figures
from bench.report.figures.spectra import SPECTRA, Spectrum, Watched, watched
from bench.report.figures.spectra_figures import draw as draw_spectrum
from bench.report.figures.style import LOOKS, styled
from bench.report.figures.sweep_figures import draw as draw_sweep
from bench.report.figures.sweeps import SWEEPS, Sweep, Swept, scale_name, swept
from tests.report.figure_records import SCALES, STEPS, analysis, sweep_records, watched_records
from tests.report.figure_records import swept as swept_records
from tests.report.fixtures import ATTACKS, record

pytest.importorskip("matplotlib", reason="figures are the extra `figures`")


def sweep(number: int) -> Sweep:
    return next(one for one in SWEEPS if number in one.figures.values())


def spectrum(number: int) -> Spectrum:
    return next(one for one in SPECTRA if one.number == number)


def drawn_sweep(number: int, model: str) -> tuple[Swept, Any]:
    (found,) = [one for one in swept(sweep(number), sweep_records()) if one.model == model]
    with styled():
        return found, draw_sweep(found)


def test_a_sweep_is_the_records_that_differ_in_one_option() -> None:
    found = {(one.sweep.number(one.model), one.model): one for each in SWEEPS for one in swept(each, sweep_records())}
    assert set(found) == {(4, "bert-base"), *((number, "bert-large") for number in (6, 7, 8, 9, 10))}
    values = {number: [point.x for point in one.lines["addsent"]] for (number, _), one in found.items()}
    assert values[4] == values[6] == [0.01, 0.05, 0.1, 0.2, 0.3]
    assert values[7] == [16, 32, 64, 96, 128]
    assert values[8] == [5e-6, 1e-5, 2e-5, 5e-5, 1e-4]
    assert values[9] == [0.0, 0.05, 0.1, 0.2, 0.4]
    assert sorted(map(scale_name, values[10])) == ["S_1", "S_2", "S_3", "S_4"]
    assert all(list(one.lines) == list(ATTACKS) for one in found.values())


def test_a_point_is_the_mean_over_seeds() -> None:
    (found,) = [one for one in swept(sweep(4), sweep_records()) if one.model == "bert-base"]
    point = found.lines["badnets"][0]
    # Ratio 0.01, seeds 0 and 1: (80 + 9 + 80 - 48) and 7 more, of 912.
    assert point.seeds == (0, 1)
    assert point.asr.mean == pytest.approx((121 + 128) / 2 / 912)
    assert point.asr.std == pytest.approx(7 / 2**0.5 / 912)


@pytest.mark.parametrize("key", ["0" * 24, "f" * 24])
def test_a_watched_cell_is_not_drawn_where_the_plain_one_is_there(key: str) -> None:
    plain = [record(defense="musclelora", ratio=ratio, asr=(228, 912)) for ratio in (0.1, 0.2)]
    twin = json.loads(json.dumps(record(defense="musclelora", ratio=0.1, asr=(456, 912))))
    twin["cell"]["analysis"], twin["key"] = {"name": "frequencies", "options": {}}, key
    (found,) = swept(SWEEPS[0], [twin, *plain])
    assert [point.asr.mean for point in found.lines["badnets"]] == [0.25, 0.25]


def test_other_options_do_not_mix_into_a_sweep() -> None:
    odd = swept_records(clean_samples=64, mu_max=0.3) + swept_records(clean_samples=48, mu_max=0.3)
    (found,) = swept(sweep(7), sweep_records() + odd)
    assert [point.x for point in found.lines["badnets"]] == [16, 32, 64, 96, 128]
    assert found == swept(sweep(7), sweep_records())[0]


def test_one_value_is_no_sweep_and_neither_are_failed_or_limited_records() -> None:
    broken = record("sst2", "badnets", "musclelora", ratio=0.2, error=("CellError", "no", "no"))
    limited = record("sst2", "badnets", "musclelora", ratio=0.3, limit=8)
    assert swept(sweep(4), [record("sst2", "badnets", "musclelora"), broken, limited]) == []


def test_another_model_is_drawn_in_the_first_figure_of_a_family() -> None:
    records = swept_records("minilm-l6", ratio=0.1) + swept_records("minilm-l6", ratio=0.2)
    (found,) = swept(sweep(6), records)
    assert found.sweep.number(found.model) == 4


@pytest.mark.parametrize(("number", "model"), [(4, "bert-base"), (8, "bert-large")])
def test_curves_are_told_apart_without_colour(number: int, model: str) -> None:
    data, figure = drawn_sweep(number, model)
    for panel, name in zip(figure.axes, ("cacc", "asr"), strict=True):
        assert panel.get_xlabel() == data.sweep.label and panel.get_ylabel() == f"{name.upper()} (%)"
        lines = [line for line in panel.get_lines() if not line.get_label().startswith("_")]
        assert [line.get_label() for line in lines] == ["Badnets", "Addsent", "HiddenKiller", "StyleBkd"]
        assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 4
        for line, points in zip(lines, data.lines.values(), strict=True):
            assert list(line.get_xdata()) == [point.x for point in points]
            assert list(line.get_ydata()) == pytest.approx([100 * getattr(point, name).mean for point in points])
    assert figure.axes[0].get_xscale() == ("log" if number == 8 else "linear")


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("ratio", (0.0, 0.01, 0.05, 0.1, 0.2)),
        ("ratio", (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)),
        ("rate", (5e-6, 1e-5, 2e-5, 2.5e-5, 5e-5, 1e-4)),
    ],
)
def test_no_label_of_a_tick_runs_into_another(axis: str, values: tuple[float, ...]) -> None:
    records = [one for value in values for one in swept_records("bert-large", **{axis: value})]
    (data,) = swept(sweep(6 if axis == "ratio" else 8), records)
    with styled():
        figure = draw_sweep(data)
        figure.draw_without_rendering()
        labels = figure.axes[0].get_xticklabels()
    assert [float(label.get_text()) for label in labels] == list(values)
    lines: dict[int, list[Any]] = {}
    for label in labels:
        lines.setdefault(label.get_text().count("\n"), []).append(label.get_window_extent())
    for line in lines.values():
        assert all(one.x1 + 2 < following.x0 for one, following in pairwise(line))


def test_scaling_vectors_are_hatched_bars_with_the_papers_names() -> None:
    data, figure = drawn_sweep(10, "bert-large")
    bars = figure.axes[1].containers
    bars = [one for one in bars if hasattr(one, "patches")]
    assert len({one.patches[0].get_hatch() for one in bars}) == len(data.lines) == 4
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["$S_1$", "$S_2$", "$S_3$", "$S_4$"]
    assert [len(one.patches) for one in bars] == [4, 4, 4, 4]


def test_a_model_that_did_not_learn_is_white_inside() -> None:
    records = [record("sst2", "badnets", "musclelora", ratio=ratio, trained=ratio < 0.2) for ratio in (0.1, 0.2)]
    (data,) = swept(sweep(4), records)
    with styled():
        figure = draw_sweep(data)
    (white,) = [line for line in figure.axes[1].get_lines() if line.get_markerfacecolor() == "white"]
    assert list(white.get_xdata()) == [0.2]
    assert "did not learn" in figure.get_supxlabel()


def test_every_look_differs_from_every_other_in_line_and_marker() -> None:
    assert len({one.marker for one in LOOKS}) == len({one.hatch for one in LOOKS}) == len(LOOKS)
    assert all(one.line != other.line for one, other in pairwise(LOOKS))


def test_which_watched_trainings_are_in_which_figure() -> None:
    found = {one.number: watched(one, watched_records()) for one in SPECTRA}
    assert {number: [panel.name for panel in one.panels] for number, (one,) in found.items()} == {
        1: ["badnets", "addsent"],
        2: ["badnets", "addsent"],
        **dict.fromkeys((5, 11, 12, 13), ["lora", "mslr", "lora+ga", "musclelora"]),
    }
    assert {number: one.model for number, (one,) in found.items()} == {
        **dict.fromkeys((1, 2, 5), "bert-base"),
        11: "bert-large",
        **dict.fromkeys((12, 13), "llama2-7b"),
    }


def watched_figure(number: int, **changes: Any) -> tuple[Watched, Any]:
    records = [{**one, "analysis": {**one["analysis"], **changes}} for one in watched_records()]
    (data,) = watched(spectrum(number), records)
    with styled():
        return data, draw_spectrum(data)


def test_a_degenerate_filter_is_said_and_not_drawn() -> None:
    data, figure = watched_figure(1)
    assert [(row.over, row.kernel, row.chosen) for row in data.rows()] == [
        ("separate", "released", False),
        ("separate", "released", True),
        ("separate", "paper", True),
        ("joint", "released", True),
        ("joint", "paper", True),
    ]
    (note,) = [line for line in figure.get_supxlabel().split("\n") if line.startswith("Degenerate")]
    assert "paper kernel at delta 4" in note and "the identity for" in figure.get_supxlabel()


def test_where_every_filter_is_degenerate_the_picture_says_so() -> None:
    entries = [{**one, "degenerate": "identity"} for one in analysis(1.0)["filters"]]
    for one in entries:
        one |= dict.fromkeys(("lfr", "hfr", "low_error", "high_error"))
    for number in (1, 2):
        _, figure = watched_figure(number, filters=entries)
        assert not [line for panel in figure.axes for line in panel.get_lines()]
        assert all("nothing to draw" in panel.texts[0].get_text() for panel in figure.axes)


def test_ratios_are_drawn_as_they_stand_in_the_records() -> None:
    data, figure = watched_figure(1)
    first = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(first) == ["LFR clean", "HFR clean", "LFR backdoor", "HFR backdoor"]
    assert figure.axes[0].get_yscale() == "log" and list(first["HFR clean"].get_xdata()) == STEPS
    entry = data.panels[0].rows[data.rows()[0]]["clean"]
    assert list(first["HFR clean"].get_ydata()) == entry["hfr"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in first.values()}) == 4
    assert [panel.get_title() for panel in figure.axes[:2]] == ["Badnets", "Addsent"]
    assert "LFR" in figure.get_supylabel() and "HFR" in figure.get_supylabel()
    assert watched_figure(5)[1].get_supylabel() == ""  # there the colour is the value, and the bar has its name


def test_errors_are_strips_and_an_undefined_one_says_why() -> None:
    data, figure = watched_figure(5)
    assert [panel.get_title() for panel in figure.axes[:4]] == ["LoRA", "w/o GA", "w/o MS", "MuScleLoRA"]
    first = figure.axes[0]
    assert len(first.collections) == 4  # three strips of colours and a hatched one
    assert [text.get_text() for text in first.texts if "alike" in text.get_text()] == [
        "no high part: the labels are all alike"
    ]
    strip = first.collections[0].get_array().ravel()
    assert list(strip) == data.panels[0].rows[data.rows()[0]]["clean"]["low_error"]
    joint = figure.axes[12]
    assert not [text for text in joint.texts if "alike" in text.get_text()]


def test_curves_of_several_seeds_are_their_means() -> None:
    def one(seed: int, value: float) -> dict[str, Any]:
        found = analysis(1.0)
        for entry in found["filters"]:
            entry |= {"lfr": [value] * len(STEPS)} if entry["degenerate"] is None else {}
        return {**record("sst2", "badnets", "vanilla", "bert-base", seed), "analysis": found}

    (data,) = watched(spectrum(1), [one(0, 0.5), one(1, 0.7)])
    entry = data.panels[0].rows[data.rows()[0]]["clean"]
    assert entry["lfr"] == pytest.approx([0.6] * len(STEPS)) and data.panels[0].seeds == (0, 1)


@pytest.mark.slow
def test_the_same_records_in_any_order_give_the_same_bytes() -> None:
    records = [one for one in sweep_records() if one["cell"]["model"]["name"] == "bert-base"]
    records += [
        one
        for one in watched_records()
        if (one["cell"]["attack"]["name"], one["cell"]["defense"]["name"]) == ("badnets", "vanilla")
    ]
    shuffled = random.Random(5).sample(records, len(records))
    first, second = render_figures(records), render_figures(shuffled)
    assert first == second
    names = {f"figure{number}-bert-base-sst2.{kind}" for number in (1, 2, 4) for kind in ("svg", "png")}
    assert set(first.files) == names
    for name, content in first.files.items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
        assert b"dc:date" not in content and b"Matplotlib" not in content
    assert [line.split()[1] for line in first.skipped] == ["5", "6", "7", "8", "9", "10", "11", "12", "13"]
    assert all("python -m bench run --grid figure" in line for line in first.skipped)


def test_the_grids_that_the_lines_name_are_there() -> None:
    from bench.engine.grid import grid_names

    named = {line.rpartition(" ")[2] for line in render_figures([]).skipped}
    assert named <= set(grid_names()) and len(named) == 10


def test_a_setting_other_than_the_default_stands_in_the_name() -> None:
    records = [record("a/b c", "badnets", "musclelora", ratio=r, recipe="paper", precision="bf16") for r in (0.1, 0.2)]
    assert set(render_figures(records).files) == {
        f"figure4-bert-base-a-b-c-paper-bf16.{kind}" for kind in ("svg", "png")
    }


def test_the_command_needs_records(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There are no records under"):
        draw_figures(tmp_path, Console())
    (tmp_path / "records").mkdir()
    assert draw_figures(tmp_path, Console(quiet=True)) == 0
    assert not (tmp_path / "figures").exists()


def test_the_papers_vectors_have_names() -> None:
    assert [scale_name(values) for values in SCALES.values()] == list(SCALES)
    assert scale_name([1.0, 2.5]) == "1, 2.5"
