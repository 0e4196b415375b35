"""Checks after parsing: finite numbers, backbone options, search space."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from darkroom.lightning_modules.backbones.factory import backbone_options
from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.networks import NETWORKS

from ..errors import RequestError, nearest
from .keys import CLASS_SECTIONS, flatten
from .parser import build_parser, one_paragraph
from .search_space.settings import SweepSettings
from .search_space.space import overrides as trial_overrides
from .search_space.space import probes


def check_no_nested_classes(layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, str]) -> None:
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


def check_finite(namespace: Namespace) -> None:
    """Refuses NaN and infinity, of which no number of a configuration makes sense; a NaN passes comparisons.

    Raises:
        ValueError: There is one.
    """
    for key, value in flatten(namespace.as_dict()).items():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, float) and not math.isfinite(each):
                raise ValueError(f"{key} must be a finite number, got {value}")


def check_backbone_options(model: ImageClassifier) -> None:
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
        raise RequestError(f"model.backbone_options of {name}: {one_paragraph(str(error))}") from error


def check_search_space(
    layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, str], sweep: SweepSettings
) -> None:
    """The configuration must take what any trial may give it."""
    parser = build_parser()
    # Without the search itself, which is read already.
    texts = [json.dumps({key: value for key, value in layer.items() if key != "sweep"}) for layer in layers]
    recipe = [f"--config={text}" for text in texts]
    recipe += [f"--{key}={value}" for key, value in overrides.items() if key.partition(".")[0] != "sweep"]

    @cache
    def refusal(given: tuple[tuple[str, str], ...]) -> str | None:
        try:
            candidate = parser.parse_args([*recipe, *(f"--{key}={text}" for key, text in given)])
            check_backbone_options(parser.instantiate(candidate).model)
        except (ArgumentError, ValueError, TypeError, RequestError) as error:
            return one_paragraph(str(error))
        return None

    for params in probes(sweep):
        given = tuple(trial_overrides(params, sweep).items())
        reason = refusal(given)
        if reason is not None:
            alone = [f"{key} can't be {text!r}" for key, text in given if refusal(((key, text),)) == reason]
            together = f"a trial can't have {' and '.join(f'{key}={text}' for key, text in given)}"
            raise RequestError(f"sweep.space: {alone[0] if alone else together}: {reason}")
