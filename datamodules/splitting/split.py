"""Train, validation and test split; folds; subsets."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..images.store import ImageStore, join
from .splitters import assign_folds, hold_out, keep, split_problems, split_warnings


@dataclass(frozen=True)
class Division:
    """Which images are trained on, which choose the epoch, and which are the test.

    Attributes are the arguments of `ImageDataModule` of the same names; `seed` is its `split_seed`.
    """

    val_fraction: float
    test_fraction: float
    folds: int | None
    fold: int
    seed: int
    train_fraction: float | None
    train_per_class: int | None

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"data.{name} must lie in [0, 1), got {value}; 0.1 is customary")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"data.folds must be at least 2, got {self.folds}; 5 is customary")
        if self.folds is None and self.fold != 0:
            raise ValueError(f"data.fold={self.fold} needs data.folds, the number of folds; 5 is customary")
        if self.folds is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"data.fold must lie in [0, {self.folds - 1}], got {self.fold}")
        if self.train_fraction is not None and not 0 < self.train_fraction <= 1:
            raise ValueError(f"data.train_fraction must lie in (0, 1], got {self.train_fraction}")
        if self.train_per_class is not None and self.train_per_class < 1:
            raise ValueError(f"data.train_per_class must be at least 1, got {self.train_per_class}")
        if self.train_fraction is not None and self.train_per_class is not None:
            raise ValueError("give data.train_fraction or data.train_per_class, not both")

    def check_targets(self, targets: Tensor | NDArray[np.generic]) -> None:
        """Refuses what can't be done with the labels of images, (N,) or (N, K); needs no pixels.

        Raises:
            ValueError: Images of each class are to be counted out, and have several labels.
        """
        if self.train_per_class is not None and targets.ndim == 2:
            raise ValueError(
                f"data.train_per_class={self.train_per_class} needs images of one class each; these have "
                f"{targets.shape[1]} labels, any of which may hold: use data.train_fraction"
            )

    def divide(self, source: Mapping[str, ImageStore], class_names: Sequence[str]) -> dict[str, ImageStore]:
        """A source's parts as "train", "test" and "val", the latter two only where there are any.

        Raises:
            ValueError: There are no training images, or too few, in all or of a class, for so many folds; see
                also `check_targets`.
        """
        if not len(source.get("train", ())):
            given = ", ".join(f"{len(part)} for {name}" for name, part in source.items()) or "none at all"
            raise ValueError(f"there are no training images (but {given}); see that some are for train")
        self.check_targets(source["train"].targets)
        train, val, test = source["train"], source.get("val"), source.get("test")
        if test is None and self.test_fraction > 0:
            train, test = _part(train, self._held_out(train, self.test_fraction, "test"))
        if self.folds is not None:
            train = train if val is None else join(train, val)
            fold_of = assign_folds(
                train.ids, train.targets.numpy(), self.folds, seed=self.seed, groups=train.groups
            )
            _check_folds(fold_of, self.folds, train, class_names)
            train, val = _part(train, fold_of == self.fold)
        elif val is None and self.val_fraction > 0:
            train, val = _part(train, self._held_out(train, self.val_fraction, "val"))
        if self.train_fraction is not None or self.train_per_class is not None:
            kept = keep(
                train.ids,
                train.targets.numpy(),
                seed=self.seed,
                fraction=self.train_fraction,
                per_class=self.train_per_class,
            )
            train = train.subset(torch.from_numpy(kept))
        # In an order that leaves out what is empty.
        parts = {"train": train, "test": test, "val": val}
        return {
            name: part for name, part in parts.items() if part is not None and (len(part) or name == "train")
        }

    def _held_out(self, store: ImageStore, fraction: float, purpose: str) -> NDArray[np.bool_]:
        return hold_out(
            store.ids, store.targets.numpy(), fraction, purpose=purpose, seed=self.seed, groups=store.groups
        )

    def notes(self, source: Mapping[str, ImageStore], splits: Mapping[str, ImageStore]) -> list[str]:
        """What a user may not expect, in sentences.

        Args:
            source: The parts that were divided.
            splits: What `divide` made of them.
        """
        notes = self._odd_shares(source, splits)
        if "test" not in source and self.test_fraction == 0:
            notes.append(
                "there are no test images: results are those on validation, which chose nothing only with "
                "trainer.monitor=null; data.test_fraction holds some out"
            )
        if self.folds is not None:
            notes.append(
                f"validation images are fold {self.fold} of folds 0 to {self.folds - 1}, and "
                "data.val_fraction is not used"
            )
        elif "val" in source:
            notes.append("validation images are the source's own, and data.val_fraction is not used")
        if "test" in source and self.test_fraction > 0:
            notes.append("test images are the source's own, and data.test_fraction is not used")
        return notes

    def _odd_shares(self, source: Mapping[str, ImageStore], splits: Mapping[str, ImageStore]) -> list[str]:
        """Where another share was held out than was asked for."""
        pool, groups, notes = len(source["train"]), source["train"].groups, []
        if "test" not in source and self.test_fraction > 0:
            drawn, key = len(splits.get("test", ())), f"data.test_fraction={self.test_fraction:g}"
            notes += odd_share("test", drawn, pool, self.test_fraction, key, groups)
            pool -= drawn
        drawn = len(splits.get("val", ()))
        if self.folds is not None:
            pool += len(source.get("val", ()))
            notes += odd_share("validation", drawn, pool, 1 / self.folds, f"data.folds={self.folds}", groups)
        elif "val" not in source and self.val_fraction > 0:
            key = f"data.val_fraction={self.val_fraction:g}"
            notes += odd_share("validation", drawn, pool, self.val_fraction, key, groups)
        return notes

    @staticmethod
    def fingerprint(splits: Mapping[str, ImageStore]) -> str:
        """A hash of which id belongs to which split."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(splits):
            digest.update(f"{name}\n".encode())
            digest.update("\n".join(sorted(splits[name].ids)).encode())
        return digest.hexdigest()


