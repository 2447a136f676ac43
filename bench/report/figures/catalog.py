"""Every figure as a pure function of the records: file name -> bytes, and a line for each figure without data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.figures import spectra_figures, sweep_figures
from bench.report.figures.spectra import SPECTRA, Spectrum, watched
from bench.report.figures.style import encoded, needs_matplotlib, styled
from bench.report.figures.sweeps import SWEEPS, Sweep, swept
from bench.report.paper import printed_name
from bench.report.records import Record
from bench.report.selection import DEFAULT, Setting


@dataclass(frozen=True)
class Drawn:
    """The files of all figures that have data, and why the others have none."""

    files: dict[str, bytes]
    skipped: tuple[str, ...]


def render_figures(records: Sequence[Record]) -> Drawn:
    """Return `figureN-MODEL-DATASET.svg` and `.png` for every figure, model and data set that has its records.

    The same records in any order give the same bytes with one version of matplotlib.

    Raises:
        RequestError: matplotlib is not installed.
    """
    needs_matplotlib()
    files: dict[str, bytes] = {}
    with styled():
        for name, picture in _pictures(records):
            files |= {f"{name}.{kind}": content for kind, content in encoded(picture).items()}
    present = {int(re.match(r"figure(\d+)", name)[1]) for name in files}  # type: ignore[index]
    lines = {number: line for number, line in _wanted().items() if number not in present}
    return Drawn(files, tuple(lines[number] for number in sorted(lines)))


def _pictures(records: Sequence[Record]) -> Iterator[tuple[str, Any]]:
    for spectrum in SPECTRA:
        for found in watched(spectrum, records):
            yield _file(spectrum.number, found.model, found.dataset, found.setting), spectra_figures.draw(found)
    for sweep in SWEEPS:
        for shown in swept(sweep, records):
            name = _file(sweep.number(shown.model), shown.model, shown.dataset, shown.setting)
            yield name, sweep_figures.draw(shown)


def _file(number: int, model: str, dataset: str, setting: Setting) -> str:
    """Return a file name without its ending; recipe and precision stand in it where they are not the default."""
    unusual = [one for one, default in zip(setting, DEFAULT, strict=True) if one != default]
    return f"figure{number}-" + "-".join(re.sub(r"[^A-Za-z0-9.+_]+", "-", part) for part in (model, dataset, *unusual))


def _wanted() -> dict[int, str]:
    """Return, by figure, the records that it is made of and the command that makes them."""
    lines = {}
    for sweep in SWEEPS:
        for model, number in sweep.figures.items():
            lines[number] = _sweep_line(sweep, model, number)
    for spectrum in SPECTRA:
        lines[spectrum.number] = _spectrum_line(spectrum)
    return lines


def _sweep_line(sweep: Sweep, model: str, number: int) -> str:
    others = " or another model" if sweep.number("") == number else ""
    grid = f"--grid {sweep.grid}" if number == min(sweep.figures.values()) else f"--grid figure{number}"
    return (
        f"Figure {number} wants MuScleLoRA on {printed_name('models', model)}{others} at two values or more of the "
        f"{sweep.title}: python -m bench run {grid}"
    )


def _spectrum_line(spectrum: Spectrum) -> str:
    who = "vanilla" if spectrum.panels == "attacks" else "lora, mslr, lora+ga and musclelora"
    attack = "each attack" if spectrum.attack is None else printed_name("attacks", spectrum.attack)
    others = " or another model" if spectrum.others else ""
    model = printed_name("models", spectrum.models[0])
    return (
        f"Figure {spectrum.number} wants {who} under {attack} on {model}{others}, with the Fourier analysis: "
        f"python -m bench run --grid {spectrum.grid}"
    )
