"""A linear probe on kept features comes to the same as one that computes them each time."""

from __future__ import annotations

import copy

import pytest
import torch

from darkroom.experiments.config.experiment import parse_experiment
from darkroom.experiments.training import feature_cache
from darkroom.experiments.training.callbacks.epoch_end import EpochRecorder
from darkroom.experiments.training.run import fit
from darkroom.experiments.training.setup import prepare
from darkroom.lightning_modules.backbones.factory import build_network
from darkroom.lightning_modules.backbones.head import head_inputs, is_head_of
from darkroom.lightning_modules.optimization.finetuning import FineTuning, head_parameters

RECIPE = """
name: synthetic/probe
data:
  class_path: Synthetic
  init_args: {num_images: 96, image_size: 32, batch_size: 16, val_fraction: 0.25}
model:
  class_path: ImageClassifier
  init_args: {backbone: resnet10t, finetuning: {strategy: linear_probe}, optimizer: sgd, lr: 0.1}
trainer: {max_epochs: 4, accelerator: cpu, progress: false}
mlflow: {enabled: false}
"""
LONG = {"model.finetuning.cache_features": "false"}


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Trains in float64; gives the experiment, and how many images went through the trunk meanwhile."""

    def probe(name="probe", epochs=4, resumed=False, **keys):
        experiment = parse_experiment([RECIPE], keys)
        if resumed:
            experiment.model.start_from_scratch()
        prepare(experiment)
        network = experiment.model.network.double()
        network.register_forward_pre_hook(lambda module, images: (images[0].double(),))
        seen = []
        stem = next(
            module for module in experiment.model.network.modules() if isinstance(module, torch.nn.Conv2d)
        )
        stem.register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        fit(experiment, EpochRecorder(None, experiment.trainer.monitor), folder, resumed=resumed)
        return experiment, sum(seen)

    return probe


def assert_same(ours, expected):
    """In float64: float32 depends on the processor's kernels and on how many images they take at once."""
    for (name, value), other in zip(
        ours.model.network.state_dict().items(), expected.model.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize(
    ("backbone", "dropout"),
    [
        ("resnet10t", "0.0"),
        ("resnet10t", "0.5"),
        ("small_cnn", "0.5"),
        ("tf_efficientnet_lite0", "0.3"),
        ("mobilenetv3_small_050", "0.3"),
        ("convnext_atto", "0.3"),
        ("repvit_m0_9", "0.0"),
        ("dla46_c", "0.3"),  # whose head is a convolution
    ],
)
def test_the_result_is_that_of_the_long_way_and_each_image_is_seen_once(probe, backbone, dropout):
    keys = {"model.backbone": backbone, "model.dropout": dropout}
    short, seen = probe("short", **keys)
    long, seen_long = probe("long", **keys, **LONG)
    assert_same(short, long)
    head = head_parameters(long.model.network)
    assert any(long.model.network.get_parameter(name).abs().sum() > 0 for name in head)
    images = sum(len(long.data.splits[split]) for split in ("train", "val"))
    assert seen_long == 4 * images
    assert images < seen <= images + 2 * len(long.data.splits["train"])  # the first batch is asked twice more


@pytest.mark.parametrize(("backbone", "image_size"), [("crossvit_9_240", 240), ("efficientvim_m1", 64)])
def test_heads_of_several_features_are_trained_on_images(probe, backbone, image_size):
    keys = {"model.backbone": backbone, "data.image_size": str(image_size), "data.num_images": "24"}
    experiment, seen = probe(**keys, **{"trainer.max_epochs": "1"})
    assert seen > sum(len(experiment.data.splits[split]) for split in ("train", "val"))


def test_averages_measure_a_heads_batch_norms_on_images(probe):
    keys = {"model.backbone": "repvit_m0_9", "trainer.averaging.method": "swa", "trainer.max_epochs": "2"}
    short, _ = probe("short", **keys)
    long, _ = probe("long", **keys, **LONG)
    assert_same(short, long)


@pytest.mark.parametrize("backbone", ["resnet10t", "repvit_m0_9"])
def test_a_resumed_probe_ends_as_one_that_never_stopped(probe, backbone):
    keys = {"model.backbone": backbone}
    whole, _ = probe("whole", **keys)
    probe("stopped", **keys, **{"trainer.max_epochs": "2"})
    resumed, seen = probe("stopped", resumed=True, **keys)
    assert_same(resumed, whole)
    assert seen > 0


def test_asking_whether_features_will_do_leaves_a_heads_batch_norms_as_they_were():
    options = {"embed_dim": (8, 8, 8, 8), "depth": (1, 1, 1, 1)}
    network = build_network("repvit_m0_9", options, num_outputs=3, image_shape=(3, 32, 32))
    images = torch.randn(4, 3, 32, 32)
    feature_cache = head_inputs(network, images)
    FineTuning("linear_probe").apply(network, epoch=0)
    before = copy.deepcopy(network.state_dict())
    assert is_head_of(network, images, feature_cache, dropout=0.0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    "keys",
    [
        {"data.augmentation.horizontal_flip": "0.5"},
        {"model.mixup": "0.2"},
        {"model.finetuning.strategy": "linear_then_full"},
    ],
)
def test_images_that_change_are_computed_each_time(probe, keys):
    experiment, seen = probe(**keys)
    assert seen == 4 * sum(len(experiment.data.splits[split]) for split in ("train", "val"))


def test_features_that_do_not_fit_into_memory_are_not_kept(probe, monkeypatch):
    short, _ = probe("short")
    monkeypatch.setattr(feature_cache, "MEMORY_SHARE", 0.0)
    long, seen = probe("long")
    assert seen > 4 * len(long.data.splits["train"])
    assert_same(short, long)


@pytest.mark.parametrize("backbone", ["deit_tiny_distilled_patch16_224", "resnet10t"])
def test_logits_are_held_against_the_features_they_should_follow_from(backbone):
    options = {"img_size": 32} if "deit" in backbone else {}
    network = build_network(backbone, options, num_outputs=3, image_shape=(3, 32, 32))
    images = torch.randn(4, 3, 32, 32)
    if backbone == "resnet10t":
        torch.nn.init.normal_(network.fc.weight)
        inputs = head_inputs(network, images)
        assert is_head_of(network, images, inputs, dropout=0.0)
        assert not is_head_of(network, images, inputs + 0.1, dropout=0.0)
    else:
        assert not is_head_of(network, images, head_inputs(network, images), dropout=0.0)
