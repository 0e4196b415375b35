"""LoRA adds what its authors say to the layers that are named, and trains that and the head alone."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.classifiers import moved, train
from torch import nn

from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.backbones.factory import build_network
from darkroom.lightning_modules.backbones.lora import adapter_parameters, add_adapters
from darkroom.lightning_modules.optimization.finetuning import FineTuning, head_parameters
from darkroom.lightning_modules.optimization.optimizers import build_optimizer

pytestmark = pytest.mark.extra("peft")
SHAPE = (3, 32, 32)
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
RANK, ALPHA = 4, 12


def network(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, options, num_outputs=3, image_shape=SHAPE)


def adapted(name: str, targets: tuple[str, ...] | None = None, **options: Any) -> tuple[nn.Module, list[str]]:
    """The network with adapters, none of them zero any more, and the names of its adapted layers."""
    module = network(name, **options)
    add_adapters(module, SHAPE, RANK, ALPHA, targets)
    names = adapter_parameters(module)
    for parameter in map(module.get_parameter, names):
        nn.init.normal_(parameter, std=0.05)
    return module.eval(), sorted({each.partition(".lora_")[0] for each in names})


def product(layer: nn.Module) -> torch.Tensor:
    """B A alpha / rank, as a weight of the adapted layer."""
    low, high = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    if low.ndim == 2:
        return ALPHA / RANK * high @ low
    return ALPHA / RANK * torch.einsum("or,rikl->oikl", high[:, :, 0, 0], low)


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("vit_tiny_patch16_224", VIT, {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}),
        ("resnet10t", {}, {"conv1.0", "conv1", "conv2"}),
        ("cifar_resnet", {"depth": 8}, {"conv1", "conv2"}),
        ("convnext_atto", {}, {"mlp.fc1", "mlp.fc2"}),
        ("mobilenetv3_small_050", {}, {"conv_pw", "conv_pwl", "se.conv_reduce", "conv_head"}),
    ],
)
def test_an_adapted_network_is_the_plain_one_with_products_of_low_rank_added_to_its_weights(
    name, options, layers
):
    module, names = adapted(name, **options)
    assert all(any(each.endswith(f".{end}") or each == end for each in names) for end in layers)
    plain = network(name, **options).eval()
    images = torch.randn(2, *SHAPE)
    assert not torch.allclose(plain(images), module(images), atol=1e-3)
    with torch.no_grad():
        for each in names:
            delta = product(module.get_submodule(each))
            assert torch.linalg.matrix_rank(delta.flatten(1)) <= RANK * delta[0, 0].numel()
            plain.get_submodule(each).weight += delta
    torch.testing.assert_close(module(images), plain(images), rtol=1e-4, atol=1e-4)


def test_it_starts_as_the_network_that_it_is_put_into():
    images = torch.randn(2, *SHAPE)
    plain, module = network("vit_tiny_patch16_224", **VIT), network("vit_tiny_patch16_224", **VIT)
    FineTuning("lora").adapt(module, SHAPE)
    assert torch.equal(module.eval()(images), plain.eval()(images))


def test_targets_are_the_ends_of_names():
    assert adapted("vit_tiny_patch16_224", ("attn.proj", "fc2"), **VIT)[1] == [
        "blocks.0.attn.proj",
        "blocks.0.mlp.fc2",
        "blocks.1.attn.proj",
        "blocks.1.mlp.fc2",
    ]
    assert adapted("vit_tiny_patch16_224", ("patch_embed.proj",), **VIT)[1] == ["patch_embed.proj"]


def test_no_layer_is_adapted_that_only_lends_its_weights_or_pads_in_its_own_way():
    _, names = adapted("beit_base_patch16_224", **{**VIT, "img_size": 32})
    assert "blocks.0.attn.proj" in names
    assert not any(each.endswith("qkv") for each in names)
    module, names = adapted("tf_efficientnet_lite0")
    assert "blocks.1.0.conv_pw" in names
    assert type(module.conv_stem).__name__ == "Conv2dSame"


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "small_cnn"])
def test_adapters_and_head_are_trained_and_nothing_else_moves(backbone):
    before, after, model = train(3, backbone, strategy="lora", lora_rank=2)
    head, added = head_parameters(model.network), adapter_parameters(model.network)
    assert moved(before, after) == head | added
    assert any(".lora_B." in name for name in added)
    assert sum(after[name].numel() for name in head | added) < 0.3 * model.num_parameters()


def test_rates_fall_from_layer_to_layer_for_adapters_too():
    module = network("vit_tiny_patch16_224", **VIT)
    tuning = FineTuning("lora", layer_decay=0.5)
    tuning.adapt(module, SHAPE)
    optimizer = build_optimizer(module, "adamw", 1.0, 0.1, {}, tuning)
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    by_name = {name: rates[id(each)] for name, each in module.named_parameters() if id(each) in rates}
    assert by_name.keys() == head_parameters(module) | adapter_parameters(module)
    first, second = (by_name[f"blocks.{block}.mlp.fc1.lora_A.default.weight"] for block in (0, 1))
    assert (first, second) == (0.5 * second, 0.5 * by_name["head.weight"])


def test_a_checkpoint_loads_into_the_same_construction(tmp_path):
    _, _, model = train(1, "vit_tiny_patch16_224", strategy="lora", lora_targets=("qkv", "proj"))
    model.trainer.save_checkpoint(tmp_path / "lora.ckpt")
    again = ImageClassifier.load_from_checkpoint(tmp_path / "lora.ckpt", weights_only=True)
    assert again.finetuning == model.finetuning
    images = torch.randn(2, *SHAPE)
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_the_loss_reaches_every_adapter():
    module, names = adapted("vit_tiny_patch16_224", **VIT)
    FineTuning("lora").apply(module, epoch=0)
    F.cross_entropy(module(torch.randn(4, *SHAPE)), torch.arange(4) % 3).backward()
    for name in adapter_parameters(module):
        assert module.get_parameter(name).grad.abs().max() > 0, name
    assert all(module.get_submodule(each).base_layer.weight.grad is None for each in names)


# What can't be done -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "knobs", "said"),
    [
        ("small_cnn", {"lora_targets": ("qkv",)}, r"lora_targets: no layer .* named 'qkv'; .* end in 0"),
        ("resnetv2_50x1_bit", {}, "has no linear layer and no plain convolution below its head"),
    ],
)
def test_a_network_without_such_layers_is_refused(backbone, knobs, said):
    model = ImageClassifier(backbone, finetuning=FineTuning("lora", **knobs))
    with pytest.raises(ValueError, match=said):
        model.build(3, SHAPE)


def test_without_its_library_it_names_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"strategy=lora needs peft, which is not installed"):
        ImageClassifier(finetuning=FineTuning("lora")).build(3, SHAPE)


@pytest.mark.parametrize("knob", ["lora_rank", "lora_alpha"])
def test_a_rank_or_scale_below_one_is_refused(knob):
    with pytest.raises(ValueError, match=f"model.finetuning.{knob} must be at least 1, got 0; a rank of 8"):
        FineTuning("lora", **{knob: 0})


def test_other_strategies_add_nothing():
    module = network("small_cnn")
    FineTuning("norm_and_bias").adapt(module, SHAPE)
    assert module.state_dict().keys() == network("small_cnn").state_dict().keys()
