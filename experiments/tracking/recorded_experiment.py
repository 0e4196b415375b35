"""Restores a run's experiment and data from its record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import yaml

from ..config.keys import CLASS_SECTIONS, flatten
from ..errors import RequestError
from .record_version import former_values
from .run import RunRecord

if TYPE_CHECKING:
    from darkroom.datamodules.base import ImageDataModule

    from ..config.experiment import Experiment


def parse_recorded(record: RunRecord, overrides: Mapping[str, str]) -> Experiment:
    """A run's configuration as the code that recorded it read it.

    Keys that came with later repairs, which the record lacks, have the values of before these repairs.

    Args:
        record: The run.
        overrides: Keys to change.

    Raises:
        RequestError: The run has no configuration, the present code can't read it, or it names a file that
            could execute code.
    """
    # Torch takes seconds to import, and who compares records mostly does without.
    from darkroom.lightning_modules.backbones.factory import LOADING_OPTIONS

    from ..config.experiment import parse_experiment

    text = record.read_text("config.yaml")
    known = flatten(yaml.safe_load(text) or {})
    replaced = [
        section for section in CLASS_SECTIONS if {section, f"{section}.class_path"} & overrides.keys()
    ]
    former = {
        key: value
        for key, value in former_values(record.tags, record.params).items()
        if key not in known and key.partition(".")[0] not in replaced
    }
    experiment = parse_experiment([text], {**former, **overrides})
    options = experiment.model.hparams["backbone_options"] or {}
    if loading := [option for option in LOADING_OPTIONS if option in options]:
        raise RequestError(
            f"run {record.run_id[:8]} ({record.name}) has model.backbone_options.{loading[0]}, which names a "
            "file that timm loads in its own way. No such file is loaded for a record, as it could execute "
            "code: train it anew with model.weights=FILE"
        )
    return experiment


def recorded_experiment(record: RunRecord, overrides: Mapping[str, str] | None = None) -> Experiment:
    """What a run was of, to be trained again or on; the record has the weights of its images too.

    Raises:
        RequestError: The present code can't read its configuration.
    """
    own = {**recorded_weights(record), **(overrides or {})}
    return parse_recorded(record, own)


def recorded_weights(record: RunRecord) -> dict[str, str]:
    """The key that says where the weights of a run's images lie, if it has any."""
    if record.params.get("data.sample_weights", "None") == "None":
        return {}
    return {"data.sample_weights": str(record.download("data/sample_weights.parquet"))}


def check_same_classes(record: RunRecord, class_names: Sequence[str]) -> None:
    """Refuses to judge a run by images of other classes, or in another order.

    Raises:
        RequestError: The run knows others.
    """
    known = json.loads(record.read_text("data/facts.json"))["class_names"]
    if known != list(class_names):
        raise RequestError(
            f"run {record.run_id[:8]} knows the classes {', '.join(known)}; this data has "
            f"{', '.join(class_names)}"
        )


def load_recorded_data(record: RunRecord, overrides: Mapping[str, str]) -> ImageDataModule:
    """The data of a run; nothing is downloaded for it.

    Args:
        record: The run.
        overrides: Keys of the data, such as where it lies now.

    Raises:
        RequestError: It is not available.
    """
    quiet = {"sweep": "null", "claim": "null", "data.sample_weights": "null"}
    if "data.download" in record.params:
        quiet["data.download"] = "false"
    return parse_recorded(record, {**quiet, **overrides}).load_data()


def with_later_keys(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """The runs' params; a key that one lacks because it is older has the value that it stands for by default.

    A recipe that does not name a key trains today as it did before the key could be given, unless the key
    came with a repair: then the run has the value of before it.
    """
    everything = {key for run in runs for key in run.params}
    defaults: dict[tuple[object, ...], Mapping[str, str]] = {}  # the same for all that lack the same
    complete = []
    for run in runs:
        lacking = frozenset(everything - run.params.keys())
        kind = (lacking, run.params.get("data"), run.params.get("model"))
        if lacking and kind not in defaults:
            defaults[kind] = {key: value for key, value in _parsed(run).items() if key in lacking}
        complete.append({**defaults.get(kind, {}), **run.params})
    return complete


def _parsed(run: RunRecord) -> dict[str, str]:
    """Its configuration as the present code reads it; nothing where it has keys that are no more."""
    try:
        experiment = parse_recorded(run, {})
    except RequestError:
        return {}
    return {key: str(value) for key, value in flatten(experiment.config).items()}
