"""What is frozen stays bit for bit, costs no gradient, and is trained from the epoch it is said to be."""

from __future__ import annotations

import pytest
import timm
import torch
from support.classifiers import moved, train
from torch import nn

from darkroom.lightning_modules import ImageClassifier
from darkroom.lightning_modules.backbones.factory import build_network
from darkroom.lightning_modules.optimization.finetuning import FineTuning, head_parameters, layers
from darkroom.lightning_modules.optimization.optimizers import build_optimizer

SHAPE = (3, 32, 32)


def network(name: str) -> nn.Module:
    return build_network(name, {}, num_outputs=3, image_shape=SHAPE)


@pytest.mark.parametrize("backbone", ["resnet10t", "small_cnn"])
def test_a_linear_probe_moves_the_head_alone_and_no_statistics_of_batch_norms(backbone):
    before, after, model = train(2, backbone, strategy="linear_probe")
    assert any(name.endswith("running_mean") for name in before)
    assert moved(before, after) == head_parameters(model.network)


def test_batch_norms_may_keep_their_statistics_while_their_weights_learn():
    before, after, model = train(2, strategy="full", keep_statistics=True)
    statistics = {name for name, _ in model.network.named_buffers()}
    assert len(statistics) > 3
    assert not moved(before, after) & statistics
    assert {"conv1.0.weight", "bn1.weight", "fc.weight"} <= moved(before, after)
    before, after, _ = train(1, strategy="full")
    assert statistics <= moved(before, after)


def test_nothing_of_a_frozen_trunk_is_kept_for_a_backward_pass():
    probed = network("resnet10t")
    FineTuning("linear_probe").apply(probed, epoch=0)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda _: None):
        probed(torch.zeros(2, *SHAPE))
    assert all(len(shape) <= 2 for shape in kept)  # features and head, no maps


@pytest.mark.parametrize(
    ("strategy", "epoch", "draws"),
    [
        ("linear_probe", 0, {"head_drop"}),
        ("linear_then_full", 0, {"head_drop"}),
        ("linear_then_full", 1, {"pos_drop", "patch_drop", "blocks.0.mlp.drop1", "blocks.1.mlp.drop1"}),
        ("gradual", 0, {"head_drop"}),
        ("gradual", 1, {"blocks.1.mlp.drop1"}),
        ("norm_and_bias", 0, {"pos_drop", "patch_drop", "blocks.0.mlp.drop1", "blocks.1.mlp.drop1"}),
    ],
)
def test_no_dropout_is_drawn_in_a_frozen_trunk(strategy, epoch, draws):
    rates = {"drop_rate": 0.1, "pos_drop_rate": 0.1, "patch_drop_rate": 0.1, "proj_drop_rate": 0.1}
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, img_size=32, depth=2, weight_init="skip", **rates
    )
    FineTuning(strategy).apply(vit, epoch)
    places = ("pos_drop", "patch_drop", "blocks.0.mlp.drop1", "blocks.1.mlp.drop1", "head_drop")
    assert {place for place in places if vit.get_submodule(place).training} == draws | {"head_drop"}


@pytest.mark.parametrize(
    "strategy",
    ["norm_and_bias", pytest.param("lora", marks=pytest.mark.extra("peft")), "linear_probe"],
)
def test_dropout_of_layers_that_train_is_drawn(strategy):
    vit = build_network(
        "vit_tiny_patch16_224", {"depth": 1, "attn_drop_rate": 0.1}, num_outputs=3, image_shape=SHAPE
    )
    tuning = FineTuning(strategy)
    tuning.adapt(vit, SHAPE)
    tuning.apply(vit, epoch=0)
    assert vit.get_submodule("blocks.0.attn.attn_drop").training == (strategy != "linear_probe")


def test_the_head_comes_first_and_then_everything():
    before, after, model = train(1, strategy="linear_then_full", head_epochs=1)
    assert moved(before, after) == head_parameters(model.network)
    before, after, model = train(2, strategy="linear_then_full", head_epochs=1)
    assert {name for name, _ in model.network.named_parameters()} <= moved(before, after)


def test_stages_are_unfrozen_one_after_the_other_from_the_last():
    _, _, model = train(1, strategy="gradual", unfreeze_every=2)
    resnet, tuning = model.network, FineTuning("gradual", unfreeze_every=2)
    stages = [
        {name.partition(".")[0] for name in tuning.trained(resnet, epoch)} for epoch in (0, 1, 2, 4, 6, 8, 99)
    ]
    rest = {"fc", "layer4", "layer3", "layer2", "layer1"}
    expected = [{"fc"}, {"fc"}, {"fc", "layer4"}, {"fc", "layer4", "layer3"}, rest - {"layer1"}, rest]
    assert stages[:6] == expected
    assert stages[6] == {name.partition(".")[0] for name, _ in resnet.named_parameters()}
    before, after, _ = train(3, strategy="gradual", unfreeze_every=2)
    assert {name.partition(".")[0] for name in moved(before, after)} == {"fc", "layer4"}


