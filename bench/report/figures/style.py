"""How every figure looks: colours told apart by the colour-blind, and lines told apart without colour; stable bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.core.errors import RequestError
from bench.core.packages import installed

FORMATS = ("svg", "png")
SALT = "openbackdoor-bench"
SETTINGS = {
    "svg.hashsalt": SALT,
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


@dataclass(frozen=True)
class Look:
    """How one series is drawn: told from the others by marker, line and hatch as well as by colour (Okabe and Ito)."""

    colour: str
    marker: str
    line: str
    hatch: str


LOOKS = (
    Look("#0072B2", "o", "-", ""),
    Look("#D55E00", "s", "--", "////"),
    Look("#009E73", "^", "-.", "...."),
    Look("#CC79A7", "D", ":", "xxxx"),
    Look("#000000", "v", "-", "\\\\\\\\"),
    Look("#E69F00", "P", "--", "++++"),
    Look("#56B4E9", "X", "-.", "oooo"),
)


def looks(names: list[str]) -> dict[str, Look]:
    """Return a look for each name, in order; after the last look they begin again."""
    return {name: LOOKS[place % len(LOOKS)] for place, name in enumerate(names)}


def needs_matplotlib() -> None:
    """Raise RequestError where matplotlib is not installed."""
    if not installed("matplotlib"):
        raise RequestError(
            "Figures need matplotlib, which is not installed.", "pip install 'openbackdoor-bench[figures]'"
        )


@contextmanager
def styled() -> Iterator[None]:
    """Draw with matplotlib's own defaults and ours on top, whatever the user's settings; they are given back."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def canvas(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches that lays itself out; no window, no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def encoded(figure: Any) -> dict[str, bytes]:
    """Return the figure in each format; equal figures give equal bytes, so there is no date in them."""
    metadata: Mapping[str, dict[str, None]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    found = {}
    for kind in FORMATS:
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata=metadata[kind])
        found[kind] = stream.getvalue()
        figure.set_layout_engine("none")  # the first picture has laid it out
    return found


def note_below(figure: Any, lines: list[str], width: int) -> None:
    """Write notes under a figure, wrapped at `width` letters; the layout makes room for them."""
    import textwrap

    # A dollar sign would start a formula, in which an unknown name is an error.
    wrapped = [textwrap.fill(line.replace("$", r"\$"), width) for line in lines]
    figure.supxlabel("\n".join(wrapped), fontsize=7, ha="left", x=0.01, color="0.25")
