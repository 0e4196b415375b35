"""Colours, fonts and saving of figures."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Ten colours that colour-blind readers tell apart (Petroff 2021, arXiv:2107.02270).
PALETTE: tuple[str, ...] = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6")
PALETTE += ("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
BLUE, RED = PALETTE[0], PALETTE[2]
INK, GREY, PALE = "#222222", "#707070", "#e4e4e4"
MAX_NAMED_CLASSES = 10
TITLE: dict[str, Any] = {"fontsize": 10, "loc": "left"}
LEGEND: dict[str, Any] = {"fontsize": 8, "title_fontsize": 8, "frameon": False, "alignment": "left"}


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a figure as PNG, laid out and drawn once; `savefig` would do both twice."""
    figure.set_dpi(dpi)
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    FigureCanvasAgg(figure).print_png(path)  # type: ignore[no-untyped-call]


def shorten(name: str, length: int = 20) -> str:
    """Cut a name, and keep its dollar signs from being read as mathematics."""
    return (name if len(name) <= length else name[: length - 1] + "…").replace("$", r"\$")


def clean_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_linewidth(0.6)
    axes.tick_params(labelsize=8, width=0.6)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
