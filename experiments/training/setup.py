"""Builds the network and loads the data; all checks that precede a run."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from ..config.experiment import Experiment
from ..errors import RequestError
from .checks import (
    check_devices,
    check_epochs,
    check_goes_with_devices,
    check_is_defined,
    check_is_reported,
    check_takes_extra,
    monitored,
)
from .class_order import class_order_notes


def prepare(experiment: Experiment) -> None:
    """Builds the network and loads the data: all that can be refused before a run exists.

    Raises:
        RequestError: The data can't be loaded, the network can't be built, settings contradict each other,
            or nothing would judge the network.
    """
    data, model = experiment.data, experiment.model
    pl.seed_everything(experiment.seed, verbose=False)
    try:
        check_devices(experiment.trainer)
        check_epochs(experiment.trainer, model)
        experiment.build_model()
        experiment.settle_trainer()
        _check_trainer(experiment)
        data.prepare_data()
        data.setup()
        _check_data(experiment)
        if data.normalization == "backbone":
            data.normalize_with(*model.pretrained_statistics())
    except (ValueError, OSError) as error:
        raise RequestError(str(error)) from error
    data.notes += class_order_notes(model, data)
    model.weigh_classes(data.class_counts(), data.num_train_images)
    if experiment.trainer.channels_last:
        model.network.to(memory_format=torch.channels_last)


def _check_trainer(experiment: Experiment) -> None:
    """Refuses settings of the trainer that the built network or its task contradicts.

    Raises:
        ValueError: There are some.
    """
    check_takes_extra(experiment.trainer)
    check_is_reported(experiment.trainer, experiment.model.task)
    check_goes_with_devices(experiment.trainer, experiment.model)


def _check_data(experiment: Experiment) -> None:
    """Refuses data on which nothing, or not what is monitored, can be judged.

    Raises:
        ValueError: It is such data.
    """
    data = experiment.data
    check_is_defined(monitored(experiment.trainer), data)
    if not {"val", "test"} & set(data.splits):
        raise ValueError(
            "there is nothing to judge the network on: the data has no test images, and "
            f"data.val_fraction={data.division.val_fraction:g} held none out for validation; hold some out "
            "with data.val_fraction=0.1 or data.test_fraction=0.2. What is in groups needs two of them"
        )
