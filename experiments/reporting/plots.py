"""Confusion matrix, ROC, precision-recall and learning curves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..evaluation.array_types import Bools, Floats, Ints
from ..evaluation.predictions import positives_of
from .style import BLUE, GREY, INK, LEGEND, MAX_NAMED_CLASSES, PALETTE, RED, TITLE, clean_axes, shorten

MAX_ANNOTATED_CLASSES = 20
MAX_LABEL_MATRICES = 30
CURVE_GRID = np.linspace(0, 1, 500)


def confusion_matrix(counts: Ints, class_names: Sequence[str]) -> Figure:
    """Draw how often each true class is predicted as each class.

    `counts` are samples, (C, C), rows true, columns predicted; colour is the share of the row.
    Above 20 classes cells carry no counts, and colour is on a square root to show rare confusions.
    """
    num_classes = len(counts)
    annotated = num_classes <= MAX_ANNOTATED_CLASSES
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, C)
    shown = range(0, num_classes, -(-num_classes // 25))
    names = [shorten(class_names[index]) for index in shown]
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


def label_confusion_matrices(counts: Ints, label_names: Sequence[str], thresholds: Sequence[float]) -> Figure:
    """Draw for each label, of the first thirty, how often it is predicted where absent and present.

    `counts` are images, (K, 2, 2), rows truly absent and present, columns predicted so above the
    label's threshold; colour is the share of the row.
    """
    shown = min(len(counts), MAX_LABEL_MATRICES)
    columns = min(shown, 5)
    rows = -(-shown // columns)
    figure = Figure((1.75 * columns + 0.6, 1.85 * rows + 0.3), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    shares = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)  # (K, 2, 2)
    for label, axes in enumerate(grid.flat):
        if label >= shown:
            axes.set_axis_off()
            continue
        axes.imshow(shares[label], cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares[label]):
            text = axes.text(column, row, f"{counts[label, row, column]:,}", size=9, ha="center", va="center")
            text.set_color("white" if share > 0.55 else INK if share else "#a0a0a0")
        axes.set_title(f"{shorten(label_names[label])}\nabove {thresholds[label]:.2f}", fontsize=8)
        axes.set_xticks([0, 1], ["absent", "present"])
        axes.set_yticks([0, 1], ["absent", "present"], rotation=90, va="center")
        axes.tick_params(labelsize=7, width=0.6)
    figure.supxlabel("Predicted", fontsize=9)
    figure.supylabel("True", fontsize=9)
    if shown < len(counts):
        figure.suptitle(f"The first {shown} of {len(counts)} labels", fontsize=10)
    return figure


def roc_curves(targets: Ints, scores: Floats, class_names: Sequence[str]) -> Figure:
    """Draw one-vs-rest receiver operating characteristics, with the area under each (AUC).

    `targets` are classes, (N,), or labels, (N, C), `scores` rank images for each, (N, C). Two classes give
    one curve, of class 1; more, and labels, an average too, and up to ten are named. Each needs both
    positives and negatives.
    """
    figure = _one_vs_rest(targets, scores, class_names, _roc, "AUC")
    figure.axes[0].plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", zorder=1)
    figure.axes[0].set(xlabel="False positive rate", ylabel="True positive rate")
    return figure


def precision_recall_curves(targets: Ints, scores: Floats, class_names: Sequence[str]) -> Figure:
    """Draw one-vs-rest precision against recall, with the average precision (AP) of each.

    Arguments and the choice of curves are those of `roc_curves`. Points are joined by steps, as
    straight lines between them promise too much (Davis and Goadrich 2006).
    """
    figure = _one_vs_rest(targets, scores, class_names, _precision_recall, "AP")
    figure.axes[0].set(xlabel="Recall", ylabel="Precision")
    return figure


def learning_curves(
    history: Mapping[str, Sequence[tuple[int, float]]], best_epoch: int | None, headline: str = "accuracy"
) -> Figure:
    """Draw loss and the headline metric over epochs, of training and, where there is any, of validation.

    `history` has (epoch, value) pairs of "train/loss", "val/loss", "train/accuracy" and
    "val/accuracy", the latter two as fractions; other names are not drawn.
    """
    figure = Figure((7.6, 3.2), dpi=150, layout="constrained")
    legend: dict[str, Any] = {}
    for axes, metric in zip(figure.subplots(1, 2), ("loss", headline), strict=True):
        spelled = metric.replace("_", " ")
        for split, label, colour in (("train", "train", BLUE), ("val", "validation", RED)):
            if points := history.get(f"{split}/{metric}", ()):
                style = "o-" if len(points) <= 40 else "-"
                (legend[label],) = axes.plot(*zip(*points, strict=True), style, ms=3.5, color=colour)
        if not axes.lines:
            axes.set_title(f"no {spelled} recorded", **TITLE)
        elif best_epoch is not None:
            line = axes.axvline(best_epoch, color=GREY, linewidth=1, linestyle="--", zorder=1)
            legend[f"best epoch ({best_epoch})"] = line
        axes.set(xlabel="Epoch", ylabel=spelled.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        clean_axes(axes)
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=3, **LEGEND)
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
    scores: Floats,
    class_names: Sequence[str],
    curve_of: Callable[[Bools, Floats], tuple[Floats, float]],
    area_name: str,
) -> Figure:
    num_classes = len(class_names)
    curves = {}
    alone = num_classes == 2 and targets.ndim == 1
    everyone = positives_of(targets, num_classes)  # (N, C)
    for index in [1] if alone else range(num_classes):
        positives = everyone[:, index]  # (N,)
        if positives.any() and not positives.all():
            curves[index] = curve_of(positives, scores[:, index])
    figure = Figure((5.8, 3.9), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    clean_axes(axes)
    if not curves:
        axes.set_title("no class has both positives and negatives", **TITLE)
        return figure
    legend: dict[str, Any] = {}
    if not alone:
        # The area below the average of curves is the average of their areas.
        height, area = (np.mean(each, axis=0) for each in zip(*curves.values(), strict=True))
        (line,) = axes.plot(CURVE_GRID, height, color=INK, linewidth=2, zorder=3)
        counted = "average" if len(curves) == num_classes else f"over {len(curves)} classes"
        legend[f"{area:.4f}  macro {counted}"] = line
    for index, (heights, area) in curves.items():
        (line,) = axes.plot(CURVE_GRID, heights, color=BLUE, linewidth=0.6, alpha=0.25)
        if num_classes <= MAX_NAMED_CLASSES:
            line.set(color=BLUE if alone else PALETTE[index], linewidth=1.2, alpha=1)
            legend[f"{area:.4f}  {shorten(class_names[index], 22)}"] = line
    figure.legend(legend.values(), legend.keys(), title=area_name, loc="outside right upper", **LEGEND)
    return figure
