"""How much each training image counts, by a file of the user's or as boosting has it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor


def read_sample_weights(path: Path, ids: Sequence[str]) -> Tensor:
    """The weights of images, float64 (N,), from a table with the columns `id` and `weight`.

    Args:
        path: CSV or Parquet; rows of other images are passed over.
        ids: Of N images, some perhaps repeatedly.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such table, an image has no weight or two, or the weights won't do.
    """
    asked = f"data.sample_weights={path}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{asked}: there is no such file; expected a CSV or Parquet with id and weight"
        )
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={"id": str})
    except (ValueError, OSError) as error:  # as both readers raise of what they can't read
        raise ValueError(f"{asked} can't be read as CSV or Parquet: {error}") from error
    if missing := [name for name in ("id", "weight") if name not in frame]:
        raise ValueError(f"{asked} has no column {missing[0]}; it has {', '.join(map(str, frame.columns))}")
    if (repeated := frame["id"][frame["id"].duplicated()]).size:
        raise ValueError(f"{asked} gives {repeated.iloc[0]} more than one weight; give it one")
    by_id = dict(zip(frame["id"], pd.to_numeric(frame["weight"], errors="coerce"), strict=True))
    for name in ids:  # a table from another system may have accents in the other Unicode form
        if name not in by_id and not name.isascii():
            forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
            if there := [form for form in forms if form in by_id]:
                by_id[name] = by_id[there[0]]
    if unknown := [name for name in ids if name not in by_id]:
        raise ValueError(
            f"{asked} has no weight for {len(unknown)} of {len(ids)} training images, such as {unknown[0]}; "
            f"ids are as in data/split.parquet of a recorded run"
        )
    weights = torch.tensor([by_id[name] for name in ids], dtype=torch.float64)
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        worst = ids[int((~(weights.isfinite() & (weights >= 0))).nonzero()[0])]
        raise ValueError(f"{asked}: weights must be numbers of at least 0, {worst} has {by_id[worst]}")
    if not bool(weights.any()):
        raise ValueError(f"{asked}: all training images have a weight of 0; nothing would be trained on")
    return weights
