"""YAML and overrides to a jsonargparse namespace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from darkroom.datamodules.base import ImageDataModule
from darkroom.lightning_modules.backbones.factory import PretrainedView, backbone_names, pretrained_view
from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.optimization.optimizers import optimizer_names

from ..errors import RequestError, nearest
from .keys import CLASS_SECTIONS
from .search_space.settings import SweepSettings
from .settings import Claim, TrackingSettings
from .trainer_settings import TrainerSettings

SETTINGS: dict[str, type] = {
    "trainer": TrainerSettings,
    "mlflow": TrackingSettings,
    "sweep": SweepSettings,
    "claim": Claim,
}


@cache
def build_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, prog="darkroom")
    parser.add_argument("--config", action="config")
    parser.add_argument("--name", type=str, default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_subclass_arguments(ImageDataModule, "data", required=True)
    parser.add_subclass_arguments(ImageClassifier, "model", required=True)
    parser.add_class_arguments(TrainerSettings, "trainer")
    parser.add_class_arguments(TrackingSettings, "mlflow")
    parser.add_argument("--sweep", type=SweepSettings | None, default=None)
    parser.add_argument("--claim", type=Claim | None, default=None)
    parser.link_arguments("seed", "data.init_args.seed")
    return parser


def apply_pretrained_view(namespace: Namespace, given: Sequence[str]) -> PretrainedView | None:
    """Sets how images are seen, for keys not given, as in the backbone's pretraining; returns how that was.

    The size only where images come in all sizes: those of a set such as MNIST keep theirs.
    """
    model, data = namespace.model.init_args, namespace.data.init_args
    view = pretrained_view(model.backbone) if model.pretrained or model.weights else None
    if view is None:
        return None
    seen: dict[str, Any] = {"normalization": "backbone", "interpolation": view.interpolation}
    if data.image_size is not None:
        seen["image_size"] = view.size
    if "crop_fraction" in data:  # images in files
        seen |= {"resize": view.resize, "crop_fraction": view.crop_fraction}
    for key, value in seen.items():
        if f"data.{key}" not in given and value is not None:
            data[key] = value
    return view


def read_yaml(text: str) -> dict[str, Any]:
    try:
        layer = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RequestError(f"the configuration is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(layer, dict):
        raise RequestError("the configuration must be a mapping of keys such as name, data, model, trainer")
    for section in CLASS_SECTIONS:
        if isinstance(layer.get(section), str):
            layer[section] = {"class_path": layer[section]}
        given = layer.get(section) or {}
        loose = {key: given.pop(key) for key in list(given) if key not in ("class_path", "init_args")}
        if loose:  # `model: {lr: 0.1}` is what `--model.lr=0.1` is
            given["init_args"] = {**given.get("init_args", {}), **loose}
        if isinstance(given.get("class_path"), str):
            # Classes are known by name: the parser would import whatever module a path leads through.
            given["class_path"] = given["class_path"].rpartition(".")[2]
    return layer


def join_sweeps(layers: Sequence[dict[str, Any]]) -> None:
    """Leaves one `sweep:` section, of all files' keys and ranges; the parser would keep or mix either."""
    sections = [layer.pop("sweep") for layer in layers if layer.get("sweep")]
    if sections:
        joined: dict[str, Any] = {}
        for section in sections:
            for strategy in ("sampler", "pruner"):  # the options of one are not those of another
                if section.get(strategy, joined.get(strategy)) != joined.get(strategy):
                    joined.pop(f"{strategy}_options", None)
            joined |= section
        spaces = [section["space"] for section in sections if section.get("space")]
        joined["space"] = {key: dimension for space in spaces for key, dimension in space.items()}
        layers[-1]["sweep"] = joined


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """A dumped configuration with class names instead of class paths."""
    config.pop("config", None)
    for section in CLASS_SECTIONS:
        config[section]["class_path"] = config[section]["class_path"].rpartition(".")[2]
    return config


def one_paragraph(message: str) -> str:
    """The parser's indented report as one sentence, without its repetitions."""
    message = re.sub(r"Problem with given class_path '[^']*':", "", message)
    message = re.sub(r"Given value type:.*", "", message, flags=re.DOTALL)
    keys = re.findall(r'Parser key "([^"]+)":', message)
    message = re.sub(r'Parser key "[^"]+":', "", message)
    # Of a union's failures, those against None say nothing.
    message = re.sub(
        r"Does not validate against any of the Union subtypes\s*Subtypes: [^\n]*\s*Errors:", "", message
    )
    message = re.sub(r"- Expected a <class 'NoneType'>", "", message)
    message = re.sub(r"<class '([^']+)'>", r"\1", message)
    message = re.sub(r"Expected an? (.*?)\. Got value: ", r"expected \1, got ", message)
    message = " ".join(message.replace("typing.", "").split()).lstrip("- ")
    key = ".".join(keys)
    if "backbone:" in message:
        name = message.rpartition("named ")[2].strip("'")
        message += f"; {nearest(name, backbone_names())}"
    if "optimizer:" in message:
        name = message.rpartition("named ")[2].strip("'")
        message += f"; {nearest(name, optimizer_names())}"
    return f"{key}: {message}" if key else message
