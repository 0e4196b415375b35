"""Experiment: a parsed configuration with its data, model and settings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.loader import batches_per_epoch
from darkroom.lightning_modules.classifier import ImageClassifier

from ..errors import RequestError
from ..recipes import find_recipe
from .hardware_defaults import open_knobs, settled
from .keys import check_keys, chosen_classes, given_keys, known_keys
from .parser import (
    SETTINGS,
    apply_pretrained_view,
    build_parser,
    join_sweeps,
    one_paragraph,
    plain_config,
    read_yaml,
)
from .search_space.settings import SweepSettings
from .search_space.space import configuration_keys
from .search_space.validation import check_sweep
from .settings import Claim, TrackingSettings
from .trainer_settings import TrainerSettings
from .validation import check_backbone_options, check_finite, check_no_nested_classes, check_search_space


@dataclass
class Experiment:
    """A whole configuration, instantiated.

    Attributes:
        name: The recipe's name, which is the MLflow experiment's too.
        config: The resolved configuration as plain values; as YAML it parses to the same experiment.
        overrides: The keys given on the command line, with their values as given.
    """

    name: str
    seed: int
    data: ImageDataModule
    model: ImageClassifier
    trainer: TrainerSettings
    mlflow: TrackingSettings
    sweep: SweepSettings | None
    claim: Claim | None
    config: dict[str, Any]
    overrides: dict[str, str]

    def build_model(self) -> None:
        """Makes the network for the data's classes, task and images.

        Raises:
            ValueError: It can't be built for them.
        """
        self.model.build(len(self.data.class_names), self.data.image_shape, self.data.task)

    def settle_trainer(self) -> None:
        """Sets what the trainer's settings leave open, by the network and this machine."""
        self.trainer = settled(self.trainer, self.model.network)

    def settled_config(self) -> dict[str, Any]:
        """The configuration that gives the same run on any machine; of a trainer that is settled."""
        return {**self.config, "trainer": self.config["trainer"] | open_knobs(self.trainer)}

    def load_data(self) -> ImageDataModule:
        """The data with its splits.

        Raises:
            RequestError: It is not available.
        """
        try:
            self.data.prepare_data()
            self.data.setup()
        except (ValueError, OSError) as error:
            raise RequestError(str(error)) from error
        return self.data

    def to_yaml(self) -> str:
        """The resolved configuration, to be parsed again."""
        return yaml.safe_dump(self.config, sort_keys=False)


def load_experiment(
    sources: Sequence[str], overrides: Mapping[str, str] | None = None, check_space: bool = False
) -> Experiment:
    """Parses recipes' names or YAML files, the last wins, then overrides such as {"model.lr": "0.1"}.

    With `check_space`, both ends of every range in `sweep.space` are parsed too.

    Raises:
        RequestError: A file, key, type or value is wrong; the message names it.
    """
    texts = [find_recipe(source).read_text() for source in sources]
    return parse_experiment(texts, overrides or {}, check_space)


def parse_experiment(
    texts: Sequence[str], overrides: Mapping[str, str], check_space: bool = False
) -> Experiment:
    """As `load_experiment`, from the texts of YAML files."""
    layers = [read_yaml(text) for text in texts]
    join_sweeps(layers)
    check_no_nested_classes(layers, overrides)
    known = known_keys({**chosen_classes(layers, overrides), **SETTINGS})
    given = [*(key for layer in layers for key in given_keys(layer)), *overrides]
    check_keys(given, known)
    parser = build_parser()
    arguments = [f"--config={json.dumps(layer)}" for layer in layers]
    arguments += [f"--{key}={value}" for key, value in overrides.items()]
    try:
        namespace = parser.parse_args(arguments)
        check_finite(namespace)
        view = apply_pretrained_view(namespace, given)
        objects = parser.instantiate(namespace)
        if objects.sweep is not None:
            check_sweep(objects.sweep)
    except (ArgumentError, ValueError, TypeError) as error:
        raise RequestError(one_paragraph(str(error))) from error
    if not namespace.name:
        raise RequestError("the configuration has no name: give it `name: <data set>/<network>`")
    experiment = Experiment(
        name=namespace.name,
        seed=namespace.seed,
        data=objects.data,
        model=objects.model,
        trainer=objects.trainer,
        mlflow=objects.mlflow,
        sweep=objects.sweep,
        claim=objects.claim,
        config=plain_config(yaml.safe_load(parser.dump(namespace, skip_unset=False))),
        overrides=dict(overrides),
    )
    check_backbone_options(experiment.model)
    if view is not None and view.lacking:
        experiment.data.notes.append(f"{view.lacking}, which no key of data does: logits differ from timm's")
    if experiment.sweep is not None:
        check_keys(configuration_keys(experiment.sweep), known, where="sweep.space: ")
        if check_space:
            check_search_space(layers, overrides, experiment.sweep)
    return experiment


def configuration_help(experiment: Experiment) -> str:
    """Every configuration key of this experiment's classes, with its docstring."""
    parser = ArgumentParser(prog="darkroom COMMAND EXPERIMENT", add_help=False)
    parser.add_argument("--name", type=str, help="The recipe's name, and the MLflow experiment's.")
    parser.add_argument("--seed", type=int, help="Of weights, order, augmentation and dropout.")
    parser.add_class_arguments(type(experiment.data), "data", skip={"seed"})
    parser.add_class_arguments(type(experiment.model), "model")
    for section, settings in SETTINGS.items():
        parser.add_class_arguments(settings, section)
    return str(parser.format_help())


def derived_values(experiment: Experiment) -> dict[str, object]:
    """What follows from data and configuration together."""
    data, model = experiment.data, experiment.model
    values: dict[str, object] = {
        "task": data.task,
        "num_classes": len(data.class_names),
        "image_shape": "x".join(map(str, data.image_shape)),
        "num_parameters": model.num_parameters(),
    }
    if model.loaded_weights is not None:
        values["weights_sha256"] = model.loaded_weights.sha256
    with contextlib.suppress(FileNotFoundError):  # some sources know nothing without their files
        steps = batches_per_epoch(data.num_train_images, data.batch_size)
        values["num_train_images"] = data.num_train_images
        values["steps_per_epoch"] = -(-steps // experiment.trainer.accumulate_batches)
    return values
