"""Command table and argument parsers; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import arguments


@dataclass(frozen=True)
class Command:
    """One command: where it lives, what it does, and its own arguments.

    `module` is named within `darkroom.experiments`, and its `run(arguments, overrides)` does the work.
    `arguments` adds to the parser what is no configuration key; keys are taken from anywhere on the line and
    passed as `overrides`.
    """

    module: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    takes_keys: bool = True


COMMANDS: Mapping[str, Command] = {
    "list": Command(
        "cli.list", "the recipes, with source and claimed score", arguments.recipes, takes_keys=False
    ),
    "show": Command(
        "cli.show",
        "an experiment's configuration and its network, layer by layer",
        arguments.experiments,
    ),
    "data": Command(
        "analysis.dataset.command",
        "what the data holds: counts, duplicates, leaks, outliers",
        arguments.data,
    ),
    "tune": Command(
        "workflows.tune.command",
        "which learning rate to begin with, by a range test; or which batch size fits and is fast",
        arguments.tune,
    ),
    "train": Command(
        "cli.train", "one run: fit, test the best checkpoint, record all of it", arguments.train
    ),
    "sweep": Command(
        "sweep.command",
        "a search over configurations; the best is trained and tested",
        arguments.sweep,
    ),
    "evaluate": Command(
        "cli.evaluate",
        "a recorded run's metrics, computed again or on other data; or untrained weights'",
        arguments.evaluate,
    ),
    "slices": Command(
        "analysis.slices.command",
        "on which images a recorded run does worse: by class, size, brightness, any column",
        arguments.slices,
    ),
    "compare": Command(
        "analysis.compare.command",
        "which configuration is better, and whether that can be known",
        arguments.compare,
    ),
    "ensemble": Command(
        "workflows.ensemble.command",
        "several recorded runs as one predictor, fitted on validation and tested once",
        arguments.ensemble,
    ),
    "learning-curve": Command(
        "workflows.learning_curve.command",
        "what more training images would bring: nested fractions of them, and a power law",
        arguments.learning_curve,
    ),
    "reproduce": Command(
        "workflows.reproduce.command",
        "a recipe's seeds, held against its claim: a verdict",
        arguments.reproduce,
    ),
    "rerun": Command(
        "workflows.rerun",
        "a recorded run again from its record; says what differs",
        arguments.rerun,
    ),
    "ui": Command("cli.ui", "the MLflow UI on the store in use", arguments.ui, takes_keys=False),
}
DESCRIPTION = "Image classification for researchers whose numbers have to be right."
EPILOG = """\
Any configuration key can follow as --key=value, such as --model.lr=3e-4 --trainer.max_epochs=5 --seed=1;
`darkroom show EXPERIMENT --help` lists them all.
Exit status: 0 done; 1 the work failed; 2 the request was wrong; 130 interrupted, 143 told
to leave (SIGTERM, SIGUSR1): what is done is kept."""


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command's own arguments; configuration keys are taken from the line before."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"darkroom {name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        epilog=EPILOG if command.takes_keys else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.arguments(parser)
    return parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line without a command: it prints help, or names the known commands."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="darkroom",
        usage="darkroom COMMAND ...",
        description=f"{DESCRIPTION}\n\ncommands:\n{listed}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
