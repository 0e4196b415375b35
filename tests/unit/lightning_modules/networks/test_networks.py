"""Our own networks: parameter counts of the articles, paddings, and what too small images get."""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darkroom.lightning_modules.networks import NETWORKS
from darkroom.lightning_modules.networks.article_cnn import ArticleCNN
from darkroom.lightning_modules.networks.dense import Dense
from darkroom.lightning_modules.networks.layers import normalization_layer
from darkroom.lightning_modules.networks.lenet5 import LeNet5
from darkroom.lightning_modules.networks.small_cnn import SmallCNN

GREY = (1, 28, 28)
SMALLEST = {"alexnet": 63}


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_articles_parameter_counts() -> None:
    sizes = [784, 16, 32, 64, 128, 256, 10]
    by_hand = sum(rows * columns + columns for rows, columns in pairwise(sizes))
    dense = Dense(10, GREY, hidden_sizes=(16, 32, 64, 128, 256))
    assert num_parameters(dense) == by_hand == 59_130

    channels = [1, 32, 64, 128, 256]
    by_hand = sum(9 * i * o + o for i, o in pairwise(channels)) + 256 * 10 + 10
    assert num_parameters(ArticleCNN(10, GREY)) == by_hand == 390_410

    by_hand = (25 * 6 + 6) + (25 * 6 * 16 + 16) + (25 * 16 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert num_parameters(LeNet5(10, GREY)) == by_hand == 61_706


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_parameters_of_he_et_al_2015_table_6(depth: int, millions: float) -> None:
    network = NETWORKS["cifar_resnet"](10, (3, 32, 32), depth=depth)
    assert num_parameters(network) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(28, 10, 36.5), (40, 4, 8.9), (16, 8, 11.0), (16, 4, 2.7)]
)
def test_wide_resnets_have_the_parameters_of_zagoruyko_and_komodakis_2016(
    depth: int, width: int, millions: float
) -> None:
    network = NETWORKS["wide_resnet"](10, (3, 32, 32), depth=depth, width=width)
    assert num_parameters(network) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("name", "depth"), [("cifar_resnet", 21), ("cifar_resnet", 2), ("wide_resnet", 18)])