@pytest.mark.parametrize("backbone", ["resnet10t", "vit_tiny_patch16_224"])
def test_norms_and_biases_are_trained_and_no_kernel_but_the_heads(backbone):
    tuned = network(backbone)
    trained = FineTuning("norm_and_bias").trained(tuned, epoch=0)
    for name, parameter in tuned.named_parameters():
        module = tuned.get_submodule(name.rpartition(".")[0])
        small = name.endswith("bias") or isinstance(module, nn.LayerNorm | nn.BatchNorm2d)
        assert (name in trained) == (small or name in head_parameters(tuned)), name
        if name in trained and name not in head_parameters(tuned):
            assert parameter.ndim == 1


@pytest.mark.parametrize(
    ("backbone", "learns"),
    [
        ("resmlp_12_224", {"blocks.0.norm1.alpha", "norm.beta"}),
        ("mobilenetv5_300m", {"conv_stem.bn.weight", "blocks.0.0.bn1.weight", "msfa.norm.weight"}),
        ("convnextv2_atto", {"stages.0.blocks.0.mlp.grn.weight"}),
        ("regnetz_c16_evos", {"stem.bn.v", "stem.bn.weight"}),
    ],
)
def test_norms_of_all_kinds_are_trained(backbone, learns):
    with torch.device("meta"):
        tuned = timm.create_model(backbone, num_classes=3)
    assert learns <= FineTuning("norm_and_bias").trained(tuned, epoch=0)


@pytest.mark.parametrize("backbone", ["resnet10t", "vit_tiny_patch16_224"])
def test_layers_learn_at_timms_rates(backbone):
    tuned = network(backbone)
    optimizer = build_optimizer(tuned, "adamw", 0.5, 0.1, {}, FineTuning(layer_decay=0.5))
    ours = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    exempt = tuned.no_weight_decay() if hasattr(tuned, "no_weight_decay") else ()
    theirs = timm.optim.param_groups_layer_decay(tuned, 0.1, exempt, layer_decay=0.5)
    assert sum(len(group["params"]) for group in theirs) == len(ours)
    for group in theirs:
        for parameter in group["params"]:
            assert ours[id(parameter)] == pytest.approx((0.5 * group["lr_scale"], group["weight_decay"]))


def test_the_head_learns_faster_by_its_factor():
    tuned = network("small_cnn")
    optimizer = build_optimizer(tuned, "sgd", 0.1, 0.0, {}, FineTuning(head_lr_factor=10))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in tuned.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1.0 if name in head_parameters(tuned) else 0.1)


def test_layers_of_ours_are_as_deep_as_they_stand():
    depths = layers(build_network("cifar_resnet", {}, num_outputs=3, image_shape=SHAPE), coarse=True)
    assert depths["features.conv1.weight"] < depths["features.layer1.0.conv1.weight"]
    assert depths["features.layer3.2.bn2.bias"] < depths["head.weight"] == max(depths.values())


POOLFORMER = "poolformer_s12"  # says nothing of its layers


@pytest.mark.parametrize("strategy", ["linear_probe", "linear_then_full", "norm_and_bias"])
def test_a_network_without_layers_is_tuned_where_none_are_needed(strategy):
    tuned = network(POOLFORMER)
    tuning = FineTuning(strategy, head_lr_factor=10)
    tuning.apply(tuned, epoch=0)
    optimizer = build_optimizer(tuned, "sgd", 0.1, 0.0, {}, tuning)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    names = tuning.trained(tuned, epoch=9)
    assert len(rates) == len(names)
    for name in names:
        rate = rates[id(tuned.get_parameter(name))]
        assert rate == pytest.approx(1.0 if name in head_parameters(tuned) else 0.1)


@pytest.mark.parametrize(
    ("backbone", "knobs", "said"),
    [
        (POOLFORMER, {"layer_decay": 0.5}, "MetaFormer does not say which layers it has"),
        (POOLFORMER, {"strategy": "gradual"}, "MetaFormer does not say which stages it has"),
        ("rdnet_tiny", {"strategy": "gradual"}, "RDNet does not say which stages it has"),
    ],
)
def test_layers_that_a_network_does_not_name_are_refused_where_they_are_needed(backbone, knobs, said):
    with torch.device("meta"):
        tuned = timm.create_model(backbone, num_classes=3)
    with pytest.raises(ValueError, match=said):
        build_optimizer(tuned, "sgd", 0.1, 0.0, {}, FineTuning(**knobs))


def test_a_checkpoint_holds_it_as_plain_values(tmp_path):
    _, _, model = train(1, strategy="linear_probe", head_lr_factor=2.0)
    model.trainer.save_checkpoint(tmp_path / "probe.ckpt")
    torch.load(tmp_path / "probe.ckpt", weights_only=True)
    again = ImageClassifier.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True)
    assert again.finetuning == FineTuning("linear_probe", head_lr_factor=2.0)
    assert torch.equal(next(again.network.parameters()), next(model.network.parameters()))


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"head_epochs": 0}, "head_epochs must be at least 1"),
        ({"unfreeze_every": 0}, "unfreeze_every must be at least 1"),
        ({"head_lr_factor": 0.0}, "head_lr_factor must be positive"),
        ({"layer_decay": 1.5}, r"layer_decay must lie in \(0, 1\]"),
    ],
)
def test_what_makes_no_sense_is_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        FineTuning(**knobs)
