"""Loads a recorded run's experiment with its best weights."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..config.experiment import Experiment
from ..config.overrides import check_overrides
from ..errors import RequestError
from ..tracking.recorded_experiment import check_same_classes, parse_recorded
from ..tracking.run import RunRecord
from .callbacks.checkpoints import load_weights
from .setup import prepare


def restore(record: RunRecord, overrides: Mapping[str, str]) -> Experiment:
    """A recorded run's experiment with the chosen checkpoint's weights and its normalisation.

    Args:
        record: A run that has finished.
        overrides: Keys of the data, to judge on other images of the same classes.

    Raises:
        RequestError: The run has no checkpoint, the data is not available, or has other classes, or images
            of a size that the network can't take.
    """
    check_overrides(overrides, ("data", "data.*", "trainer.*"), "the network is trained")
    unweighted = {"data.sample_weights": "null", **overrides}  # which are of training alone
    experiment = parse_recorded(record, unweighted)
    experiment.model.start_from_scratch()  # the checkpoint's weights follow
    checkpoint = record.download("checkpoints/best.ckpt")
    facts = json.loads(record.read_text("data/facts.json"))
    try:
        class_names = list(experiment.data.class_names)
    except (ValueError, OSError) as error:  # of files that are not there any more
        raise RequestError(str(error)) from error
    check_same_classes(record, class_names)
    prepare(experiment)
    experiment.data.normalize_with(facts["pixel_mean"], facts["pixel_std"])
    # The loss is the run's own, also where other images would weigh its classes otherwise.
    experiment.model.weigh_classes(facts["class_counts"]["train"], facts["images"]["train"])
    try:
        load_weights(experiment.model, checkpoint)
    except RuntimeError as error:
        shapes = facts["image_shape"], experiment.data.image_shape
        trained_on, these = ("x".join(map(str, shape)) for shape in shapes)
        raise RequestError(
            f"the run's network was trained on images of {trained_on}, and its weights do not fit one for "
            f"{these}: leave out what changes the images' size"
        ) from error
    return experiment
