"""Adds the arguments of each command to its parser; configuration keys are none of them."""

from __future__ import annotations

import argparse


def experiments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments",
        nargs="+",
        metavar="EXPERIMENT",
        help="a recipe's name or a YAML file; of several the last wins",
    )


def data(parser: argparse.ArgumentParser) -> None:
    experiments(parser)
    parser.add_argument(
        "--strict", action="store_true", help="exit status 1 where duplicates or groups stand across splits"
    )
    parser.add_argument("--out", metavar="FILE", help="the page (default: <experiment>-data.html)")
    parser.add_argument(
        "--labels",
        metavar="RUN",
        action="append",
        default=[],
        help="list labels that this run doubts, of its validation images; several times for several folds",
    )


def recipes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--outdated",
        action="store_true",
        help="only claims of our own that were measured before repairs that change numbers",
    )


def any_version(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--any-version", action="store_true", help=help)


def tune(parser: argparse.ArgumentParser) -> None:
    experiments(parser)
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps of the learning-rate range test (default: 300)"
    )
    parser.add_argument(
        "--lr-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="its rates, each of which stands for model.lr (default: 1e-6 10)",
    )
    parser.add_argument(
        "--batch-size",
        action="store_true",
        help="find the batch size instead: the largest that fits a GPU, and the smallest that is fast",
    )
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="with --batch-size, on the CPU: the largest whose training takes no more than so much",
    )


def train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="a recipe's name or a YAML file; of several the last wins",
    )
    parser.add_argument("--resume", metavar="RUN", help="continue a run that was killed, where it stopped")
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validation: train each of K folds; the same command again goes on with what was killed",
    )
    parser.add_argument(
        "--boost",
        type=int,
        metavar="M",
        help="boosting: train M members, each on more of what those before it got wrong; goes on likewise",
    )


def sweep(parser: argparse.ArgumentParser) -> None:
    experiments(parser)
    parser.add_argument(
        "--trials", type=int, metavar="N", help="configurations to try (default: the recipe's)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="trials at once (default: one, or one a GPU)"
    )
    parser.add_argument(
        "--trials-per-gpu", type=int, default=1, metavar="N", help="trials that share a GPU (default: 1)"
    )
    parser.add_argument("--study", metavar="NAME", help="name of the study (default: the recipe's)")
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna's database (default: sqlite:///optuna.db in this folder)"
    )
    parser.add_argument(
        "--extend", action="store_true", help="go on with a study although its space was changed"
    )
    any_version(parser, "go on with a study that was begun before repairs that change numbers")
    parser.add_argument(
        "--launcher",
        choices=("local", "ray", "slurm"),
        default="local",
        help="who runs it: this machine (default), or several of a Ray cluster or of SLURM",
    )
    parser.add_argument(
        "--machines",
        type=int,
        metavar="N",
        help="machines to run it on (default: all of Ray's, one of SLURM)",
    )
    parser.add_argument(
        "--launcher-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of SLURM's jobs, such as time=120 (minutes), partition=gpu, cpus_per_task=8",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the script for SLURM, and submit nothing"
    )


def evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="RUN",
        help="a run's id, the unique beginning of one, or its name; with --untrained an experiment",
    )
    parser.add_argument("--split", choices=("test", "val"), help="images to judge on (default: test)")
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="judge the weights that an EXPERIMENT starts from (model.pretrained or model.weights), as a run",
    )


def slices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="RUN", help="a run's id, the unique beginning of one, or its name")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="class, size, brightness or a column of the data's table; several times for several "
        "(default: all, of a table those with few values)",
    )
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="images to judge on (default: test)"
    )
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write it as .md or .csv too; several times for several",
    )


def compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="*", metavar="RUN_OR_EXPERIMENT", help="runs, recipes or sweeps; all runs of each"
    )
    parser.add_argument(
        "--where",
        metavar="FILTER",
        help='only runs that MLflow\'s filter admits, such as "metrics.`test/accuracy` > 0.9"',
    )
    parser.add_argument(
        "--metric", default="test/accuracy", metavar="NAME", help="what is compared (default: test/accuracy)"
    )
    parser.add_argument(
        "--rope",
        type=float,
        metavar="R",
        help="a Bayesian test too: is any difference larger than this, which matters in practice?",
    )
    any_version(parser, "take seeds of one configuration together whatever repairs came between them")
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write it as .md, .tex, .csv or .html too; several times for several",
    )


def ensemble(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs, recipes or sweeps; all runs of each")
    parser.add_argument(
        "--method",
        choices=("soft_voting", "greedy", "stacking", "soup"),
        default="soft_voting",
        help="mean of probabilities (default), greedy selection, logistic regression, or mean of weights",
    )
    parser.add_argument(
        "--where",
        metavar="FILTER",
        help='only runs that MLflow\'s filter admits, such as "metrics.`best/accuracy` > 0.9"',
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="what greedy selection raises and is told (default: accuracy; of labels average_precision)",
    )
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write the table as .md or .csv too; several times for several",
    )


def learning_curve(parser: argparse.ArgumentParser) -> None:
    experiments(parser)
    parser.add_argument(
        "--fractions",
        type=float,
        nargs="+",
        default=[0.1, 0.3, 1.0],
        metavar="F",
        help="shares of the training images, each a part of the larger ones (default: 0.1 0.3 1)",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], metavar="N", help="seeds of each (default: 0)"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="what is told (default: accuracy; of labels average_precision)"
    )


def reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments", nargs="*", metavar="EXPERIMENT", help="recipes, or YAML files, each with a claim"
    )
    parser.add_argument("--all", action="store_true", help="every recipe that claims something")
    parser.add_argument(
        "--budget",
        choices=("smoke", "mini", "full"),
        default="full",
        help="less than the whole: an epoch of five batches, or a tenth of the epochs, of one seed",
    )
    any_version(parser, "count runs that were recorded before repairs that change numbers")
    parser.add_argument("--fresh", action="store_true", help="train all seeds, whatever is recorded")
    parser.add_argument("--recorded", action="store_true", help="train nothing: judge what is recorded")
    parser.add_argument(
        "--out", metavar="FILE", help="write the table there, of a .md that has one its rows; or a .html page"
    )


def rerun(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="RUN", help="a run's id, the unique beginning of one, or its name")
    parser.add_argument(
        "--at-commit", action="store_true", help="with the recorded code, checked out in a temporary worktree"
    )


def ui(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000, help="port to serve on (default: 5000)")
