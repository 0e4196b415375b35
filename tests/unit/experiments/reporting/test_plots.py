"""Figures show what they were given: checked against scikit-learn, torchmetrics and rendered pixels."""

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics

from darkroom.experiments.reporting import image_grids, plots

BLUE = [63, 144, 218]


def predictions(num_classes: int, num_samples: int = 600) -> tuple[Any, Any, list[str]]:
    """Return targets, (N,), probabilities, (N, C), better than chance, and class names."""
    random = np.random.default_rng(num_classes)
    targets = random.integers(0, num_classes, num_samples)
    logits = random.normal(size=(num_samples, num_classes))
    logits[np.arange(num_samples), targets] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return targets, probabilities, [f"class {index}" for index in range(num_classes)]


def flat_images(*greys: int) -> np.ndarray:
    """Return one image per grey value, (N, 1, 28, 28), all of whose pixels have that value."""
    return np.tile(np.array(greys, np.uint8)[:, None, None, None], (1, 1, 28, 28))


def draw(figure: Figure) -> np.ndarray:
    """Return the rendered figure, (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def colours_at(axes: Axes, *points: tuple[float, float]) -> list[list[int]]:
    """Return the rendered colours at (x, y) points in the coordinates of the axes."""
    picture = draw(axes.get_figure())
    columns, rows_from_below = axes.transData.transform(points).astype(int).T
    return picture[len(picture) - 1 - rows_from_below, columns].tolist()


def cells(axes: Axes, rows: int, columns: int) -> list[list[int]]:
    """Return the grey values in the middle of a sheet's cells, row by row."""
    middles = [(column + 0.5, row + 0.6) for row in range(rows) for column in range(columns)]
    return np.array(colours_at(axes, *middles))[:, 0].reshape(rows, columns).tolist()


def legend_scores(figure: Figure) -> dict[str, float]:
    """Return the scores in the legend of a figure by name."""
    entries = [text.get_text().split("  ") for text in figure.legends[0].get_texts()]
    return {name: float(score) for score, name in entries}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_confusion_matrix_writes_every_count_in_its_cell() -> None:
    counts = np.arange(9).reshape(3, 3)
    (axes, _) = plots.confusion_matrix(counts, ["a", "b", "c"]).axes
    assert len(axes.texts) == 9
    for text in axes.texts:
        column, row = text.get_position()
        assert text.get_text() == str(counts[row, column])


def test_confusion_matrix_colours_the_share_of_the_true_class_even_of_one_without_samples() -> None:
    targets, probabilities, names = predictions(4)
    targets[targets == 2] = 3
    predicted = probabilities.argmax(axis=1)
    expected = metrics.confusion_matrix(targets, predicted, normalize="true")
    axes = plots.confusion_matrix(metrics.confusion_matrix(targets, predicted), names).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert not expected[2].any()


@pytest.mark.parametrize("num_classes", [2, 10, 20, 21, 100, 1000])
def test_class_names_of_a_confusion_matrix_do_not_overlap(num_classes: int) -> None:
    counts = np.eye(num_classes, dtype=int)
    figure = plots.confusion_matrix(counts, [f"a long class name {i}" for i in range(num_classes)])
    draw(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) >= min(num_classes, 10)
    assert all(lower.y1 <= upper.y0 for upper, lower in pairwise(boxes))
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


def test_confusion_matrix_of_a_hundred_classes_writes_no_counts_and_names_the_right_rows() -> None:
    axes = plots.confusion_matrix(np.eye(100, dtype=int), [str(index) for index in range(100)]).axes[0]
    assert not axes.texts
    assert [int(label.get_text()) for label in axes.get_yticklabels()] == axes.get_yticks().tolist()


@pytest.mark.parametrize("num_classes", [3, 10])
def test_areas_in_the_legends_are_those_of_scikit_learn(num_classes: int) -> None:
    targets, probabilities, names = predictions(num_classes)
    one_hot = np.eye(num_classes)[targets]
    for draw_curves, score in (
        (plots.roc_curves, metrics.roc_auc_score),
        (plots.precision_recall_curves, metrics.average_precision_score),
    ):
        expected = dict(zip(names, score(one_hot, probabilities, average=None), strict=True))
        expected["macro average"] = score(one_hot, probabilities, average="macro")
        shown = legend_scores(draw_curves(targets, probabilities, names))
        assert shown == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize("draw_curves", [plots.roc_curves, plots.precision_recall_curves])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_drawn_curves_enclose_the_area_that_the_legend_says(draw_curves: Any, num_classes: int) -> None:
    figure = draw_curves(*predictions(num_classes, 3000))
    lines = dict(zip(legend_scores(figure), figure.legends[0].legend_handles, strict=True))
    drawn = {line.get_color(): line for line in figure.axes[0].lines}
    for name, score in legend_scores(figure).items():
        x, y = drawn[lines[name].get_color()].get_data()
        assert len(x) <= 500
        assert metrics.auc(x, y) == pytest.approx(score, abs=5e-3)


