"""What two real processes gather is what one would have had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from support.processes import WORLD_SIZE, on_two_processes

from darkroom.lightning_modules.classifier import ImageClassifier
from darkroom.lightning_modules.metrics.epoch_outputs import EpochOutputs, gather

COUNT, CLASSES, STEP = 1001, 3, 64  # the last step holds 41 rows; the second process gets 20 of them


def everything() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(COUNT, CLASSES, generator=generator)
    return logits, torch.randint(CLASSES, (COUNT,), generator=generator)


def share_of_an_epoch(rank: int) -> dict[str, object]:
    """Metrics, loss and places of 1,001 images, of which this process has seen its shares."""
    logits, targets = everything()
    model = ImageClassifier(backbone="dense")
    model.build(CLASSES, (1, 8, 8))
    outputs = EpochOutputs()
    for chunk in torch.arange(COUNT).split(STEP):
        mine = chunk[rank::WORLD_SIZE]
        scale = len(mine) * WORLD_SIZE / len(chunk)
        outputs.losses.append(F.cross_entropy(logits[mine], targets[mine]) * scale)
        outputs.weights.append(len(chunk))
        outputs.logits.append(logits[mine])
        outputs.targets.append(targets[mine])
        outputs.indices.append(mine)
    gathered, labels, places = outputs.whole()
    metrics = model.metrics["val_"]
    metrics.update(gathered.softmax(1), labels)
    return {
        "loss": outputs.mean_loss(),
        "metrics": {name: float(value) for name, value in metrics.compute().items()},
        "logits": gathered,
        "targets": labels,
        "places": places,
    }


def rows_of_uneven_length(rank: int) -> list[torch.Tensor]:
    return [gather(torch.full((count, 2), rank)) for count in (rank, 3 * rank, 5 - 2 * rank)]


def test_all_processes_have_the_loss_the_metrics_and_the_rows_of_the_whole(tmp_path: Path) -> None:
    logits, targets = everything()
    probabilities = logits.softmax(1)
    for seen in on_two_processes(share_of_an_epoch, tmp_path):
        assert torch.equal(seen["places"], torch.arange(COUNT))
        assert torch.equal(seen["logits"], logits)
        assert torch.equal(seen["targets"], targets)
        assert float(seen["loss"]) == pytest.approx(float(F.cross_entropy(logits, targets)), abs=1e-6)
        for name, expected in {
            "accuracy": accuracy_score(targets, probabilities.argmax(1)),
            "log_loss": log_loss(targets, probabilities.double()),
            "auroc": roc_auc_score(targets, probabilities.double(), multi_class="ovr"),
        }.items():
            assert seen["metrics"][name] == pytest.approx(expected, abs=1e-6), name


def test_rows_are_gathered_rank_after_rank_however_many_each_has(tmp_path: Path) -> None:
    for first, second, third in on_two_processes(rows_of_uneven_length, tmp_path):
        assert first.tolist() == [[1, 1]]
        assert second.tolist() == [[1, 1]] * 3
        assert third.tolist() == [[0, 0]] * 5 + [[1, 1]] * 3
