"""`darkroom learning-curve`: trains on growing parts of the training images; tells what more would bring."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich.console import Console
from rich.table import Table

from darkroom.lightning_modules.metrics.names import is_minimized
from darkroom.lightning_modules.task import build_task

from ...errors import RequestError, nearest
from ...evaluation.array_types import Floats
from ...evaluation.bootstrap import replicates
from ...evaluation.clustered import group_of_image, groups_by_id, unrecorded_groups
from ...tracking.prediction_artifacts import read_outcome
from ...tracking.run import RunRecord
from ...tracking.run_lifecycle import recording
from ...tracking.store import open_store
from ..child_runs import exclusive
from .power_law import MIN_SIZES, LearningCurve, fit_curve, largest_miss
from .runs import FRACTION, find_parent, load_points, train_points

RESAMPLES = 400  # each of which is fitted


@dataclass(frozen=True)
class Measured:
    """The runs of a curve and what came of them.

    Attributes:
        metric: Such as test/accuracy.
        frame: `run`, `fraction`, `seed`, `images` and `value` of each run, smaller fractions first.
        num_judged: Images that all of them were judged on.
        curve: The fitted law; None where there is none.
        units: That these are in groups, which intervals count, or why there are none; None of images that
            are not.
    """

    metric: str
    frame: pd.DataFrame
    num_judged: int
    curve: LearningCurve | None
    units: str | None = None

    @property
    def errors(self) -> list[float]:
        """What of the metric is lacking; of one that is minimised, itself."""
        return [float(error) for error in as_errors(self.frame["value"].to_numpy(), self.metric)]

    @property
    def sizes(self) -> list[int]:
        """Training images of each run."""
        return [int(size) for size in self.frame["images"]]


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Trains what is not recorded yet, fits, records below one run.

    Raises:
        RequestError: The request was wrong, or the data is not available; nothing was trained.
    """
    points = load_points(arguments.experiments, overrides, arguments.fractions, arguments.seeds)
    first = next(iter(points.values()))
    data = first.load_data()
    task = build_task(len(data.class_names), data.task)
    known = [name for name in task.metric_names if name != "loss"]
    name = arguments.metric or task.headline
    if name not in known:
        raise RequestError(f"--metric: there is no {name} of predictions; {nearest(name, known)}")
    split = "test" if "test" in data.splits else "val"
    store = open_store()
    parent = find_parent(store, first)
    with exclusive(parent, "learning curve"), recording(parent, to_continue="the same command again"):
        store.continue_run(parent)
        runs = list(train_points(points, store, parent))
        measured = measure(runs, split, name)
        record(parent, measured)
    console = Console()
    console.print(table(measured))
    for line in told(measured):
        console.print(line, highlight=False)
    console.print(f"run {parent.run_id}  ({parent.name})", highlight=False)


def as_errors(values: Floats, metric: str) -> Floats:
    """What falls with more images.

    >>> import numpy as np
    >>> as_errors(np.array([0.75]), "test/accuracy").tolist()
    [0.25]
    """
    return values if is_minimized(metric) else 1 - values


def measure(runs: Sequence[RunRecord], split: str, name: str) -> Measured:
    """Reads what the runs recorded, and fits the law to it."""
    stage = "best" if split == "val" else split  # the chosen checkpoint's, not the last epoch's
    metric = f"{split}/{name}"
    frame = pd.DataFrame(
        {
            "run": [run.run_id for run in runs],
            "fraction": [float(run.params[FRACTION]) for run in runs],
            "seed": [int(run.params["seed"]) for run in runs],
            "images": [int(run.params["num_train_images"]) for run in runs],
            "value": [run.metrics[f"{stage}/{name}"] for run in runs],
        }
    )
    outcomes = [read_outcome(run, split) for run in runs]
    num_judged = len(outcomes[0].ids)
    drawn = replicates(outcomes, name)
    assert drawn is not None  # `run` has looked
    group_of = group_of_image(outcomes)
    groups = None if group_of is None else groups_by_id(outcomes, group_of)
    units = unrecorded_groups(outcomes) if groups is None else groups.told()
    measured = Measured(metric, frame, num_judged, None, units)
    drawn = as_errors(drawn[: RESAMPLES if groups is None or groups.are_enough else 0], metric)
    curve = fit_curve(measured.sizes, measured.errors, drawn, 0.5 / num_judged)
    return replace(measured, curve=curve)


