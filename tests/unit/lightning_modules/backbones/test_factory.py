"""Backbones by name: ours and timm's behind one function."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.backbones.factory import (
    backbone_names,
    backbone_options,
    build_network,
    is_backbone,
    pretrained_view,
    unseen,
)
from darkroom.lightning_modules.backbones.weight_loading import load_weights
from darkroom.lightning_modules.networks import NETWORKS

VIT = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet18", {}, (1, 28, 28)),
        ("resnet18", {}, (3, 40, 24)),
        (VIT, {"depth": 1}, (3, 32, 32)),
        (VIT, {"depth": 1, "patch_size": 4}, (1, 28, 28)),
        ("small_cnn", {"widths": [4, 8]}, (3, 16, 16)),
        ("dense", {"hidden_sizes": [8]}, (1, 8, 8)),
    ],
)
def test_any_backbone_maps_images_to_logits(
    name: str, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    network = build_network(name, options, num_outputs=7, image_shape=shape)
    assert network.training
    network.eval()
    images = torch.rand(2, *shape)
    assert network(images).shape == (2, 7)
    # An image's logits are its own: the batch's other images do not enter.
    torch.testing.assert_close(network(images)[1:], network(images[1:]), atol=1e-4, rtol=1e-4)


def test_building_a_timm_backbone_leaves_its_norms_untouched() -> None:
    network = build_network("resnet18", {}, num_outputs=3, image_shape=(1, 32, 32))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training and norm.num_batches_tracked == 0 for norm in norms)


def test_dropout_reaches_a_timm_backbones_head() -> None:
    network = build_network("resnet18", {}, num_outputs=3, image_shape=(1, 32, 32), dropout=0.4)
    assert network.drop_rate == 0.4


def test_options_reach_the_networks_constructor() -> None:
    network = build_network("dense", {"hidden_sizes": [5, 6]}, num_outputs=2, image_shape=(1, 4, 4))
    shapes = [tuple(parameter.shape) for parameter in network.parameters() if parameter.ndim == 2]
    assert shapes == [(5, 16), (6, 5), (2, 6)]


@pytest.mark.parametrize("name", [*NETWORKS, "resnet18", VIT])
def test_unknown_options_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.backbone={name} .*widhts"):
        build_network(name, {"widhts": 3}, num_outputs=3, image_shape=(1, 28, 28))


@pytest.mark.parametrize("name", [VIT, "inception_v3", "small_cnn"])
def test_images_too_small_for_a_backbone_are_refused_before_training(name: str) -> None:
    with pytest.raises(ValueError, match="images of 1x6x6"):
        build_network(name, {}, num_outputs=3, image_shape=(1, 6, 6))


def test_names_are_known_before_anything_is_built() -> None:
    assert backbone_names()[: len(NETWORKS)] == tuple(NETWORKS)
    assert all(is_backbone(name) for name in ("small_cnn", "resnet18", "resnet18.a1_in1k", VIT))
    assert not is_backbone("resnet18x")
    assert {"resnet18", VIT} <= set(backbone_names())


def test_our_networks_state_their_options() -> None:
    assert backbone_options("dense") == {"hidden_sizes", "activation"}
    assert backbone_options("article_cnn") == set()
    assert backbone_options("resnet18") is None


@pytest.mark.parametrize(
    ("name", "options"), [("article_cnn", {}), ("dense", {}), ("small_cnn", {"normalization": "none"})]
)
def test_glorot_uniform_fills_its_bounds_and_zeroes_biases(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build_network(
        name, options, num_outputs=10, image_shape=(1, 28, 28), initialization="glorot_uniform"
    )
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 3
    for layer in layers:
        area = layer.weight[0, 0].numel()  # of the kernel; 1 of a matrix
        fan_out, fan_in = layer.weight.shape[0] * area, layer.weight.shape[1] * area
        bound = math.sqrt(6 / (fan_in + fan_out))  # Glorot and Bengio 2010, equation 16
        assert layer.weight.abs().max().item() <= bound
        assert layer.weight.abs().max().item() > 0.95 * bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert layer.bias is not None
        assert layer.bias.eq(0).all()


def test_the_default_initialisation_is_torchs() -> None:
    torch.manual_seed(0)
    network = build_network("dense", {"hidden_sizes": []}, num_outputs=3, image_shape=(1, 4, 4))
    torch.manual_seed(0)
    assert torch.equal(network.head.weight, nn.Linear(16, 3).weight)  # type: ignore[union-attr]


FAMILIES = {  # with the images that each is tried on
    "resnet18": (5, 32, 32),
    "vgg16": (3, 32, 32),
    "vgg19": (1, 32, 32),
    "inception_v3": (3, 75, 75),
    "inception_v4": (1, 75, 75),
    "densenet121": (3, 32, 32),
    "mobilenetv3_small_100": (1, 32, 32),
    "efficientnet_b0": (3, 32, 40),
    "tf_efficientnet_lite0": (5, 32, 32),
    "convnext_atto": (1, 32, 32),
    "vit_tiny_patch16_224": (3, 32, 48),
    "alexnet": (3, 63, 63),
    "googlenet": (1, 32, 32),
    "lenet5": (3, 32, 32),
    "cifar_resnet": (5, 32, 32),
    "wide_resnet": (1, 32, 32),
}


@pytest.mark.parametrize(("name", "shape"), FAMILIES.items())
def test_each_family_trains_on_small_images_of_any_channels(name: str, shape: tuple[int, int, int]) -> None:
    network = build_network(name, {}, num_outputs=3, image_shape=shape)
    logits = network(torch.randn(2, *shape))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_torchvisions_weights_give_torchvisions_logits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"init_weights": True} if name == "googlenet" else {}
    theirs = getattr(models, name)(weights=None, num_classes=5, **options)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = build_network(name, {}, num_outputs=5, image_shape=(3, 96, 96))
    load_weights(ours, tmp_path / "weights.pth", 3)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_pixels_that_fill_no_patch_are_not_left_out_in_silence() -> None:
    with pytest.raises(ValueError, match=r"patches of 16x16 .* 40x40 .*data\.image_size=(32|48) fits"):
        build_network(VIT, {"depth": 1}, num_outputs=3, image_shape=(3, 40, 40))


def test_patches_that_overlap_leave_out_what_no_place_of_the_kernel_reaches() -> None:
    for side in range(7, 40):
        kernel = nn.Conv2d(1, 1, 7, stride=5, padding=1)
        image = torch.rand(1, 1, side, side, requires_grad=True)
        kernel(image).sum().backward()
        assert image.grad is not None
        assert unseen(side, 7, 5, 1) == int((image.grad[0, 0] == 0).all(dim=0).sum())
    build_network("pvt_v2_b0", {}, num_outputs=3, image_shape=(3, 64, 64))  # kernels of 7 pixels, 4 apart
    build_network("volo_d1_224", {}, num_outputs=3, image_shape=(3, 34, 34))  # cuts what a stem has made
    with pytest.raises(ValueError, match=r"patches of 16x16 .* 60x60 .*data\.image_size=(56|64) fits"):
        build_network("pit_ti_224", {}, num_outputs=3, image_shape=(3, 60, 60))  # 8 apart


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "resnet10t",
            {"act_layer": "foo"},
            "can't build model.backbone=resnet10t .*act_layer.*KeyError: 'foo'",
        ),
        ("resnet10t", {"features_only": True}, "logits of 1x3 for an image, and gives list"),
        ("resnet10t", {"num_classes": 5}, "can't build .*num_classes"),
        (VIT, {"patch_size": 0}, "can't build .*patch_size.*zero"),
        (VIT, {"global_pool": ""}, "logits of 1x3 for an image, and gives 1x5x3"),
    ],
)
def test_options_that_give_no_classifier_are_refused_with_a_reason(
    name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        build_network(name, options, num_outputs=3, image_shape=(3, 32, 32))


@pytest.mark.parametrize("name", ["resnet10t.foo", "resnet10t."])
def test_weights_that_timm_does_not_have_are_refused_by_their_tag(name: str) -> None:
    for ask in (pretrained_view, ImageClassifier):
        with pytest.raises(ValueError, match=r"resnet10t has no weights .*tags are c3_in1k"):
            ask(name)


def test_a_network_of_our_own_is_pretrained_nowhere() -> None:
    with pytest.raises(
        ValueError, match=r"model\.pretrained: no hub has weights of alexnet; model\.weights=FILE"
    ):
        ImageClassifier("alexnet", pretrained=True)
