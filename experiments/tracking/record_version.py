"""The version of a record, and the repairs that changed numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Raised by a repair that changes a number, a split, an order or decoding for an unchanged configuration.
# Each run is tagged with it; a run without the tag is of version 1.
RECORD_VERSION = 2
RECORD_VERSION_TAG = "record_version"


@dataclass(frozen=True)
class Repair:
    """A repair after which an unchanged configuration may give another number.

    Attributes:
        version: The record version that it came with.
        what: What is different since, as a sentence without its full stop.
        concerns: Whether it can change the numbers of a run with these recorded params (flat keys, text
            values).
        before: Configuration keys, and the values with which they do what was done before the repair;
            empty where no key does.
    """

    version: int
    what: str
    concerns: Callable[[Mapping[str, str]], bool] = lambda params: True
    before: Mapping[str, str] = field(default_factory=dict)


def version_label(tags: Mapping[str, str]) -> str:
    """The record version of a run with these tags; "1+2" where it was begun at 1 and went on at 2.

    >>> version_label({}), version_label({"record_version": "2"})
    ('1', '2')
    """
    return tags.get(RECORD_VERSION_TAG, "1")


def is_outdated(tags: Mapping[str, str]) -> bool:
    """Whether a run was recorded, at least in part, before the latest repairs."""
    return version_label(tags) != str(RECORD_VERSION)


def continued_label(label: str) -> str:
    """The version of a run that goes on with the present code.

    >>> continued_label("2"), continued_label("1")
    ('2', '1+2')
    """
    newest = label.rpartition("+")[2]
    return label if newest == str(RECORD_VERSION) else f"{label}+{RECORD_VERSION}"


def repairs_since(tags: Mapping[str, str], params: Mapping[str, str]) -> list[Repair]:
    """The repairs that came after a run was begun and can change its numbers, the oldest first."""
    begun = int(version_label(tags).partition("+")[0])
    return [repair for repair in REPAIRS if repair.version > begun and repair.concerns(params)]


def former_values(tags: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    """Keys, and the values with which the present code does what the code of the run's record version did.

    The first repair that names a key decides: its value is the oldest.
    """
    values: dict[str, str] = {}
    for repair in repairs_since(tags, params):
        for key, value in repair.before.items():
            values.setdefault(key, value)
    return values


SOURCES_OF_FOUND_CLASSES = ("ImageFolder", "ImageTable", "ImageShards", "HuggingFaceDataset")

# Repairs --------------------------------------------------------------------------------------


def _weighed_accumulated_images_unequally(params: Mapping[str, str]) -> bool:
    """Whether some step had fewer batches than others, a shorter one, or batches of other class weights.

    >>> _weighed_accumulated_images_unequally({"trainer.accumulate_batches": "1"})
    False
    >>> params = {"trainer.accumulate_batches": "2", "data.batch_size": "8", "num_train_images": "160"}
    >>> _weighed_accumulated_images_unequally(params)
    False
    >>> _weighed_accumulated_images_unequally({**params, "num_train_images": "161"})
    True
    """
    batches = int(params.get("trainer.accumulate_batches", "1"))
    known = {"data.batch_size", "num_train_images"} <= params.keys()
    if batches == 1 or not known or params.get("model.class_weights", "none") != "none":
        return batches > 1
    return int(params["num_train_images"]) % (batches * int(params["data.batch_size"])) > 0


# One entry for each repair. Keep each on lines of its own: many changes add to this list.
REPAIRS: tuple[Repair, ...] = (
    Repair(
        2,
        what=(
            "with trainer.accumulate_batches each image counts the same within its optimizer step; before, "
            "an epoch's last step was divided by the full number of batches, a short batch counted as much "
            "as a whole one, and class weights were normalised within each batch"
        ),
        concerns=_weighed_accumulated_images_unequally,
    ),
    Repair(
        2,
        what=(
            "with model.warmup_epochs the schedules cosine, poly, tanh and step begin at model.lr when "
            "warm-up ends; before, warm-up counted as their first epochs, and cosine, poly and tanh stayed "
            "below model.lr"
        ),
        concerns=lambda params: (
            int(params.get("model.warmup_epochs", "0")) > 0
            and params.get("model.schedule") in ("cosine", "poly", "tanh", "step")
        ),
        before={"model.warmup_prefix": "false"},
    ),
    Repair(
        2,
        what=(
            "where max_steps ends training early, warm-up and milestones are counted in epochs of the data; "
            "before, in as many parts of those steps as there are epochs at most"
        ),
        concerns=lambda params: (
            "max_steps" in params.get("trainer.extra", "")
            and (params.get("model.schedule") != "constant" or params.get("model.warmup_epochs", "0") != "0")
        ),
    ),
    Repair(
        2,
        what=(
            "images in files are decoded and resized as timm and Pillow do it, to the last bit; before, "
            "JPEGs of at least twice the size were decoded at a fraction of theirs, torch resized them, and "
            "the shorter side was rounded to the nearest pixel instead of down"
        ),
        concerns=lambda params: "data.resize" in params,
        before={"data.decoding": "fast"},
    ),
    Repair(
        2,
        what=(
            "16-bit TIFFs whose zero is white are no longer inverted, 12-bit TIFFs have their whole range, "
            "and the transparent colour of 2-, 4- and 16-bit PNGs is white; 16-bit PGMs are read"
        ),
        concerns=lambda params: "data.resize" in params,
    ),
    Repair(
        2,
        what=(
            "classes whose names are all whole numbers are sorted by value, and the composed and decomposed "
            "Unicode forms of a name are one class; before, names were sorted as text, as they are stored"
        ),
        concerns=lambda params: params.get("data") in SOURCES_OF_FOUND_CLASSES,
        before={"data.class_order": "text"},
    ),
    Repair(
        2,
        what=(
            "links to folders below a class's folder are followed; before, the images behind them were left "
            "out in silence"
        ),
        concerns=lambda params: params.get("data") == "ImageFolder",
    ),
    Repair(
        2,
        what=(
            "with a pretrained backbone of timm's, data.interpolation, data.resize and data.crop_fraction "
            "follow the backbone where a recipe does not set them; before, they were bilinear, crop and 0.875"
        ),
        concerns=lambda params: (
            params.get("data.normalization") == "backbone"
            or params.get("model.pretrained") == "True"
            or params.get("model.weights", "None") != "None"
        ),
        before={"data.interpolation": "bilinear"},  # the others stand in each record of images in files
    ),
    Repair(
        2,
        what=(
            "the calibration error is summed in double precision: before, it was 1 % too large for 50,000 "
            "images and 26 % for 300,000"
        ),
    ),
    Repair(
        2,
        what=(
            "with model.class_weights the loss of a split is that of all its images at once, whatever the "
            "batch size; before, each batch counted by its images"
        ),
        concerns=lambda params: params.get("model.class_weights", "none") != "none",
    ),
    Repair(
        2,
        what=(
            "an epoch without validation (check_val_every_n_epoch) records no validation metrics and is not "
            "chosen; before, it repeated those of an earlier epoch"
        ),
        concerns=lambda params: "check_val_every_n_epoch" in params.get("trainer.extra", ""),
    ),
    Repair(
        2,
        what=(
            "auroc, average_precision, accuracy_top5, aurc and curves rank images by log odds; before, by "
            "float32 probabilities, which are exactly 0 or 1 from logits of about 17 on and tie"
        ),
    ),
)
