"""From YAML files and command-line overrides to the objects of an experiment, and back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from datamodules import ImageDataModule
from experiments.claim import Claim
from experiments.errors import RequestError, nearest
from experiments.hardware import open_knobs, settled
from experiments.keys import CLASS_SECTIONS, check_keys, chosen_classes, given_keys, known_keys
from experiments.overrides import to_text as to_text
from experiments.recipes import find_recipe
from experiments.sweep.checks import check_sweep
from experiments.sweep.space import SweepSettings, configuration_keys, probes
from experiments.sweep.space import overrides as trial_overrides
from experiments.trainer import TrainerSettings
from lightning_modules import ImageClassifier
from lightning_modules.backbones import PretrainedView, backbone_names, backbone_options, pretrained_view
from lightning_modules.networks import NETWORKS
from lightning_modules.optimization import optimizer_names


@dataclass(frozen=True)
class TrackingSettings:
    """Where a run is recorded: the store that MLFLOW_TRACKING_URI names, else sqlite:///mlflow.db.

    Args:
        enabled: Record in MLflow; with false no store is touched and nothing is kept.
        run_name: Name of the run; null takes the overridden keys, or the seed.
        system_metrics: Record how busy the machine is, every ten seconds, as MLflow's `system/...`. The
            trials of a sweep do without: in a sweep its conductor alone speaks to MLflow.
    """

    enabled: bool = True
    run_name: str | None = None
    system_metrics: bool = True


SETTINGS: dict[str, type] = {
    "trainer": TrainerSettings,
    "mlflow": TrackingSettings,
    "sweep": SweepSettings,
    "claim": Claim,
}


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
            RequestError: It is not to be had.
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
    layers = [_read_yaml(text) for text in texts]
    _join_sweeps(layers)
    _check_no_nested_classes(layers, overrides)
    known = known_keys({**chosen_classes(layers, overrides), **SETTINGS})
    given = [*(key for layer in layers for key in given_keys(layer)), *overrides]
    check_keys(given, known)
    parser = _build_parser()
    arguments = [f"--config={json.dumps(layer)}" for layer in layers]
    arguments += [f"--{key}={value}" for key, value in overrides.items()]
    try:
        namespace = parser.parse_args(arguments)
        _check_finite(namespace)
        view = _see_as_pretrained(namespace, given)
        objects = parser.instantiate(namespace)
        if objects.sweep is not None:
            check_sweep(objects.sweep)
    except (ArgumentError, ValueError, TypeError) as error:
        raise RequestError(_one_paragraph(str(error))) from error
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
        config=_plain(yaml.safe_load(parser.dump(namespace, skip_unset=False))),
        overrides=dict(overrides),
    )
    _check_backbone_options(experiment.model)
    if view is not None and view.lacking:
        experiment.data.notes.append(f"{view.lacking}, which no key of data does: logits differ from timm's")
    if experiment.sweep is not None:
        check_keys(configuration_keys(experiment.sweep), known, where="sweep.space: ")
        if check_space:
            _check_space(layers, overrides, experiment.sweep)
    return experiment


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots, without the words that only say "constructor argument".

    >>> flatten({"model": {"class_path": "A", "init_args": {"lr": 0.1}}, "seed": 0})
    {'model': 'A', 'model.lr': 0.1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key == "init_args":
            flat |= flatten(value, prefix)
        elif key == "class_path":
            flat[prefix.removesuffix(".")] = value
        elif isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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


# Parsing ----------------------------------------------------------------------------------------


@cache
def _build_parser() -> ArgumentParser:
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


def _see_as_pretrained(namespace: Namespace, given: Sequence[str]) -> PretrainedView | None:
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


def _read_yaml(text: str) -> dict[str, Any]:
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


def _join_sweeps(layers: Sequence[dict[str, Any]]) -> None:
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


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A dumped configuration with class names instead of class paths."""
    config.pop("config", None)
    for section in CLASS_SECTIONS:
        config[section]["class_path"] = config[section]["class_path"].rpartition(".")[2]
    return config


# Wrong values ------------------------------------------------------------------------------------


def _check_no_nested_classes(layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, str]) -> None:
    """Refuses a class or function named anywhere but as the class of data or model.

    The parser would import and call it, whatever it is, and configurations are read from records too.

    Raises:
        RequestError: There is one.
    """
    for key in (key for layer in layers for key in _nested_classes(layer)):
        raise RequestError(
            f"{key}: a class_path can stand only in data and model, where it names one of ours"
        )
    for key, value in overrides.items():
        named = "class_path" in value or key.endswith("class_path")
        if named and key.removesuffix(".class_path") not in CLASS_SECTIONS:
            raise RequestError(
                f"{key}: a class_path can stand only in data and model, where it names one of ours"
            )


def _nested_classes(value: object, place: tuple[str, ...] = ()) -> Iterator[str]:
    """The keys at which a class is named below the two sections that may name one."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            inner = (*place, str(key))
            if key == "class_path" and place not in {(section,) for section in CLASS_SECTIONS}:
                yield ".".join(inner)
            yield from _nested_classes(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from _nested_classes(each, place)


def _check_finite(namespace: Namespace) -> None:
    """Refuses NaN and infinity, of which no number of a configuration makes sense; a NaN passes comparisons.

    Raises:
        ValueError: There is one.
    """
    for key, value in flatten(namespace.as_dict()).items():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, float) and not math.isfinite(each):
                raise ValueError(f"{key} must be a finite number, got {value}")


def _check_backbone_options(model: ImageClassifier) -> None:
    """Holds `model.backbone_options` against the signature of a network of our own."""
    name, options = model.hparams["backbone"], model.hparams["backbone_options"] or {}
    known = backbone_options(name)
    if known is None:
        return
    for option in options:
        if option not in known:
            raise RequestError(
                f"unknown key model.backbone_options.{option} for {name}; {nearest(option, known)}"
            )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(NETWORKS[name], skip={"num_outputs", "image_shape", "dropout"})
    try:
        parser.parse_object(options)
    except (ArgumentError, ValueError, TypeError) as error:
        raise RequestError(f"model.backbone_options of {name}: {_one_paragraph(str(error))}") from error


def _check_space(
    layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, str], sweep: SweepSettings
) -> None:
    """The configuration must take what any trial may give it."""
    parser = _build_parser()
    # Without the search itself, which is read already.
    texts = [json.dumps({key: value for key, value in layer.items() if key != "sweep"}) for layer in layers]
    recipe = [f"--config={text}" for text in texts]
    recipe += [f"--{key}={value}" for key, value in overrides.items() if key.partition(".")[0] != "sweep"]

    @cache
    def refusal(given: tuple[tuple[str, str], ...]) -> str | None:
        try:
            candidate = parser.parse_args([*recipe, *(f"--{key}={text}" for key, text in given)])
            _check_backbone_options(parser.instantiate(candidate).model)
        except (ArgumentError, ValueError, TypeError, RequestError) as error:
            return _one_paragraph(str(error))
        return None

    for params in probes(sweep):
        given = tuple(trial_overrides(params, sweep).items())
        reason = refusal(given)
        if reason is not None:
            alone = [f"{key} can't be {text!r}" for key, text in given if refusal(((key, text),)) == reason]
            together = f"a trial can't have {' and '.join(f'{key}={text}' for key, text in given)}"
            raise RequestError(f"sweep.space: {alone[0] if alone else together}: {reason}")


def _one_paragraph(message: str) -> str:
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
