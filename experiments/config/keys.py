"""Configuration keys: flattening, known keys, suggestions for unknown ones."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from ..errors import RequestError, nearest

CLASS_SECTIONS = ("data", "model")  # sections that name a class


def classes_for(section: str) -> dict[str, type]:
    """The classes that a section may name."""
    # Imported here, as flattening a recorded configuration needs neither of them.
    from darkroom import datamodules, lightning_modules
    from darkroom.datamodules.base import ImageDataModule
    from darkroom.lightning_modules.classifier import ImageClassifier

    package = datamodules if section == "data" else lightning_modules
    base = ImageDataModule if section == "data" else ImageClassifier
    exported = (getattr(package, name) for name in package.__all__)
    return {cls.__name__: cls for cls in exported if issubclass(cls, base) and cls is not ImageDataModule}


def chosen_classes(layers: Sequence[Mapping[str, Any]], overrides: Mapping[str, str]) -> dict[str, type]:
    """The class of each section, by the last file or override that names one.

    Raises:
        RequestError: A section names none, or one that does not exist.
    """
    chosen: dict[str, type] = {}
    for section in CLASS_SECTIONS:
        named = [layer[section].get("class_path") for layer in layers if isinstance(layer.get(section), dict)]
        named += [overrides.get(section), overrides.get(f"{section}.class_path")]
        names = [name for name in named if name]
        known = classes_for(section)
        if not names:
            raise RequestError(f"the configuration names no {section}; {nearest('', known)}")
        name = str(names[-1]).rpartition(".")[2]
        if name not in known:
            raise RequestError(f"{section}: no class is named {names[-1]!r}; {nearest(name, known)}")
        chosen[section] = known[name]
    return chosen


def given_keys(layer: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a file gives, down to the third part: data.augmentation.zoom."""
    for section, value in layer.items():
        if not isinstance(value, Mapping):
            yield str(section)
            continue
        arguments = value.get("init_args", {}) if section in CLASS_SECTIONS else value
        for name, argument in arguments.items():
            yield f"{section}.{name}"
            parts = argument if isinstance(argument, Mapping) else ()
            yield from (f"{section}.{name}.{part}" for part in parts)


def known_keys(sections: Mapping[str, type]) -> set[str]:
    """Every key of the given sections' classes, besides name and seed."""
    nested = {f"{section}.{key}" for section, cls in sections.items() for key in _arguments(cls)}
    return ({"name", "seed", *sections} | nested) - {"data.seed"}  # the experiment's seed goes there


def check_keys(keys: Iterable[str], known: set[str], where: str = "") -> None:
    """Refuses the first key that is not known, naming those it may have been meant for.

    Raises:
        RequestError: There is one.
    """
    for key in keys:
        short = re.sub(r"^(data|model)\.init_args\.", r"\1.", key)
        parent = ".".join(short.split(".")[:2])
        # What lies deeper belongs to a dictionary, unless the parent has named keys of its own.
        in_dictionary = parent in known and not any(name.startswith(f"{parent}.") for name in known)
        if short not in known and not in_dictionary and not short.endswith(".class_path"):
            raise RequestError(f"{where}unknown key {short}; {nearest(short, known)}")


def source_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What says which images a configuration's data has: the source's class and its own arguments.

    Two configurations that agree in these may share what was decoded, however they split and augment it.
    """
    from darkroom.datamodules.base import ImageDataModule

    data = config["data"]
    cls = classes_for("data")[data["class_path"].rpartition(".")[2]]
    declared: set[str] = set()
    for ancestor in cls.__mro__[: cls.__mro__.index(ImageDataModule)]:
        declared |= inspect.signature(ancestor.__init__).parameters.keys()  # type: ignore[misc]
    own = {key: value for key, value in data.get("init_args", {}).items() if key in declared}
    return {"class": data["class_path"], **own}


@cache
def _arguments(cls: type) -> frozenset[str]:
    """A constructor's arguments, those it passes on to its base, and those of dataclasses among them."""
    names: set[str] = set()
    for ancestor in cls.__mro__:
        constructor = vars(ancestor).get("__init__")
        if constructor is None:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        hints = get_type_hints(constructor)
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                names.add(parameter.name)
                for member in (hints.get(parameter.name), *get_args(hints.get(parameter.name))):
                    if is_dataclass(member) and not _is_mapping(hints[parameter.name]):
                        names |= {f"{parameter.name}.{item.name}" for item in fields(member)}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return frozenset(names - {"self"})


def _is_mapping(hint: Any) -> bool:
    return str(hint).startswith(("collections.abc.Mapping", "typing.Mapping", "dict"))


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
