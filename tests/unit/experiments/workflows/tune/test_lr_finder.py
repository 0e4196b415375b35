"""The range test takes the steps that training would, at the rates of its ramp."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from darkroom.datamodules.loader import BatchLoader
from darkroom.experiments.config.experiment import Experiment, load_experiment
from darkroom.experiments.training.setup import prepare
from darkroom.experiments.workflows.tune import lr_finder
from darkroom.experiments.workflows.tune.lr_finder import Ramp, run_range_test

TINY = {
    "model.backbone_options.widths": "[8]",
    "model.schedule": "constant",
    "data.augmentation.rotation": "0",
    "data.augmentation.zoom": "0",
    "data.augmentation.translation": "0",
    "trainer.progress": "false",
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
}


def prepared(**overrides: str) -> Experiment:
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    experiment = load_experiment(["digits/cnn"], {**TINY, **given})
    prepare(experiment)
    return experiment


@pytest.mark.parametrize("accumulated", [1, 3])
def test_its_losses_are_those_of_a_bare_loop_with_the_same_rates(accumulated):
    # 1,286 images in batches of 64 are 21 an epoch: the ramp goes on into the next ones.
    ramp = Ramp(1e-3, 0.3, 30)
    sgd = {"model__optimizer": "sgd", "model__weight_decay": "0"}
    measured = run_range_test(prepared(**sgd, trainer__accumulate_batches=str(accumulated)), ramp)
    np.testing.assert_allclose(measured.rates, np.geomspace(1e-3, 0.3, 30))

    experiment = prepared(**sgd)
    data, network = experiment.data, experiment.model.network.train()
    loader = BatchLoader(data.splits["train"], 64, shuffle=True, seed=experiment.seed)
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=True)
    losses: list[float] = []
    for _ in range(10):
        batches = list(loader)
        for start in range(0, len(batches), accumulated):
            part = batches[start : start + accumulated]
            images = sum(len(batch.targets) for batch in part)
            optimizer.zero_grad()
            step = 0.0
            for batch in part:
                logits = network(data.preprocess(batch.images))
                loss = torch.nn.functional.cross_entropy(logits, batch.targets, label_smoothing=0.1)
                share = len(batch.targets) / images
                (share * loss).backward()
                step += share * loss.item()
            if len(losses) < ramp.steps:
                optimizer.param_groups[0]["lr"] = ramp.rate(len(losses))
                losses.append(step)
            optimizer.step()
    np.testing.assert_allclose(measured.losses, losses, rtol=1e-3)


class Seen(pl.Callback):
    """The rates of all groups when a step has been taken."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def test_layers_with_rates_of_their_own_keep_their_ratios(monkeypatch):
    seen = Seen()
    build = lr_finder.build_trainer
    monkeypatch.setattr(lr_finder, "build_trainer", lambda settings, calls: build(settings, [*calls, seen]))
    layered = {"model__finetuning": "{head_lr_factor: 10, layer_decay: 0.5}", "model__lr": "0.02"}
    experiment = prepared(**layered)
    ramp = Ramp(1e-5, 1e-3, 12)
    run_range_test(experiment, ramp)
    rates = np.array(seen.rates)  # (steps, groups)
    assert len(rates) == 12
    # What the experiment itself gives its groups, at model.lr = 0.02.
    groups = prepared(**layered).model._build_optimizer().param_groups
    np.testing.assert_allclose(rates[0] / ramp.rate(0), [group["lr"] / 0.02 for group in groups])
    assert rates[0].max() / ramp.rate(0) == pytest.approx(10)
    assert len(set(rates[0])) >= 3
    np.testing.assert_allclose(rates / rates[0], np.geomspace(1, 100, 12)[:, None].repeat(rates.shape[1], 1))


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_it_ends_where_the_loss_diverges_even_to_infinity(normalization):
    experiment = prepared(
        model__optimizer="sgd",
        model__backbone_options=f"{{widths: [8], normalization: {normalization}}}",
    )
    measured = run_range_test(experiment, Ramp(1e-4, 1e6, 200))
    assert measured.diverged
    assert 10 < len(measured.rates) < 200
    assert measured.rates[-1] < 1e5


def test_a_loss_that_is_no_number_from_one_step_to_the_next_ends_it_too():
    options = "{widths: [8, 8, 8], normalization: none}"
    experiment = prepared(model__optimizer="sgd", model__backbone_options=options)
    measured = run_range_test(experiment, Ramp(1e-2, 1e38, 4))
    assert measured.diverged
    assert not np.isfinite(measured.losses[-1])
    assert len(measured.rates) == 3


def test_a_linear_probe_is_tested_on_the_features_it_would_train_on(monkeypatch):
    from darkroom.experiments.training.feature_cache import FeatureData

    calls = []
    compute = FeatureData._compute
    monkeypatch.setattr(FeatureData, "_compute", lambda self: calls.append(1) or compute(self))
    experiment = prepared(model__finetuning__strategy="linear_probe")
    before = {name: value.clone() for name, value in experiment.model.network.state_dict().items()}
    measured = run_range_test(experiment, Ramp(1e-4, 1e-1, 30))
    assert calls
    assert len(measured.losses) == 30
    moved = {
        name for name, value in experiment.model.network.state_dict().items() if not value.equal(before[name])
    }
    assert moved == {"head.weight", "head.bias"}
