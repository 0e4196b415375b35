"""Holds a pretrained head against the classes of the data."""

from __future__ import annotations

from collections.abc import Sequence

from timm.data import ImageNetInfo, infer_imagenet_subset

from darkroom.datamodules.base import ImageDataModule
from darkroom.datamodules.messages import some
from darkroom.datamodules.sources.file_names import sorted_classes
from darkroom.datamodules.sources.image_files import ImageFiles
from darkroom.lightning_modules.backbones.factory import pretrained_config, pretrained_view
from darkroom.lightning_modules.classifier import ImageClassifier

from ..errors import RequestError


def check_has_a_head(model: ImageClassifier, data: ImageDataModule) -> list[str]:
    """Refuses to judge weights without a head for the data's classes; returns notes for the user.

    Args:
        model: Built, with its weights.
        data: What it is judged on.

    Raises:
        RequestError: The network has no weights, its head starts anew, or its classes are others.
    """
    backbone, pretrained = model.hparams["backbone"], model.hparams["pretrained"]
    if not pretrained and model.loaded_weights is None:
        raise RequestError(
            f"nothing would be trained, and model.backbone={backbone} has no weights to judge: give "
            "model.pretrained=true or model.weights=FILE"
        )
    config = pretrained_config(backbone)
    names, outputs = data.class_names, model.task.num_outputs
    known = config.num_classes if pretrained and config is not None else outputs
    if known != outputs or (model.loaded_weights is not None and model.loaded_weights.new_heads):
        knows = f"its weights know {known}" if known != outputs else "the file's head has others"
        raise RequestError(
            f"the head of model.backbone={backbone} starts anew for {len(names)} classes ({knows}): "
            "untrained, it tells nothing. Train it (darkroom train), or judge it on its own classes"
        )
    notes = []
    subset = None if config is None else infer_imagenet_subset({"num_classes": outputs})
    if subset is not None:
        _check_imagenet_order(names, ImageNetInfo(subset))
    else:
        notes.append(
            "the head's classes are taken to be the data's, in this order (data.classes gives another): "
            f"{some(names, shown=10)}"
        )
    view = pretrained_view(backbone)
    if view is not None and view.test is not None and getattr(data, "image_size", None) == view.size:
        side, fraction = view.test
        notes.append(
            f"timm reports this backbone's accuracy with data.image_size={side} and "
            f"data.crop_fraction={fraction:g}; here it is judged as pretrained, at {view.size} pixels"
        )
    return notes


def class_order_notes(model: ImageClassifier, data: ImageDataModule) -> list[str]:
    """Which order the classes have, where weights with a head of as many may have been trained with another.

    Args:
        model: Built, with its weights.
        data: Its images.
    """
    if not isinstance(data, ImageFiles) or not data.sorts_classes:
        return []
    loaded, config = model.loaded_weights, pretrained_config(model.hparams["backbone"])
    has_head = loaded is not None and not loaded.new_heads
    if model.hparams["pretrained"] and config is not None:
        has_head = config.num_classes == model.task.num_outputs
    natural, text = (sorted_classes(data.class_names, order) for order in ("natural", "text"))
    if not has_head or natural == text:
        return []
    by_value, as_text = (some(names, shown=4) for names in (natural, text))
    used, other = (by_value, as_text) if data.class_order == "natural" else (as_text, by_value)
    other_order = "text" if data.class_order == "natural" else "natural"
    return [
        f"the weights' head is kept, and its outputs are taken to be the classes in this order: {used}; if "
        f"it was trained with the order {other}, set data.class_order={other_order}"
    ]


def _check_imagenet_order(names: Sequence[str], known: ImageNetInfo) -> None:
    """The data's classes by synset, by a word for it, or by number, in the order of the head's outputs.

    Raises:
        RequestError: They are others, or in another order.
    """
    synsets: list[str] = known.label_names()  # type: ignore[no-untyped-call]
    for index, (name, synset) in enumerate(zip(names, synsets, strict=True)):
        words = known.label_name_to_description(synset)
        said = {name.lower(), name.replace("_", " ").lower()}
        if said & {synset, str(index), *(word.strip().lower() for word in words.split(","))}:
            continue
        if name.isdecimal() and int(name) == index:  # "0007"
            continue
        raise RequestError(
            f"output {index} of the head is {synset} ({words}), and class {index} of the data is {name}: "
            "name the classes by their synsets, words or numbers, in the head's order (data.classes)"
        )
