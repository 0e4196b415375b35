"""The show command: resolved configuration, layer table, cost."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities.model_summary.model_summary import ModelSummary
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from darkroom.lightning_modules.classifier import ImageClassifier

from ..config.experiment import Experiment, configuration_help, derived_values, load_experiment
from ..config.hardware_defaults import open_knobs
from ..errors import RequestError
from ..training.checks import check_devices

MIB = 2**20
CONTAINERS = ("ModuleDict", "ParameterDict")  # empty ones stand within LoRA's layers, and compute nothing


def run(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Shows an experiment without reading a file of its data."""
    experiment = load_experiment(arguments.experiments, overrides, check_space=True)
    if getattr(arguments, "keys_help", False):
        print(configuration_help(experiment))
        return
    build_network(experiment)
    console = Console()
    console.print(Syntax(experiment.to_yaml(), "yaml", background_color="default"))
    console.print(derived_table(experiment))
    console.print(layer_table(experiment.model))


def build_network(experiment: Experiment) -> None:
    """Makes the network, of whatever weights.

    Raises:
        RequestError: It can't be built for the data's images.
    """
    experiment.model.start_from_scratch()  # only the shapes are wanted
    try:
        experiment.build_model()
    except (ValueError, OSError) as error:
        raise RequestError(str(error)) from error


def derived_table(experiment: Experiment) -> Table:
    """What follows from configuration and data: classes, steps, parameters, cost."""
    table = Table("derived", "value", title=experiment.name)
    values = {
        **derived_values(experiment),
        "trained_parameters": trained_share(experiment.model),
        "multiply_adds_per_image": count_multiply_adds(experiment.model),
        "kept_for_gradients_per_image": f"{activation_bytes(experiment.model) / MIB:.3g} MiB",
        **knobs_here(experiment),
    }
    for name, value in values.items():
        table.add_row(name, f"{value:,}" if type(value) is int else str(value))
    return table


def knobs_here(experiment: Experiment) -> dict[str, Any]:
    """What the trainer's open knobs would be on this machine, or why it can't train this."""
    try:
        check_devices(experiment.trainer)
    except ValueError as error:
        return {"on this machine": error}
    experiment.settle_trainer()
    return {f"{name} (on this machine)": value for name, value in open_knobs(experiment.trainer).items()}


def layer_table(model: ImageClassifier) -> Table:
    """One row for each layer that has none inside: name, type, output shape, parameters."""
    model.example_input_array = torch.zeros(1, *model.image_shape)
    with frozen(model):  # Lightning counts too
        summary = ModelSummary(model, max_depth=-1)
    table = Table("layer", "type", "output", title="network")
    table.add_column("parameters", justify="right")
    rows = zip(summary.layer_names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True)
    for name, kind, size, count in rows:
        inner = any(other.startswith(f"{name}.") for other in summary.layer_names)
        if name.startswith("network.") and not inner and kind not in CONTAINERS:
            shape = "x".join(map(str, size[1:])) if isinstance(size, list) else str(size)
            table.add_row(name.removeprefix("network."), kind, shape, f"{count:,}")
    table.add_section()
    table.add_row("total", "", "", f"{model.num_parameters():,}")
    return table


def trained_share(model: ImageClassifier) -> str:
    """How many parameters the first epoch trains, and where it differs the last one: 1,281 (0.038 %)."""
    total = model.num_parameters()

    def told(epoch: int) -> str:
        names = model.finetuning.trained(model.network, epoch)
        trained = sum(model.network.get_parameter(name).numel() for name in names)
        return f"{trained:,} ({100 * trained / total:.2g} %)" if trained < total else "all"

    first, last = told(0), told(2**31)
    return first if first == last else f"{first}, in the end {last}"


def activation_bytes(model: ImageClassifier) -> float:
    """Memory in float32 of what one image's forward pass keeps for the backward pass, weights apart."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.finetuning.apply(model.network.train(), epoch=0)
    images = torch.zeros(2, *model.image_shape)  # batch norms refuse to be trained on one value
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model.network(images)  # held, so that no memory is counted twice
    assert logits.shape[0] == 2
    return sum(kept.values()) / 2


def count_multiply_adds(model: ImageClassifier) -> int:
    """Multiply-adds of one image's forward pass, in convolutions and matrix products."""
    with frozen(model), FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *model.image_shape))
    return int(counter.get_total_flops() // 2)


@contextmanager
def frozen(model: ImageClassifier) -> Iterator[None]:
    """For torch's counter, which fails without gradients where a layer is given a parameter, as in CaiT."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    yield
    for parameter in trained:
        parameter.requires_grad_(True)