def check_splits(splits: Mapping[str, ImageStore], class_names: Sequence[str]) -> list[str]:
    """What splits had better not be, in sentences.

    Raises:
        ValueError: They are what no splits may be.
    """
    problems = split_problems(
        {name: store.ids for name, store in splits.items()},
        {name: store.targets.numpy() for name, store in splits.items()},
        class_names,
    )
    if problems:
        raise ValueError(" ".join(problems))
    groups = {name: store.groups for name, store in splits.items() if store.groups is not None}
    return split_warnings({name: len(store) for name, store in splits.items()}, len(class_names), groups)


def odd_share(
    purpose: str, drawn: int, pool: int, asked: float, key: str, groups: Sequence[str] | None = None
) -> list[str]:
    """A sentence where the share of images held out is far from the one asked for; none where it is near.

    Args:
        purpose: What they are held out for.
        drawn: How many are held out.
        pool: From how many.
        asked: The share to hold out.
        key: The key that asks for it, with its value.
        groups: Of each image, where groups are held out whole.

    >>> odd_share("test", 76, 100, 0.2, "data.test_fraction=0.2", ["x"] * 70 + ["y"] * 30)[0][:80]
    '76 of 100 images (76 %) are for test, where data.test_fraction=0.2 asks for 20 %'
    >>> odd_share("test", 22, 100, 0.2, "data.test_fraction=0.2")
    []
    """
    chance = math.sqrt(asked * (1 - asked) / pool)
    # Two standard deviations are what drawing each image by itself gives, which small sets always show.
    if abs(drawn / pool - asked) <= max(min(asked / 4, 0.05), 2 * chance):
        return []
    why = "each class is held out and kept at least once"
    if groups is not None:
        largest, count = Counter(groups).most_common(1)[0]
        why = f"groups are held out whole, and the largest, {largest}, has {count} images"
    return [
        f"{drawn} of {pool} images ({100 * drawn / pool:.0f} %) are for {purpose}, where {key} asks for "
        f"{100 * asked:.0f} %: {why}; another data.split_seed holds out others"
    ]


def _part(store: ImageStore, held_out: NDArray[np.bool_]) -> tuple[ImageStore, ImageStore]:
    mask: Tensor = torch.from_numpy(held_out)
    return store.subset(~mask), store.subset(mask)


def _check_folds(
    fold_of: NDArray[np.int64], folds: int, train: ImageStore, class_names: Sequence[str]
) -> None:
    """Refuses a class that a fold would not judge, and a label that would be judged but not learned.

    Of all folds, whichever is trained: without one of them the others make no cross-validation.
    """
    targets = train.targets.numpy()
    one_class = targets.ndim == 1
    for label, name in enumerate(class_names):
        members = targets == label if one_class else targets[:, label] == 1
        found = len(np.unique(fold_of[members]))
        if 0 < found < (folds if one_class else 2):
            size = f"images: {members.sum()}{'' if train.groups is None else ', groups kept together'}"
            advice = f"ask for at most {found} (data.folds)" if found > 1 else "give it more images"
            raise ValueError(
                f"{folds} folds are too many for the {'class' if one_class else 'label'} {name}, which is in "
                f"{found} of them ({size}); {advice}"
            )
