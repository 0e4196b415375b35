"""The train command: a single run, --resume, --folds or --boost."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from ..config.experiment import load_experiment
from ..errors import RequestError
from ..runtime.startup import without_collections
from ..tracking.store import open_store
from ..training.distributed.launcher import help_train
from ..training.result import print_result
from ..training.run import train


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """`darkroom train`."""
    if arguments.resume is not None:
        if arguments.experiments or overrides or arguments.folds is not None or arguments.boost is not None:
            raise RequestError("--resume continues a run as it was recorded: give no experiment and no keys")
        from ..training.resume import resume  # which trains by what stands here

        result = resume(arguments.resume)
        if result is None:
            return
    else:
        if not arguments.experiments:
            raise RequestError("which experiment? Name a recipe (darkroom list) or a YAML file")
        if arguments.folds is not None and arguments.boost is not None:
            raise RequestError("--folds and --boost are two ways to train several: give one of them")
        if arguments.folds is not None:
            from ..workflows.cross_validation import cross_validate  # which trains by what stands here

            cross_validate(arguments.experiments, overrides, arguments.folds)
            return
        if arguments.boost is not None:
            from ..workflows.ensemble.boosting import boost  # likewise

            boost(arguments.experiments, overrides, arguments.boost)
            return
        with without_collections():  # what both make lasts as long as the run
            experiment = load_experiment(arguments.experiments, overrides)
            if help_train(experiment.trainer):
                return
            recorded_in = open_store() if experiment.mlflow.enabled else None
        result = train(experiment, recorded_in)
    print_result(result)
