"""Grids of samples, augmentations and worst mistakes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..evaluation.array_types import Bytes, Floats, Ints
from ..evaluation.predictions import positives_of
from .style import GREY, INK, MAX_NAMED_CLASSES, RED, TITLE, shorten


class DrawnImages(Protocol):
    """Images (N, C, H, W) of which only those that are drawn are asked for; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, places: Ints, /) -> Bytes: ...


def sample_sheet(
    images: DrawnImages, targets: Ints, class_names: Sequence[str], per_class: int = 8
) -> Figure:
    """Draw the first `per_class` samples of each class in a row, of the first ten classes at most.

    `images` are (N, C, H, W), grey (C = 1) or RGB (C = 3), `targets` classes, (N,), or labels,
    (N, K): the row of a label has images with it, whatever other labels they have.
    """
    positives = positives_of(targets, len(class_names))  # (N, K)
    rows = min(len(class_names), MAX_NAMED_CLASSES)
    names = [shorten(name) for name in class_names[:rows]]
    tiles = np.full((rows * per_class, *images.shape[1:]), 255, np.uint8)  # white where none is found
    for row in range(rows):
        samples = np.flatnonzero(positives[:, row])[:per_class]
        tiles[row * per_class :][: len(samples)] = images[samples]
    figure, axes = _sheet(tiles, per_class, left_inches=0.15 + 0.075 * max(map(len, names)))
    axes.set_yticks(np.arange(rows) + 0.5, names, size=9)
    if rows < len(class_names):
        axes.set_title(
            f"The first {rows} of {len(class_names)} {'labels' if targets.ndim == 2 else 'classes'}", **TITLE
        )
    return figure


def augmented_sheet(original: Bytes, augmented: Bytes, class_name: str) -> Figure:
    """Draw an image, (C, H, W), in a frame, then its augmented versions, (K, C, H, W), grey or RGB."""
    tiles = np.concatenate([original[None], augmented])  # (1 + K, C, H, W)
    figure, axes = _sheet(tiles, max(4, int(np.ceil(np.sqrt(len(tiles))))), tile_inches=1)
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=RED, linewidth=3, clip_on=False))
    axes.set_title(f"{shorten(class_name)}: original (framed) and augmented", **TITLE)
    return figure


def worst_mistakes(
    images: DrawnImages,
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
    titles = [
        f"{shorten(class_names[targets[sample]])} →\n"
        f"{shorten(class_names[predicted[sample]])} {confidences[sample]:.2f}"
        for sample in worst
    ]
    told = f"{len(worst)} of {len(mistakes):,} mistakes in {len(targets):,} samples"
    if not len(mistakes):
        told = f"No mistakes among {len(targets):,} samples"
    return _titled_sheet(images[worst], titles, told, [ids[sample] for sample in worst] if ids else None)


def worst_label_mistakes(
    images: DrawnImages,
    targets: Floats,
    probabilities: Floats,
    label_names: Sequence[str],
    thresholds: Sequence[float],
    count: int = 24,
    ids: Sequence[str] | None = None,
) -> Figure:
    """Draw the `count` images with the label that is most confidently wrong, each with that label.

    `images` are (N, C, H, W), grey (C = 1) or RGB (C = 3), `targets` labels, (N, K), of 0 and 1,
    `probabilities` (N, K), `thresholds` (K,) those above which a label is predicted, `ids` N names.
    """
    wrong = (probabilities > thresholds) != (targets > 0.5)  # (N, K)
    errors = np.where(wrong, np.abs(probabilities - targets), -1)  # (N, K)
    labels = errors.argmax(axis=1)  # (N,)
    mistakes = np.flatnonzero(wrong.any(axis=1))
    worst = mistakes[np.argsort(-errors.max(axis=1)[mistakes], kind="stable")[:count]]
    titles = [
        f"{shorten(label_names[label])} {probabilities[sample, label]:.2f}\n"
        f"but {'present' if targets[sample, label] > 0.5 else 'absent'}"
        for sample, label in zip(worst, labels[worst], strict=True)
    ]
    told = f"{len(worst)} of {len(mistakes):,} images with a wrong label, of {len(targets):,}"
    if not len(mistakes):
        told = f"No wrong label among {len(targets):,} images"
    return _titled_sheet(images[worst], titles, told, [ids[sample] for sample in worst] if ids else None)


def _titled_sheet(tiles: Bytes, titles: Sequence[str], told: str, ids: Sequence[str] | None) -> Figure:
    """Draw tiles, (K, C, H, W), each below its title of two lines, and above its id."""
    if not len(tiles):
        figure = Figure((4.4, 0.6), dpi=150, layout="constrained")
        figure.suptitle(told, fontsize=10)
        return figure
    columns = min(len(tiles), 6)
    figure, axes = _sheet(tiles, columns, tile_inches=1.05, pad_inches=(0.42, 0.17, 0.2))
    for cell, title in enumerate(titles):
        row, column = divmod(cell, columns)
        axes.text(column + 0.5, row + 0.06, title, size=7.5, color=INK, ha="center", va="top")
        if ids is not None:
            name = shorten(ids[cell][-28:], 28)
            axes.text(column + 0.5, row + 0.97, name, size=6, color=GREY, ha="center", va="bottom")
    axes.set_title(told, **TITLE)
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