def test_roc_curves_run_from_the_origin_to_the_upper_right_corner() -> None:
    for line in plots.roc_curves(*predictions(3)).axes[0].lines:
        assert line.get_xydata()[[0, -1]].tolist() == [[0, 0], [1, 1]]


def test_two_classes_give_the_curve_of_class_one_alone() -> None:
    targets, probabilities, _ = predictions(2)
    roc = plots.roc_curves(targets, probabilities, ["cat", "dog"])
    precision_recall = plots.precision_recall_curves(targets, probabilities, ["cat", "dog"])
    area = metrics.roc_auc_score(targets, probabilities[:, 1])
    assert legend_scores(roc) == pytest.approx({"dog": area}, abs=5.1e-5)
    assert list(legend_scores(precision_recall)) == ["dog"]


def test_a_class_absent_from_the_targets_has_no_curve_and_the_average_says_so() -> None:
    targets, probabilities, names = predictions(4)
    targets[targets == 2] = 0
    for draw_curves in (plots.roc_curves, plots.precision_recall_curves):
        scores = legend_scores(draw_curves(targets, probabilities, names))
        assert set(scores) == {"class 0", "class 1", "class 3", "macro over 3 classes"}
        average = scores.pop("macro over 3 classes")
        assert average == pytest.approx(np.mean(list(scores.values())), abs=1e-4)


def test_targets_of_a_single_class_give_a_figure_that_says_why_it_is_empty() -> None:
    _, probabilities, names = predictions(3)
    targets = np.zeros(len(probabilities), int)
    for draw_curves in (plots.roc_curves, plots.precision_recall_curves):
        axes = draw_curves(targets, probabilities, names).axes[0]
        assert axes.get_title(loc="left") == "no class has both positives and negatives"


def test_of_a_hundred_classes_only_the_average_is_named_and_every_curve_is_drawn() -> None:
    targets, probabilities, names = predictions(100, 3000)
    figure = plots.precision_recall_curves(targets, probabilities, names)
    assert list(legend_scores(figure)) == ["macro average"]
    assert len(figure.axes[0].lines) == 101
    assert draw(figure).min() < 100


HISTORY = {
    "train/loss": [(0, 2.0), (1, 1.0), (2, 0.5)],
    "val/loss": [(0, 2.1), (2, 0.9)],
    "train/accuracy": [(0, 0.2), (1, 0.6), (2, 0.8)],
    "val/accuracy": [(0, 0.1), (2, 0.7)],
    "lr": [(0, 0.1)],
}


def test_learning_curves_contain_exactly_the_history_and_mark_the_best_epoch() -> None:
    figure = plots.learning_curves(HISTORY, best_epoch=2)
    for axes, metric in zip(figure.axes, ("loss", "accuracy"), strict=True):
        *curves, best = [np.array(line.get_data()).T.tolist() for line in axes.lines]
        assert curves == [
            [list(point) for point in HISTORY[f"{split}/{metric}"]] for split in ("train", "val")
        ]
        assert [x for x, _ in best] == [2, 2]
        assert axes.get_ylabel() == metric.capitalize()
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["train", "validation", "best epoch (2)"]


def test_a_run_without_validation_has_training_curves_alone() -> None:
    history = {name: HISTORY[name] for name in ("train/loss", "train/accuracy")}
    figure = plots.learning_curves(history, best_epoch=None)
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train"]


def test_a_single_epoch_is_visible_and_its_axis_is_integer() -> None:
    figure = plots.learning_curves({"train/loss": [(0, 2.0)], "train/accuracy": [(0, 0.2)]}, None)
    for axes, value in zip(figure.axes, (2.0, 0.2), strict=True):
        assert colours_at(axes, (0, value)) == [BLUE]
        left, right = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [0]