def test_residual_networks_refuse_depths_without_whole_blocks(name: str, depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth of {name} must be 6 n \+ ., .* got {depth}"):
        NETWORKS[name](10, (3, 32, 32), depth=depth)


def test_small_cnn_has_the_parameters_of_its_arguments() -> None:
    network = SmallCNN(
        5,
        (3, 16, 16),
        widths=(8, 12),
        convs_per_stage=2,
        kernel_size=5,
        normalization="none",
        dense_units=(20,),
    )
    convolutions = [(3, 8), (8, 8), (8, 12), (12, 12)]
    by_hand = sum(25 * i * o + o for i, o in convolutions) + (12 * 4 * 4 * 20 + 20) + (20 * 5 + 5)
    assert num_parameters(network) == by_hand


# TensorFlow's "SAME": ceil(size / stride) outputs, the odd row of padding right and below ------


def same_convolution(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3, stride 2, as TensorFlow's documentation has it, loop by loop."""
    count, _, height, width = images.shape
    out_height, out_width = -(-height // 2), -(-width // 2)
    pad_height = max((out_height - 1) * 2 + 3 - height, 0)
    pad_width = max((out_width - 1) * 2 + 3 - width, 0)
    rows = (pad_height // 2, pad_height - pad_height // 2)
    columns = (pad_width // 2, pad_width - pad_width // 2)
    padded = np.pad(images, [(0, 0), (0, 0), rows, columns])
    out = np.empty((count, len(weight), out_height, out_width))
    for row in range(out_height):
        for column in range(out_width):
            window = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            out[:, :, row, column] = np.einsum("bcij,ocij->bo", window, weight) + bias
    return out


@pytest.mark.parametrize(
    ("side", "place", "size"),
    [(28, 0, 28), (28, 2, 14), (28, 5, 3), (28, 8, 1), (64, 5, 8), (64, 8, 2)],
)
def test_article_cnn_pads_as_tensorflow_does(side: int, place: int, size: int) -> None:
    torch.manual_seed(0)
    features = ArticleCNN(10, (1, side, side)).double().features
    assert isinstance(features, nn.Sequential)
    assert features[:place](torch.zeros(1, 1, side, side).double()).shape[-2:] == (size, size)
    convolution = features[place]
    images = torch.randn(2, convolution.in_channels, size, size).double()
    expected = same_convolution(
        images.numpy(), convolution.weight.detach().numpy(), convolution.bias.detach().numpy()
    )
    np.testing.assert_allclose(convolution(images).detach().numpy(), expected, atol=1e-9)


def test_article_cnn_pads_one_row_right_and_below_at_even_sizes() -> None:
    convolution = ArticleCNN(10, GREY).features[0]  # type: ignore[index]
    images = torch.rand(1, 1, 28, 28)
    expected = F.conv2d(F.pad(images, (0, 1, 0, 1)), convolution.weight, convolution.bias, stride=2)
    torch.testing.assert_close(convolution(images), expected)


# LeNet-5 ----------------------------------------------------------------------------------------


def test_lenet5_centres_28_pixels_in_32() -> None:
    torch.manual_seed(0)
    small, large = LeNet5(10, GREY), LeNet5(10, (1, 32, 32))
    large.load_state_dict(small.state_dict())
    images = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(small(images), large(F.pad(images, (2, 2, 2, 2))))


# Any of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_outputs", [1, 10])
def test_colour_images_of_any_shape_give_one_row_of_logits_each(name: str, num_outputs: int) -> None:
    height = SMALLEST.get(name, 28)
    network = NETWORKS[name](num_outputs, (3, height, height + 8))
    assert network(torch.rand(4, 3, height, height + 8)).shape == (4, num_outputs)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("small_cnn", (1, 7, 7)), ("small_cnn", (1, 28, 4)), ("article_cnn", (1, 4, 4)), ("lenet5", (1, 8, 8))],
)
def test_too_small_images_are_refused_with_the_way_out(name: str, shape: tuple[int, int, int]) -> None:
    said = rf"images of {'x'.join(map(str, shape))} are too small .* larger data\.image_size"
    with pytest.raises(ValueError, match=rf"(?s){said}"):
        NETWORKS[name](10, shape)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": ()}, "at least one stage"),
        ({"convs_per_stage": 0}, "at least one stage of one convolution"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
    ],
)
def test_small_cnn_refuses_what_makes_no_network(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SmallCNN(10, GREY, **options)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"])
def test_activations_are_torchs_functions(activation: str) -> None:
    function = getattr(F, activation, None) or getattr(torch, activation)
    network = Dense(3, (1, 2, 2), hidden_sizes=(5,), activation=activation)  # type: ignore[arg-type]
    hidden = network.features[1]  # type: ignore[index]
    images = torch.randn(6, 1, 2, 2)
    expected = network.head(function(F.linear(images.flatten(1), hidden.weight, hidden.bias)))
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(
    ("option", "value", "layer"),
    [
        ("normalization", "batch", nn.BatchNorm2d),
        ("normalization", "group", nn.GroupNorm),
        ("normalization", "layer", nn.GroupNorm),
        ("pooling", "max", nn.MaxPool2d),
        ("pooling", "avg", nn.AvgPool2d),
        ("global_pooling", True, nn.AdaptiveAvgPool2d),
    ],
)
def test_small_cnns_options_choose_their_layers(option: str, value: Any, layer: type[nn.Module]) -> None:
    network = SmallCNN(3, (1, 16, 16), widths=(8, 16), **{option: value})
    assert any(isinstance(module, layer) for module in network.modules())
    assert network(torch.rand(2, 1, 16, 16)).shape == (2, 3)


def test_layer_normalisation_has_mean_zero_over_each_whole_image() -> None:
    normalize = normalization_layer("layer", 8)
    assert normalize is not None
    maps = normalize(torch.rand(4, 8, 6, 6))
    torch.testing.assert_close(maps.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.std((1, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_a_normalised_convolution_has_no_bias() -> None:
    with_norm, without = (SmallCNN(3, GREY, normalization=name) for name in ("batch", "none"))  # type: ignore[arg-type]
    assert all(layer.bias is None for layer in with_norm.features if isinstance(layer, nn.Conv2d))  # type: ignore[union-attr]
    assert all(layer.bias is not None for layer in without.features if isinstance(layer, nn.Conv2d))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_drops_features_before_the_head_in_training_alone(name: str) -> None:
    side = SMALLEST.get(name, 28)
    network = NETWORKS[name](4, (1, side, side), 0.6)
    features = torch.ones(2000, network.head.in_features)  # type: ignore[arg-type]
    dropped = network.dropout(features)
    assert dropped.eq(0).float().mean().item() == pytest.approx(0.6, abs=0.02)
    images = torch.rand(2, 1, side, side)
    network.eval()
    torch.testing.assert_close(network(images), network.head(network.features(images)))
    assert network.get_classifier() is network.head


def test_building_leaves_the_layers_in_training_and_their_statistics_untouched() -> None:
    network = SmallCNN(3, GREY)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training and norm.num_batches_tracked == 0 for norm in norms)


def test_all_share_their_first_arguments() -> None:
    for constructor in NETWORKS.values():
        assert list(inspect.signature(constructor).parameters)[:3] == [
            "num_outputs",
            "image_shape",
            "dropout",
        ]
