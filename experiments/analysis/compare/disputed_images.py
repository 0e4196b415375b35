"""Images on which two groups disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import RequestError
from ...evaluation.predictions import target_names
from ...tracking.recorded_experiment import load_recorded_data
from .groups import Group

MAX_SHOWN = 12


@dataclass(frozen=True)
class Disputed:
    """An image about which two groups disagree.

    Attributes:
        id: Of the image.
        truth: Its class, or its labels.
        wrong: What the other group's first wrong run said.
        pixels: uint8 (C, H, W).
    """

    id: str
    truth: str
    wrong: str
    pixels: Tensor


class SplitImages:
    """The images of a split, by id, as a recorded run's configuration gives them.

    Args:
        group: Whose first run's configuration is read.
        split: The images' part.
        overrides: Keys of the data, such as where it lies now.

    Raises:
        RequestError: The data is not available here.
    """

    def __init__(self, group: Group, split: str, overrides: Mapping[str, str]) -> None:
        self.data = load_recorded_data(group.members[0].run, overrides)
        if split not in self.data.splits:
            raise RequestError(f"the data has no {split} images")
        self.store = self.data.splits[split]
        self.places = {name: place for place, name in enumerate(self.store.ids)}

    def disputed(self, right: Group, wrong: Group) -> list[Disputed]:
        """Where most runs of one group are right and most of the other are wrong, the clearest first."""
        margins = right.right - wrong.right  # (N,)
        ids = np.unique(np.concatenate([member.outcome.ids for member in right.members]))
        order = np.argsort(-margins, kind="stable")
        clear = [place for place in order.tolist() if margins[place] > 0.5]
        known = [str(ids[place]) for place in clear if ids[place] in self.places]
        return [self._look(name, wrong) for name in known[:MAX_SHOWN]]

    def _look(self, name: str, wrong: Group) -> Disputed:
        place = self.places[name]
        names = self.data.class_names
        truth = target_names(self.store.targets[place], names)
        return Disputed(name, truth, _said(wrong, name, names), self.store.images[torch.tensor([place])][0])


def _said(group: Group, name: str, class_names: tuple[str, ...]) -> str:
    """What the first of a group's runs that errs on an image said of it."""
    for member in group.members:
        (found,) = np.nonzero(member.outcome.ids == name)
        if len(found) and not member.outcome.right()[found[0]]:
            probabilities = torch.from_numpy(member.outcome.probabilities[found[0]])
            if member.outcome.targets.ndim == 2:
                return target_names((probabilities > 0.5).float(), class_names)
            return class_names[int(probabilities.argmax())]
    return "?"