def test_epochs_are_labelled_with_integers_only() -> None:
    figure = plots.learning_curves(HISTORY, 2)
    draw(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert {"0", "1", "2"} <= set(labels)
    assert all("." not in label for label in labels)


def test_a_metric_that_was_not_recorded_is_said_to_be_missing() -> None:
    loss, accuracy = plots.learning_curves({"train/loss": HISTORY["train/loss"]}, 1).axes
    assert loss.get_title(loc="left") == ""
    assert accuracy.get_title(loc="left") == "no accuracy recorded"


def test_sample_sheet_shows_the_samples_of_each_class_in_its_row() -> None:
    images, targets = flat_images(10, 20, 30, 40, 50, 60), np.array([1, 0, 1, 3, 1, 3])
    (axes,) = image_grids.sample_sheet(images, targets, ["a", "b", "c", "d"], per_class=2).axes
    assert cells(axes, 4, 2) == [[20, 255], [10, 30], [255, 255], [40, 60]]
    labels = {label.get_text(): label.get_position()[1] for label in axes.get_yticklabels()}
    assert labels == {"a": 0.5, "b": 1.5, "c": 2.5, "d": 3.5}


def test_images_are_shown_upright_in_their_own_colours() -> None:
    image = np.full((1, 3, 16, 32), 100, np.uint8)
    image[0, :, :8, :16] = np.array([200, 30, 60])[:, None, None]  # the upper left quarter
    (axes,) = image_grids.sample_sheet(image, np.array([0]), ["a"], per_class=1).axes
    quarters = colours_at(axes, (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
    assert quarters == [[200, 30, 60], [100] * 3, [100] * 3, [100] * 3]
    box = axes.get_window_extent()
    assert box.width / box.height == pytest.approx(2, rel=0.1)


def test_sample_sheet_of_many_classes_shows_the_first_ten_and_says_so() -> None:
    targets = np.arange(12)
    names = [f"class {index}" for index in range(12)]
    (axes,) = image_grids.sample_sheet(flat_images(*(20 * targets)), targets, names, per_class=1).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == names[:10]
    assert axes.get_title(loc="left") == "The first 10 of 12 classes"
    assert cells(axes, 10, 1) == [[20 * index] for index in range(10)]


def test_augmented_sheet_frames_the_original_and_shows_its_versions_in_order() -> None:
    (axes,) = image_grids.augmented_sheet(flat_images(5)[0], flat_images(10, 20, 30, 40), "boot").axes
    assert cells(axes, 2, 4) == [[5, 10, 20, 30], [40, 255, 255, 255]]
    (frame,) = axes.patches
    assert frame.get_bbox().bounds == (0, 0, 1, 1)
    assert axes.get_title(loc="left").startswith("boot")


def test_worst_mistakes_are_the_most_confident_ones_in_order_each_with_its_own_image() -> None:
    targets, probabilities, names = predictions(5, 250)
    images, ids = flat_images(*range(250)), [f"sample {index}" for index in range(250)]
    (axes,) = image_grids.worst_mistakes(images, targets, probabilities, names, count=8, ids=ids).axes

    mistakes = [index for index in range(250) if probabilities[index].argmax() != targets[index]]
    worst = sorted(mistakes, key=lambda index: probabilities[index].max(), reverse=True)[:8]
    expected = []
    for index in worst:
        predicted, confidence = probabilities[index].argmax(), probabilities[index].max()
        expected += [f"class {targets[index]} →\nclass {predicted} {confidence:.2f}", ids[index]]
    assert texts(axes) == expected
    assert np.ravel(cells(axes, 2, 6)).tolist() == [*worst, 255, 255, 255, 255]
    assert axes.get_title(loc="left") == f"8 of {len(mistakes)} mistakes in 250 samples"


def test_titles_of_mistakes_stand_above_their_own_image() -> None:
    targets, probabilities, names = predictions(5, 250)
    figure = image_grids.worst_mistakes(flat_images(*[0] * 250), targets, probabilities, names, count=12)
    (axes,) = figure.axes
    picture = draw(figure)
    for cell, text in enumerate(axes.texts):
        box = text.get_window_extent().transformed(axes.transData.inverted())
        row, column = divmod(cell, 6)
        assert column <= box.x0 <= box.x1 <= column + 1
        assert row <= box.y1 <= box.y0 <= row + 0.4  # y grows downwards
        below = text.get_window_extent()
        gap = picture[len(picture) - int(below.y0) + 1, int(below.x0) : int(below.x1)]
        assert (gap == 255).all(), "the title must not run into the image"


def test_a_model_without_mistakes_gets_a_figure_that_says_so() -> None:
    figure = image_grids.worst_mistakes(flat_images(1, 2), np.array([0, 1]), np.eye(2), ["a", "b"])
    assert figure.get_suptitle() == "No mistakes among 2 samples"


def test_images_of_neither_one_nor_three_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 channel \(grey\) or 3 \(RGB\), got 4"):
        image_grids.sample_sheet(np.zeros((1, 4, 8, 8), np.uint8), np.array([0]), ["a"])


def test_dollar_signs_in_class_names_are_not_read_as_mathematics() -> None:
    targets, probabilities, _ = predictions(3, 60)
    names = [r"$\nonsense$", "$", "_hidden"]
    images = flat_images(*range(60))
    for figure in (
        plots.confusion_matrix(np.eye(3, dtype=int), names),
        plots.roc_curves(targets, probabilities, names),
        image_grids.sample_sheet(images, targets, names),
        image_grids.augmented_sheet(images[0], images, names[0]),
        image_grids.worst_mistakes(images, targets, probabilities, names, ids=names * 20),
    ):
        draw(figure)  # raises where matplotlib finds mathematics that it cannot parse
    assert "_hidden" in legend_scores(plots.roc_curves(targets, probabilities, names))


def test_importing_figures_loads_neither_pyplot_nor_scikit_learn() -> None:
    script = (
        "import sys, darkroom.experiments.reporting.plots; "
        "print({'matplotlib.pyplot', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
