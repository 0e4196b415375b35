"""Imports and data loaded once before trials fork.

Imported by multiprocessing's forkserver before the first fork. Nothing here may start a thread: threads
do not survive a fork, and the locks they held would never be freed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
import torch._dynamo  # the first optimizer would import it, for two seconds

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.images.store import ImageStore
from darkroom.datamodules.sources.image_files import ImageFiles

from ...config.experiment import Experiment, load_experiment
from ...config.keys import source_arguments
from ...errors import RequestError
from ...runtime.startup import freeze, keep_memory
from ...tracking.provenance import code_git_state, code_sources
from . import trial as trial  # with all that it imports

RECIPE = "DARKROOM_WARM_RECIPE"  # sources and overrides of the sweep's recipe, as JSON
_source: dict[str, ImageStore] = {}
_arguments: Mapping[str, Any] = {}


def hand_over(experiment: Experiment) -> None:
    """Gives the experiment the images that were loaded before the fork, where it is to train on the same."""
    if _source and source_arguments(experiment.config) == _arguments:
        experiment.data.take(_source)


def _load(data: ImageDataModule) -> dict[str, ImageStore]:
    """What all trials share, loaded without a thread."""
    if isinstance(data, ImageFiles):  # decoded by threads, of a process that is gone before the first trial
        child = os.fork()
        if child == 0:
            with contextlib.suppress(ValueError, OSError):  # met again below
                data.load()
            os._exit(0)
        os.waitpid(child, 0)
    return dict(data.load())


def _prepare() -> None:
    global _source, _arguments
    torch.set_num_threads(1)  # more would start OpenMP's pool of threads
    code_git_state()
    code_sources()
    if RECIPE not in os.environ:
        return
    try:
        experiment = load_experiment(*json.loads(os.environ[RECIPE]))
        experiment.build_model()
        experiment.data.prepare_data()
        _source, _arguments = _load(experiment.data), source_arguments(experiment.config)
    except (RequestError, ValueError, OSError):
        return  # the controller meets the same error, and says so


keep_memory()
_prepare()
freeze()  # forked processes then leave these pages alone
