"""Figures of a run: pure functions from arrays to matplotlib figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

Bools: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.integer[Any]]

# Ten colours that colour-blind readers tell apart (Petroff 2021, arXiv:2107.02270).
PALETTE: tuple[str, ...] = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6")
PALETTE += ("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
BLUE, RED = PALETTE[0], PALETTE[2]
INK, GREY, PALE = "#222222", "#707070", "#e4e4e4"
MAX_NAMED_CLASSES = 10
MAX_ANNOTATED_CLASSES = 20
CURVE_GRID = np.linspace(0, 1, 500)
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


def confusion_matrix(counts: Ints, class_names: Sequence[str]) -> Figure:
    """Draw how often each true class is predicted as each class.

    `counts` are samples, (C, C), rows true, columns predicted; colour is the share of the row.
    Above 20 classes cells carry no counts, and colour is on a square root to show rare confusions.
    """
    num_classes = len(counts)
    annotated = num_classes <= MAX_ANNOTATED_CLASSES
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, C)
    shown = range(0, num_classes, -(-num_classes // 25))
    names = [_short(class_names[index]) for index in shown]
    side, room = np.clip(0.42 * num_classes, 1.6, 6.5), 0.08 * max(map(len, names))  # inches
    figure = Figure((side + room + 1.5, side + 0.7 * room + 0.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    norm = PowerNorm(1 if annotated else 0.5, vmin=0, vmax=1)
    scale = figure.colorbar(axes.imshow(shares, cmap="Blues", norm=norm))
    scale.set_label("Share of true class" + ("" if annotated else " (square-root scale)"))
    size = np.interp(num_classes, [5, MAX_ANNOTATED_CLASSES], [10, 6.5])
    for (row, column), share in np.ndenumerate(shares) if annotated else ():
        colour = "white" if share > 0.55 else INK if share else "#a0a0a0"
        text = axes.text(column, row, str(counts[row, column]), size=size, color=colour)
        text.set(ha="center", va="center", in_layout=False)
    axes.set(xlabel="Predicted class", xticks=shown, xticklabels=names)
    axes.set(ylabel="True class", yticks=shown, yticklabels=names)
    if room > side / len(names):
        slant: dict[str, Any] = {"rotation": 45 if annotated else 90, "rotation_mode": "anchor"}
        axes.set_xticks(shown, names, ha="right", va="top" if annotated else "center", **slant)
    axes.tick_params(labelsize=8, width=0.6)
    scale.ax.tick_params(labelsize=8, width=0.6)
    return figure


def roc_curves(targets: Ints, probabilities: Floats, class_names: Sequence[str]) -> Figure:
    """Draw one-vs-rest receiver operating characteristics, with the area under each (AUC).

    `targets` are classes, (N,), `probabilities` (N, C). Two classes give one curve, of class 1;
    more, an average too, and up to ten are named. Classes need both positives and negatives.
    """
    figure = _one_vs_rest(targets, probabilities, class_names, _roc, "AUC")
    figure.axes[0].plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", zorder=1)
    figure.axes[0].set(xlabel="False positive rate", ylabel="True positive rate")
    return figure


def precision_recall_curves(targets: Ints, probabilities: Floats, class_names: Sequence[str]) -> Figure:
    """Draw one-vs-rest precision against recall, with the average precision (AP) of each.

    Arguments and the choice of curves are those of `roc_curves`. Points are joined by steps, as
    straight lines between them promise too much (Davis and Goadrich 2006).
    """
    figure = _one_vs_rest(targets, probabilities, class_names, _precision_recall, "AP")
    figure.axes[0].set(xlabel="Recall", ylabel="Precision")
    return figure


def learning_curves(history: Mapping[str, Sequence[tuple[int, float]]], best_epoch: int | None) -> Figure:
    """Draw loss and accuracy over epochs, of training and, where there is any, of validation.

    `history` has (epoch, value) pairs of "train/loss", "val/loss", "train/accuracy" and
    "val/accuracy", the latter two as fractions; other names are not drawn.
    """
    figure = Figure((7.6, 3.2), dpi=150, layout="constrained")
    legend: dict[str, Any] = {}
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, label, colour in (("train", "train", BLUE), ("val", "validation", RED)):
            if points := history.get(f"{split}/{metric}", ()):
                style = "o-" if len(points) <= 40 else "-"
                (legend[label],) = axes.plot(*zip(*points, strict=True), style, ms=3.5, color=colour)
        if not axes.lines:
            axes.set_title(f"no {metric} recorded", **TITLE)
        elif best_epoch is not None:
            line = axes.axvline(best_epoch, color=GREY, linewidth=1, linestyle="--", zorder=1)
            legend[f"best epoch ({best_epoch})"] = line
        axes.set(xlabel="Epoch", ylabel=metric.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        _plain(axes)
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=3, **LEGEND)
    return figure


def reliability_diagram(targets: Ints, probabilities: Floats, num_bins: int = 15) -> Figure:
    """Draw accuracy against top-label confidence in equally wide bins, above their histogram.

    `targets` are classes, (N,), `probabilities` (N, C). The title has the expected calibration
    error (Guo et al. 2017, equation 3), as a fraction.
    """
    confidences = probabilities.max(axis=1).astype(np.float64)  # (N,)
    correct = probabilities.argmax(axis=1) == targets  # (N,)
    bins = np.digitize(confidences, np.linspace(0, 1, num_bins + 1)[1:-1])  # (N,)
    sizes = np.bincount(bins)
    filled = np.flatnonzero(sizes)
    accuracy = np.bincount(bins, correct)[filled] / sizes[filled]
    gap = np.bincount(bins, confidences)[filled] / sizes[filled] - accuracy
    error = np.abs(gap) @ sizes[filled] / len(targets)

    figure = Figure((4.4, 5.0), dpi=150, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bar: dict[str, Any] = {"width": 1 / num_bins, "align": "edge", "edgecolor": "white"}
    top.bar(filled / num_bins, accuracy, color=BLUE, label="accuracy", **bar)
    bar |= {"edgecolor": RED, "facecolor": "none", "linewidth": 0.7, "hatch": "////"}
    top.bar(filled / num_bins, gap, bottom=accuracy, label="gap to mean confidence", **bar)
    top.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle="--", label="perfect calibration")
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="Accuracy")
    top.set_title(f"Expected calibration error {error:.4f}", **TITLE)
    top.legend(loc="upper left", **LEGEND)
    shares = sizes[filled] / len(targets)
    bottom.bar(filled / num_bins, shares, 1 / num_bins, align="edge", color=GREY, ec="white")
    bottom.set(xlabel="Confidence in the predicted class", ylabel="Share")
    _plain(top)
    _plain(bottom)
    return figure


def sample_sheet(images: Bytes, targets: Ints, class_names: Sequence[str], per_class: int = 8) -> Figure:
    """Draw the first `per_class` samples of each class in a row, of the first ten classes at most.

    `images` are (N, C, H, W), grey (C = 1) or RGB (C = 3), `targets` classes, (N,).
    """
    rows = min(len(class_names), MAX_NAMED_CLASSES)
    names = [_short(name) for name in class_names[:rows]]
    tiles = np.full((rows * per_class, *images.shape[1:]), 255, np.uint8)  # white where none is found
    for row in range(rows):
        samples = np.flatnonzero(targets == row)[:per_class]
        tiles[row * per_class :][: len(samples)] = images[samples]
    figure, axes = _sheet(tiles, per_class, left_inches=0.15 + 0.075 * max(map(len, names)))
    axes.set_yticks(np.arange(rows) + 0.5, names, size=9)
    if rows < len(class_names):
        axes.set_title(f"The first {rows} of {len(class_names)} classes", **TITLE)
    return figure


def augmented_sheet(original: Bytes, augmented: Bytes, class_name: str) -> Figure:
    """Draw an image, (C, H, W), in a frame, then its augmented versions, (K, C, H, W), grey or RGB."""
    tiles = np.concatenate([original[None], augmented])  # (1 + K, C, H, W)
    figure, axes = _sheet(tiles, max(4, int(np.ceil(np.sqrt(len(tiles))))), tile_inches=1)
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=RED, linewidth=3, clip_on=False))
    axes.set_title(f"{_short(class_name)}: original (framed) and augmented", **TITLE)
    return figure


def worst_mistakes(
    images: Bytes,
    targets: Ints,
    probabilities: Floats,
    class_names: Sequence[str],
    count: int = 24,
    ids: Sequence[str] | None = None,
) -> Figure:
    """Draw the `count` misclassified samples with the highest confidence in the wrong class.

    `images` are (N, C, H, W), grey (C = 1) or RGB (C = 3), `targets` classes, (N,),
    `probabilities` (N, C), `ids` N names to write below the images.
    """
    predicted, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)  # (N,), (N,)
    mistakes = np.flatnonzero(predicted != targets)
    worst = mistakes[np.argsort(-confidences[mistakes], kind="stable")[:count]]
    if not len(worst):
        figure = Figure((4.4, 0.6), dpi=150, layout="constrained")
        figure.suptitle(f"No mistakes among {len(targets):,} samples", fontsize=10)
        return figure
    columns = min(len(worst), 6)
    figure, axes = _sheet(images[worst], columns, tile_inches=1.05, pad_inches=(0.42, 0.17, 0.2))
    for cell, sample in enumerate(worst):
        row, column = divmod(cell, columns)
        true, wrong = _short(class_names[targets[sample]]), _short(class_names[predicted[sample]])
        title = f"{true} →\n{wrong} {confidences[sample]:.2f}"
        axes.text(column + 0.5, row + 0.06, title, size=7.5, color=INK, ha="center", va="top")
        if ids is not None:
            name = _short(ids[sample][-28:], 28)
            axes.text(column + 0.5, row + 0.97, name, size=6, color=GREY, ha="center", va="bottom")
    axes.set_title(f"{len(worst)} of {len(mistakes):,} mistakes in {len(targets):,} samples", **TITLE)
    return figure


def _roc(positives: Bools, scores: Floats) -> tuple[Floats, float]:
    from sklearn.metrics import auc, roc_curve  # takes a second to import

    false_rate, true_rate, _ = roc_curve(positives, scores)
    heights = np.interp(CURVE_GRID, false_rate, true_rate)
    heights[0] = 0  # a curve leaves the origin upwards
    return heights, auc(false_rate, true_rate)


def _precision_recall(positives: Bools, scores: Floats) -> tuple[Floats, float]:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positives, scores)
    heights = precision[::-1][np.searchsorted(recall[::-1], CURVE_GRID)]
    return heights, -np.diff(recall) @ precision[:-1]


def _one_vs_rest(
    targets: Ints,
    probabilities: Floats,
    class_names: Sequence[str],
    curve_of: Callable[[Bools, Floats], tuple[Floats, float]],
    area_name: str,
) -> Figure:
    num_classes = len(class_names)
    curves = {}
    for index in [1] if num_classes == 2 else range(num_classes):
        positives = targets == index  # (N,)
        if positives.any() and not positives.all():
            curves[index] = curve_of(positives, probabilities[:, index])
    figure = Figure((5.8, 3.9), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    _plain(axes)
    if not curves:
        axes.set_title("no class has both positives and negatives", **TITLE)
        return figure
    legend: dict[str, Any] = {}
    if num_classes > 2:
        # The area below the average of curves is the average of their areas.
        height, area = (np.mean(each, axis=0) for each in zip(*curves.values(), strict=True))
        (line,) = axes.plot(CURVE_GRID, height, color=INK, linewidth=2, zorder=3)
        counted = "average" if len(curves) == num_classes else f"over {len(curves)} classes"
        legend[f"{area:.4f}  macro {counted}"] = line
    for index, (heights, area) in curves.items():
        (line,) = axes.plot(CURVE_GRID, heights, color=BLUE, linewidth=0.6, alpha=0.25)
        if num_classes <= MAX_NAMED_CLASSES:
            line.set(color=BLUE if num_classes == 2 else PALETTE[index], linewidth=1.2, alpha=1)
            legend[f"{area:.4f}  {_short(class_names[index], 22)}"] = line
    figure.legend(legend.values(), legend.keys(), title=area_name, loc="outside right upper", **LEGEND)
    return figure


def _sheet(
    tiles: Bytes,
    columns: int,
    tile_inches: float = 0.75,
    pad_inches: tuple[float, float, float] = (0.03, 0.03, 0.03),  # above, below, beside
    left_inches: float = 0.15,
) -> tuple[Figure, Axes]:
    """Draw tiles, (K, C, H, W), as one picture, for speed, in which each with its padding is 1 by 1."""
    rows = -(-len(tiles) // columns)
    channels, height, width = tiles.shape[1:]
    if channels not in (1, 3):
        raise ValueError(f"images to draw must have 1 channel (grey) or 3 (RGB), got {channels}")
    inches = tile_inches / max(height, width)
    above, below, beside = (max(1, round(pad / inches)) for pad in pad_inches)  # pixels
    high, wide = above + height + below, width + 2 * beside
    picture = np.full((rows * columns, high, wide, 3), 255, np.uint8)
    inside = picture[: len(tiles), above : above + height, beside : beside + width]
    inside[:] = tiles.transpose(0, 2, 3, 1)  # grey fills all three channels
    sheet_width, sheet_height = columns * wide * inches, rows * high * inches
    full_width, full_height = max(left_inches + sheet_width + 0.15, 3.6), sheet_height + 0.4
    figure = Figure((full_width, full_height), dpi=150)
    size = (sheet_width / full_width, sheet_height / full_height)
    axes = figure.add_axes((left_inches / full_width, 0.1 / full_height, *size))
    grid = picture.reshape(rows, columns, high, wide, 3).swapaxes(1, 2)
    axes.imshow(grid.reshape(rows * high, -1, 3), extent=(0, columns, rows, 0), aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_linewidth(0.6)
    axes.tick_params(labelsize=8, width=0.6)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def _short(name: str, length: int = 20) -> str:
    """Cut a name, and keep its dollar signs from being read as mathematics."""
    return (name if len(name) <= length else name[: length - 1] + "…").replace("$", r"\$")