def table(measured: Measured) -> Table:
    """For the terminal: the metric of each size, over its seeds."""
    shown = Table("fraction", title=measured.metric)
    for name in ("images", "seeds", "mean", "s.d."):
        shown.add_column(name, justify="right")
    for fraction, rows in measured.frame.groupby("fraction"):
        deviation = f"{rows['value'].std():.4f}" if len(rows) > 1 else "-"
        images, mean = rows["images"].iloc[0], rows["value"].mean()
        shown.add_row(f"{fraction}", f"{images:,}", str(len(rows)), f"{mean:.4f}", deviation)
    return shown


def told(measured: Measured) -> list[str]:
    """What can be said of more images, in sentences."""
    curve, most = measured.curve, max(measured.sizes)
    if curve is None:
        distinct = len(set(measured.sizes))
        if distinct < MIN_SIZES:
            return [
                f"no curve was fitted: its three parameters need at least {MIN_SIZES} fractions, there are "
                f"{distinct}; the same command with more goes on from here"
            ]
        return ["no curve was fitted: no power law is near these errors"]
    (gain, (low, high)), exponent = curve.doubling(most), curve.interval("c")
    word = "lower" if is_minimized(measured.metric) else "raise"
    law = curve.law
    formula = f"error = {law.a:.4f} + {law.b:.4f} (n / {most:,})^-{law.c:.2f}"
    doubled = f"doubling the training images to {2 * most:,} would {word} {measured.metric} by {gain:.4f}"
    if curve.drawn:
        lines = [
            f"{formula}, c within [{exponent.low:.2f}, {exponent.high:.2f}]",
            f"{doubled} [{low:.4f}, {high:.4f}] "
            f"(95 %, bootstrap over runs and {measured.num_judged:,} images)",
        ]
    else:
        lines = [formula, doubled]
        if len(measured.sizes) == len(set(measured.sizes)):
            lines[1] += (
                "; there is no interval: each fraction has a single run, which does not tell how much "
                "seeds vary"
            )
    if measured.units is not None:
        lines.append(measured.units)
        lines.append(
            "training images were thinned one by one, not by group: more images means more of these groups"
        )
    if len(set(measured.sizes)) == MIN_SIZES:
        miss = largest_miss(curve, measured.sizes, measured.errors)
        met = "meets each" if miss < 0.5 / measured.num_judged else f"misses one by {miss:.4f}"
        lines.append(f"of three fractions the curve {met}: whether the law holds is not tested")
    if measured.metric.startswith("val/"):
        lines.append("there are no test images: this is on validation, which chose the epochs")
    return lines


def record(parent: RunRecord, measured: Measured) -> None:
    """The runs, the law, what is to be said, and the figure, with the run of the curve."""
    from ...reporting.style import save  # matplotlib is not needed before the end
    from .plot import draw_curve

    curve, most = measured.curve, max(measured.sizes)
    if curve is not None:
        law = curve.law
        parent.log_metrics({"curve/a": law.a, "curve/b": law.b, "curve/c": law.c})
        parent.log_metrics({f"doubling/{measured.metric}": curve.doubling(most)[0]})
    name = measured.metric.rpartition("/")[2].replace("_", " ")
    label = name.capitalize() if is_minimized(measured.metric) else f"1 - {name}"
    num_seeds = measured.frame["seed"].nunique()
    with parent.artifacts() as folder:
        measured.frame.to_csv(folder / "learning_curve.csv", index=False)
        (folder / "learning_curve.md").write_text("\n".join(told(measured)) + "\n")
        save(
            draw_curve(measured.sizes, measured.errors, curve, label, num_seeds),
            folder / "learning_curve.png",
        )
