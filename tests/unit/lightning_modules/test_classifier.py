"""The classifier trains as a bare PyTorch loop would, and says what is wrong when it can't."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.metrics import accuracy_score, log_loss
from support.classifiers import IMAGE_SHAPE, Bars, built, prepared, trainer

from darkroom.datamodules.augmentation.pipeline import Augmentation, crop_and_flip
from darkroom.datamodules.loader import Batch
from darkroom.datamodules.seeding import generator_for
from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.classifier import NonFiniteLossError, NonFiniteOutputError
from darkroom.lightning_modules.predictor import Predictor


def a_batch(num_classes: int = 3, count: int = 16, seed: int = 5) -> Batch:
    images = torch.randn(count, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(2))
    return Batch(images, torch.arange(count) % num_classes, torch.arange(count), seed)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_fit_learns_and_its_metrics_are_those_of_its_predictions(num_classes: int) -> None:
    data = prepared(num_classes)
    model = built(data)
    fitted = trainer(max_epochs=8)
    fitted.fit(model, data)
    fitted_metrics = {name: float(value) for name, value in fitted.callback_metrics.items()}
    assert fitted_metrics["val/accuracy"] > 0.9
    assert fitted_metrics["train/loss"] < 0.5

    (tested,) = fitted.test(model, data, verbose=False)
    predictions = model.predictions["test"]
    with torch.no_grad():
        logits = model.network.eval()(data.preprocess(data.splits["test"].images))
    assert logits.shape == (60, 1 if num_classes == 2 else num_classes)
    two = torch.cat([torch.zeros_like(logits), logits], 1) if num_classes == 2 else logits
    torch.testing.assert_close(predictions.probabilities, two.softmax(1))
    assert torch.equal(predictions.targets, data.splits["test"].targets)
    assert predictions.indices.tolist() == list(range(60))

    truth, scores = predictions.targets.numpy(), predictions.probabilities.numpy()
    assert tested["test/accuracy"] == pytest.approx(accuracy_score(truth, scores.argmax(1)))
    assert tested["test/loss"] == pytest.approx(log_loss(truth, scores), rel=1e-4)
    assert tested["test/log_loss"] == pytest.approx(tested["test/loss"], rel=1e-4)


def test_the_loss_of_an_epoch_is_the_mean_over_images_not_over_batches() -> None:
    data = prepared(batch_size=50)
    model = built(data)
    fitted = trainer(max_epochs=1)
    fitted.fit(model, data)
    predictions = model.predictions["train"]
    assert len(predictions.targets) == len(data.splits["train"]) == data.num_train_images
    assert len(predictions.targets) % 50 != 0  # the last batch is smaller
    expected = log_loss(predictions.targets.numpy(), predictions.probabilities.numpy())
    assert fitted.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-4)


def test_every_stage_reports_every_metric_under_its_own_name() -> None:
    data = prepared()
    fitted = trainer()
    fitted.fit(built(data), data)
    train, val = (
        {name.removeprefix(f"{stage}/") for name in fitted.callback_metrics if name.startswith(f"{stage}/")}
        for stage in ("train", "val")
    )
    assert train == val >= {"loss", "accuracy", "auroc", "ece"}


def test_without_validation_it_trains_all_the_same() -> None:
    data = prepared(val_fraction=0.0)
    fitted = trainer()
    fitted.fit(built(data, schedule="plateau"), data)
    assert "train/loss" in fitted.callback_metrics
    assert not any(name.startswith("val/") for name in fitted.callback_metrics)


def test_a_sanity_check_or_a_limit_leaves_the_validation_set_as_it_is() -> None:
    data = prepared(val_fraction=0.6)
    data._evaluation_loader = lambda split: type(data.train_dataloader())(data.splits[split], 16)  # type: ignore[method-assign]
    model = built(data)
    trainer(num_sanity_val_steps=2).fit(model, data)
    assert model.predictions["val"].indices.tolist() == list(range(len(data.splits["val"])))


def bare_loop(
    data: Bars, model: ImageClassifier, optimizer: torch.optim.Optimizer, epochs: int, **loss_options: Any
) -> None:
    """What the classifier promises to be, written out."""
    pixels = data.splits["train"].images
    mean, std = data.preprocess.mean, data.preprocess.std
    model.network.train()
    loader = data.train_dataloader()
    for _ in range(epochs):
        for batch in loader:
            images = crop_and_flip(pixels[batch.indices], data.augmentation, generator_for("cpu", batch.seed))
            torch.manual_seed(batch.seed ^ 0x5DEECE66D)
            normalised = images.float() * (1 / (255 * std)) - mean / std
            logits = model.network(normalised)
            loss = F.cross_entropy(logits, data.splits["train"].targets[batch.indices], **loss_options)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_gradients_and_weights_are_bit_for_bit_those_of_a_bare_loop() -> None:
    augmentation = Augmentation(crop_padding=1, horizontal_flip=0.5)
    arguments: dict[str, Any] = {"dropout": 0.5, "optimizer": "adamw", "label_smoothing": 0.1}
    data = prepared(augmentation=augmentation, seed=3)
    model = built(data, **arguments)
    trainer(max_epochs=3).fit(model, data)

    bare_data = prepared(augmentation=augmentation, seed=3)
    bare = built(bare_data, **arguments)
    torch.manual_seed(999)  # where the global generator stands must not matter
    optimizer = torch.optim.AdamW(bare.network.parameters(), lr=0.01, weight_decay=0.0)
    bare_loop(bare_data, bare, optimizer, 3, label_smoothing=0.1)

    state, expected = model.network.state_dict(), bare.network.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert torch.equal(value, expected[name]), name
    fresh = built(data, **arguments).network.state_dict()
    assert not torch.equal(state["head.weight"], fresh["head.weight"])


def test_one_step_of_sgd_follows_the_gradient_of_loss_and_penalties() -> None:
    data = prepared(batch_size=200, num_classes=3)
    arguments: dict[str, Any] = {"backbone": "dense", "backbone_options": {"hidden_sizes": [6]}}
    settings: dict[str, Any] = {"optimizer": "momentum", "optimizer_options": {"momentum": 0.0}, "lr": 0.1}
    model = built(data, **arguments, **settings, l1=1e-3, l2=1e-2, class_weights="balanced")
    before = [parameter.detach().clone().requires_grad_() for parameter in model.network.parameters()]
    trainer(max_epochs=1).fit(model, data)

    train = data.splits["train"]
    weight, bias, head, head_bias = before
    hidden = (data.preprocess(train.images).flatten(1) @ weight.T + bias).relu()
    log_probabilities = (hidden @ head.T + head_bias).log_softmax(1)
    counts = torch.bincount(train.targets)
    class_weights = 1 / counts[train.targets]
    chosen = log_probabilities[torch.arange(len(train)), train.targets]
    loss = -(class_weights * chosen).sum() / class_weights.sum()
    for matrix in (weight, head):
        loss = loss + 1e-3 * matrix.abs().sum() + 1e-2 * (matrix**2).sum()
    loss.backward()
    for parameter, start in zip(model.network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, start - 0.1 * start.grad, atol=1e-6, rtol=1e-5)


def test_dropout_depends_on_the_batchs_seed_and_nothing_else() -> None:
    model = built(prepared(), backbone="dense", backbone_options={"hidden_sizes": [64]}, dropout=0.5)
    model.on_train_epoch_start()
    losses = []
    for global_seed, batch_seed in [(0, 5), (1, 5), (0, 6)]:
        torch.manual_seed(global_seed)
        losses.append(model.training_step(a_batch(seed=batch_seed), 1).item())
    assert losses[0] == losses[1] != losses[2]


def test_the_same_seed_gives_the_same_run_twice() -> None:
    results = []
    for _ in range(2):
        data = prepared()
        model = built(data, dropout=0.3, schedule="cosine")
        fitted = trainer(max_epochs=2)
        fitted.fit(model, data)
        results.append((model.network.state_dict(), dict(fitted.callback_metrics)))
    (weights, metrics), (weights_again, metrics_again) = results
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
    assert all(torch.equal(metrics[name], metrics_again[name]) for name in metrics)


class RateLog(pl.Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_rate_warms_up_and_falls_by_the_step() -> None:
    data, log = prepared(), RateLog()
    steps = len(data.train_dataloader())
    fitted = trainer(max_epochs=4, callbacks=[log])
    fitted.fit(built(data, schedule="cosine", warmup_epochs=1, lr=0.01), data)
    total = 4 * steps
    rising = [0.01 * step / steps for step in range(steps)]
    left = total - steps
    falling = [0.005 * (1 + math.cos(math.pi * step / left)) for step in range(left)]
    assert log.rates == pytest.approx(rising + falling)


def test_with_a_limit_of_steps_the_rate_falls_to_zero_at_the_last_and_warms_up_over_epochs() -> None:
    data, log = prepared(batch_size=16), RateLog()
    steps = len(data.train_dataloader())
    fitted = trainer(max_epochs=9, max_steps=2 * steps + 3, callbacks=[log])
    fitted.fit(built(data, schedule="cosine", warmup_epochs=1, lr=0.01), data)
    left = steps + 3
    rising = [0.01 * step / steps for step in range(steps)]
    falling = [0.005 * (1 + math.cos(math.pi * step / left)) for step in range(left)]
    assert log.rates == pytest.approx(rising + falling)


def test_with_accumulated_batches_the_rate_falls_by_the_optimizers_steps() -> None:
    data, log = prepared(batch_size=16), RateLog()
    batches = len(data.train_dataloader())
    updates = -(-batches // 2)
    fitted = trainer(max_epochs=2, accumulate_grad_batches=2, callbacks=[log])
    fitted.fit(built(data, schedule="cosine"), data)
    by_update = [0.005 * (1 + math.cos(math.pi * step / (2 * updates))) for step in range(2 * updates)]
    expected = [by_update[epoch * updates + batch // 2] for epoch in range(2) for batch in range(batches)]
    assert log.rates == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, schedule: str) -> None:
    # A rate this small improves nothing by 1e-4, so that plateau counts from the first epoch.
    arguments: dict[str, Any] = {
        "dropout": 0.3,
        "schedule": schedule,
        "backbone": "dense",
        "backbone_options": {"hidden_sizes": [4]},
    }
    arguments["lr"] = 0.01 if schedule == "cosine" else 1e-6
    arguments["optimizer"] = "momentum"
    data, whole_rates = prepared(), RateLog()
    whole = built(data, **arguments)
    every_epoch = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(max_epochs=9, callbacks=[whole_rates, every_epoch], enable_checkpointing=True).fit(whole, data)

    data, later_rates = prepared(), RateLog()
    resumed = built(data, seed=77, **arguments)  # other weights, soon replaced
    torch.rand(3)
    trainer(max_epochs=9, callbacks=[later_rates]).fit(
        resumed, data, ckpt_path=tmp_path / "epoch=3.ckpt", weights_only=True
    )
    assert later_rates.rates == whole_rates.rates[4 * len(data.train_dataloader()) :]
    assert schedule == "cosine" or len(set(whole_rates.rates)) == 2  # it did fall once
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_a_run_resumed_in_mid_epoch_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = prepared()
    assert len(data.train_dataloader()) == 4
    whole = built(data, dropout=0.3)
    in_mid_epoch = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6, save_top_k=-1)
    trainer(max_epochs=4, callbacks=[in_mid_epoch], enable_checkpointing=True).fit(whole, data)

    data = prepared()
    resumed = built(data, seed=77, dropout=0.3)
    path = tmp_path / "step=6.ckpt"
    trainer(max_epochs=4).fit(resumed, data, ckpt_path=path, weights_only=True)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_a_rate_far_too_high_is_refused_with_the_step_and_the_knob() -> None:
    data = prepared()
    model = built(data, optimizer="sgd", lr=1e30)
    with pytest.raises(
        NonFiniteLossError, match=r"became (nan|inf) at step \d of epoch 0.*model\.lr .*1e\+30"
    ):
        trainer().fit(model, data)


@pytest.mark.parametrize("bad_step", [0, 7, 50, 51, 77, 100])
def test_the_step_named_is_the_first_whose_loss_was_not_finite(bad_step: int) -> None:
    model = built(prepared(), backbone="dense", backbone_options={"hidden_sizes": []})
    model.on_train_epoch_start()
    good = a_batch(count=2)
    bad = good._replace(images=torch.full_like(good.images, math.nan))

    def epoch() -> None:
        for step in range(102):
            model.training_step(bad if step >= bad_step else good, step)
        model._check_finite()  # as the end of the epoch does

    with pytest.raises(NonFiniteLossError, match=rf"became nan at step {bad_step} of epoch 0"):
        epoch()


def test_the_end_of_an_epoch_sees_what_its_steps_had_not_looked_at() -> None:
    data = prepared()
    broken = data.splits["train"]
    order = data.train_dataloader()._order(0)
    model = built(data)

    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Batch, step: int) -> None:
            if step == 2:
                batch.images.fill_(math.inf)

    assert len(order) == len(broken) > 2 * 32
    with pytest.raises(NonFiniteLossError, match="at step 2 of epoch 0"):
        trainer(callbacks=[Poison()]).fit(model, data)


@pytest.mark.parametrize("stage", ["val", "test"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_no_numbers_are_not_measured(stage: str, value: float) -> None:
    data = prepared()
    model = built(data)

    class Dead(pl.Callback):
        """Spoils the bias of the network's last layer, after training."""

        def spoil(self, trainer: pl.Trainer, module: Any) -> None:
            with torch.no_grad():
                list(module.network.parameters())[-1][0] = value

        on_validation_start = on_test_start = spoil

    judge = trainer(callbacks=[Dead()])
    with pytest.raises(NonFiniteOutputError, match=rf"for \d+ of \d+ {stage} images are NaN or infinite"):
        (judge.validate if stage == "val" else judge.test)(model, data, verbose=False)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_a_class_weighted_loss_is_that_of_the_whole_split_whatever_the_batch_size(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "darkroom.datamodules.base.EVALUATED_VALUES", 1
    )  # else batches of 256 images at least
    values = []
    for batch_size in (7, 16, 64):
        data = prepared(batch_size=batch_size)
        # As unequal as can be told apart: the classes' weights differ by a factor of twenty.
        model = built(data, loss=loss, class_weights="balanced")
        model.criterion.weigh_classes([4, 40, 80], 124)
        [metrics] = trainer().test(model, data, verbose=False)
        values.append(metrics["test/loss"])
        judged = model.predictions["test"]
        weights = np.array([124 / (3 * count) for count in (4, 40, 80)])[judged.targets.numpy()]
        costs = -judged.probabilities.double().gather(1, judged.targets[:, None]).log()[:, 0].numpy()
        if loss == "focal":
            costs *= (1 - np.exp(-costs)) ** 2
            # Its sum is divided by the weights of the targets too.
        assert values[-1] == pytest.approx((weights * costs).sum() / weights.sum(), rel=1e-5)
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_images_of_a_class_without_training_images_count_by_0_also_where_they_are_a_whole_batch(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.datamodules.base.EVALUATED_VALUES", 1)  # batches of one image
    data = prepared(batch_size=1)
    model = built(data, loss=loss, class_weights="balanced")
    model.criterion.weigh_classes([40, 80, 0], 120)
    [metrics] = trainer().test(model, data, verbose=False)
    judged = model.predictions["test"]
    weights = np.array([1.0, 0.5, 0.0])[judged.targets.numpy()]
    assert (weights == 0).any()
    costs = -judged.probabilities.double().gather(1, judged.targets[:, None]).log()[:, 0].numpy()
    if loss == "focal":
        costs *= (1 - np.exp(-costs)) ** 2
    assert metrics["test/loss"] == pytest.approx((weights * costs).sum() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_a_loss_that_is_no_number_is_refused_though_the_outputs_are_finite(stage: str) -> None:
    data = prepared()
    model = built(data)

    class Huge(pl.Callback):
        def far(self, trainer: pl.Trainer, module: Any) -> None:
            with torch.no_grad():
                bias = list(module.network.parameters())[-1]
                bias[0], bias[1] = 3e38, -3e38  # finite, and further apart than float32 goes

        on_validation_start = on_test_start = far

    judge = trainer(callbacks=[Huge()])
    with pytest.raises(NonFiniteOutputError, match=f"the loss of the {stage} images is inf"):
        (judge.validate if stage == "val" else judge.test)(model, data, verbose=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone", "resnet18x"),
        ("optimizer", "adamm"),
        ("lr", 0.0),
        ("lr", -1e-3),
        ("lr", math.inf),
        ("lr", math.nan),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("l1", -1.0),
        ("l2", math.inf),
        ("warmup_epochs", -1),
    ],
)
def test_an_argument_out_of_range_is_refused_by_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^model\.{key}\b.*{value}"):
        ImageClassifier(**{key: value})


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes, the data has 1"):
        ImageClassifier().build(1, IMAGE_SHAPE)


def test_every_argument_is_documented() -> None:
    documented = inspect.getdoc(ImageClassifier) or ""
    for name in inspect.signature(ImageClassifier).parameters:
        assert f"\n    {name}: " in documented


def test_a_checkpoint_loads_safely_and_gives_the_same_logits(tmp_path: Path) -> None:
    data = prepared()
    model = built(data, class_weights="balanced", dropout=0.2, schedule="cosine")
    fitted = trainer()
    fitted.fit(model, data)
    fitted.save_checkpoint(tmp_path / "model.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    images = data.preprocess(data.splits["test"].images)
    assert torch.equal(loaded.eval()(images), model.eval()(images))
    assert loaded.hparams == model.hparams
    assert (loaded.num_classes, loaded.image_shape) == (3, IMAGE_SHAPE)


def test_the_state_is_the_networks_alone() -> None:
    data = prepared()
    model = built(data, class_weights="balanced")
    assert model.criterion.class_weights is not None
    assert set(model.state_dict()) == {f"network.{name}" for name in model.network.state_dict()}
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())


def test_class_weights_are_used_only_when_asked_for() -> None:
    assert built(prepared()).criterion.class_weights is None


def test_the_predictor_maps_bytes_to_probabilities() -> None:
    for num_classes in (2, 3):
        data = prepared(num_classes)
        model = built(data).eval()
        images = data.splits["test"].images
        probabilities = Predictor(data.preprocess, model.network)(images).detach().numpy()
        pixels = images.numpy() / np.float32(255)
        facts = data.facts()
        normalised = torch.from_numpy((pixels - facts["pixel_mean"][0]) / facts["pixel_std"][0]).float()
        logits = model.network(normalised).detach().double().numpy()
        if num_classes == 2:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert images.dtype == torch.uint8
        assert probabilities.shape == (60, num_classes)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
