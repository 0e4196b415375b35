"""The images that a recorded run was trained and judged on, as its configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping

from datamodules import ImageDataModule
from experiments.config import parse_experiment
from experiments.tracking import RunRecord


def load_recorded_data(record: RunRecord, overrides: Mapping[str, str]) -> ImageDataModule:
    """The data of a run; nothing is downloaded for it.

    Args:
        record: The run.
        overrides: Keys of the data, such as where it lies now.

    Raises:
        RequestError: It is not to be had.
    """
    quiet = {"sweep": "null", "claim": "null"}
    if "data.download" in record.params:
        quiet["data.download"] = "false"
    return parse_experiment([record.read_text("config.yaml")], {**quiet, **overrides}).load_data()
