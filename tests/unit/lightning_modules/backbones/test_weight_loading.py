"""A file's weights give the network that they were taken from, or are refused with what does not match."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from darkroom.lightning_modules.backbones.factory import build_network
from darkroom.lightning_modules.backbones.head import head_names
from darkroom.lightning_modules.backbones.weight_loading import load_weights, read_weights
from darkroom.lightning_modules.optimization.finetuning import head_parameters

OURS = ("small_cnn", {"widths": [4, 8]})
MOBILENET = ("mobilenetv3_small_050", {})  # 1.6 million parameters: the smallest of its kind


def built(
    backbone: tuple[str, dict[str, Any]], num_outputs: int = 4, shape: tuple[int, int, int] = (3, 32, 32)
) -> nn.Module:
    name, options = backbone
    return build_network(name, options, num_outputs=num_outputs, image_shape=shape).eval()


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("backbone", [OURS, MOBILENET], ids=["ours", "timm"])
@pytest.mark.parametrize(
    ("prefix", "wrapper", "suffix"),
    [
        ("", None, ".safetensors"),
        ("module.", None, ".pth"),
        ("model.", "state_dict", ".th"),
        ("module._orig_mod.", "model", ".pt"),
        ("network.", "state_dict_ema", ".ckpt"),
    ],
)
def test_weights_give_the_network_they_came_from(
    backbone: tuple[str, dict[str, Any]], prefix: str, wrapper: str | None, suffix: str, tmp_path: Path
) -> None:
    source, network = built(backbone), built(backbone)
    state: Any = {f"{prefix}{key}": tensor for key, tensor in source.state_dict().items()}
    if prefix == "network.":  # what stands beside it in a checkpoint of ours
        state["criterion.weights"] = torch.ones(4)
    path = save(state if wrapper is None else {wrapper: state, "epoch": 7}, tmp_path / f"weights{suffix}")
    images = torch.rand(2, 3, 32, 32)
    assert not torch.equal(network(images), source(images))
    loaded = load_weights(network, path, in_channels=3)
    assert torch.equal(network(images), source(images))
    beside = (
        () if prefix != "network." else (f"{path.name} has tensors that are not used: criterion.weights",)
    )
    assert loaded.notes == beside
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize("backbone", [OURS, MOBILENET], ids=["ours", "timm"])
@pytest.mark.parametrize("name", [None, "fc", "head.fc"])
@pytest.mark.parametrize("outer", ["", "module."])
def test_a_head_beside_the_prefix_is_kept(
    backbone: tuple[str, dict[str, Any]], name: str | None, outer: str, tmp_path: Path
) -> None:
    source, network = built(backbone), built(backbone)
    (head,) = head_names(source)
    state = {
        outer
        + (key.replace(head, name or head, 1) if key.startswith(f"{head}.") else f"backbone.{key}"): tensor
        for key, tensor in source.state_dict().items()
    }
    state[f"{outer}projector.weight"] = torch.ones(4)
    loaded = load_weights(network, save(state, tmp_path / "weights.pth"), in_channels=3)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(images), source(images))
    assert loaded.new_heads == ()
    assert loaded.notes == ("weights.pth has tensors that are not used: projector.weight",)


@pytest.mark.parametrize("backbone", [OURS, MOBILENET], ids=["ours", "timm"])
def test_grey_images_are_seen_as_the_colours_sum(
    backbone: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    source, network = built(backbone), built(backbone, shape=(1, 32, 32))
    path = save(source.state_dict(), tmp_path / "weights.pth")
    notes = load_weights(network, path, in_channels=1).notes
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network(grey), source(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
    assert len(notes) == 1
    assert "3 input channels" in notes[0]


def test_more_channels_are_adapted_as_timm_does_it(tmp_path: Path) -> None:
    source = timm.create_model(MOBILENET[0], num_classes=4)
    path = save(source.state_dict(), tmp_path / "weights.pth")
    network = built(MOBILENET, shape=(5, 32, 32))
    load_weights(network, path, in_channels=5)
    theirs = timm.create_model(
        MOBILENET[0],
        pretrained=True,
        num_classes=4,
        in_chans=5,
        pretrained_cfg_overlay={"file": str(path), "num_classes": 4},
    ).eval()
    images = torch.rand(2, 5, 32, 32)
    assert torch.equal(network(images), theirs(images))


@pytest.mark.parametrize("backbone", [OURS, MOBILENET], ids=["ours", "timm"])
@pytest.mark.parametrize("headless", [True, False])
def test_a_head_of_other_classes_starts_at_zero_and_says_so(
    backbone: tuple[str, dict[str, Any]], headless: bool, tmp_path: Path
) -> None:
    source, network = built(backbone, num_outputs=7), built(backbone)
    head = {id(parameter) for parameter in network.get_classifier().parameters()}  # type: ignore[operator]
    names = [name for name, parameter in network.named_parameters() if id(parameter) in head]
    state = source.state_dict()
    if headless:
        state = {name: tensor for name, tensor in state.items() if name not in names}
    loaded = load_weights(network, save(state, tmp_path / "weights.pth"), in_channels=3)
    after = network.state_dict()
    for name, tensor in source.state_dict().items():
        expected = torch.zeros_like(after[name]) if name in names else tensor
        assert torch.equal(after[name], expected), name
    assert len(loaded.notes) == 1
    assert "starts anew" in loaded.notes[0]


REPVIT = ("repvit_m0_9", {"embed_dim": (8, 8, 8, 8), "depth": (1, 1, 1, 1)})
LEVIT = ("levit_128s", {"embed_dim": (8, 8, 8), "num_heads": (1, 1, 1), "key_dim": 4, "depth": (1, 1, 1)})
CAFORMER = ("caformer_s18", {})


@pytest.mark.parametrize("headless", [True, False])
@pytest.mark.parametrize(
    ("backbone", "last"),
    [
        (REPVIT, ("head.head.l", "head.head_dist.l")),
        (LEVIT, ("head.linear", "head_dist.linear")),
        (CAFORMER, ("head.fc.fc2",)),
    ],
    ids=["repvit", "levit", "caformer"],
)
def test_of_a_head_of_several_layers_the_last_starts_at_zero_and_all_learn(
    backbone: tuple[str, dict[str, Any]], last: tuple[str, ...], headless: bool, tmp_path: Path
) -> None:
    source, network = built(backbone, 7), built(backbone)
    for norm in source.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.weight)
    state = source.state_dict()
    if headless:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(last)}
    loaded = load_weights(network, save(state, tmp_path / "weights.pth"), in_channels=3)
    for name, tensor in network.state_dict().items():
        zero = name.startswith(last)
        assert torch.equal(tensor, torch.zeros_like(tensor) if zero else state[name]), name
    what = "no head" if headless else "a head of 7 outputs"
    for note in loaded.notes:
        assert f"weights.pth has {what}; " in note
    assert {layer for layer in last if any(layer in note for note in loaded.notes)} == set(last)

    images, before = torch.rand(4, 3, 32, 32), dict(copy.deepcopy(network).named_parameters())
    assert torch.equal(network(images), torch.zeros(4, 4))  # all classes equally likely
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.01)
    for _ in range(2):  # norms and hidden layers get a gradient from the second step on
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), torch.arange(4)).backward()
        optimizer.step()
    for name in head_parameters(network):
        assert not torch.equal(network.get_parameter(name), before[name]), name


def test_a_pretrained_heads_norms_stay_as_timm_loads_them(tmp_path: Path) -> None:
    source = built(REPVIT, num_outputs=1000)
    norm = "head.head.bn.weight"
    nn.init.uniform_(source.get_parameter(norm))
    path = save(source.state_dict(), tmp_path / "weights.pth")
    options = {**REPVIT[1], "pretrained_cfg_overlay": {"file": str(path)}}
    network = build_network(REPVIT[0], options, num_outputs=4, image_shape=(3, 32, 32), pretrained=True)
    assert torch.equal(network.get_parameter(norm), source.get_parameter(norm))
    assert network.get_parameter("head.head.l.weight").abs().sum() == 0


def test_hidden_layers_of_a_head_that_a_file_lacks_keep_their_first_weights(tmp_path: Path) -> None:
    source, network = built(CAFORMER, num_outputs=7), built(CAFORMER)
    hidden = network.get_parameter("head.fc.fc1.weight").clone()
    state = {name: tensor for name, tensor in source.state_dict().items() if ".fc." not in name}
    loaded = load_weights(network, save(state, tmp_path / "weights.pth"), in_channels=3)
    assert torch.equal(network.get_parameter("head.fc.fc1.weight"), hidden)
    assert hidden.abs().sum() > 0
    assert loaded.notes == ("weights.pth has no head; head.fc.fc1, head.fc.fc2, head.fc.norm start anew",)


def test_a_transformers_position_embedding_is_resized_as_timm_does_it(tmp_path: Path) -> None:
    vit = ("vit_tiny_patch16_224", {"depth": 1})
    source = built(vit, shape=(3, 64, 64))
    path = save(source.state_dict(), tmp_path / "weights.pth")
    network = built(vit, shape=(3, 48, 80))
    load_weights(network, path, in_channels=3)
    theirs = timm.create_model(
        vit[0],
        depth=1,
        pretrained=True,
        num_classes=4,
        img_size=(48, 80),
        pretrained_cfg_overlay={"file": str(path), "num_classes": 4, "custom_load": False},
    ).eval()
    images = torch.rand(2, 3, 48, 80)
    assert torch.equal(network(images), theirs(images))


def test_weights_of_another_network_are_refused_with_what_does_not_match(tmp_path: Path) -> None:
    network = built(OURS)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = dict(built(OURS).state_dict())
    first = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state["features.extra"] = state.pop(first)
    path = save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"missing {first}, unexpected features\.extra"):
        load_weights(network, path, in_channels=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

    wider = save(built(("small_cnn", {"widths": [4, 16]})).state_dict(), tmp_path / "wider.pth")
    with pytest.raises(ValueError, match=r"16x4x3x3 for 8x4x3x3.*head\.weight of 4x1024 for 4x512"):
        load_weights(network, wider, in_channels=3)


def test_files_that_hold_no_weights_alone_are_refused(tmp_path: Path) -> None:
    network = built(OURS)
    torch.save(network, tmp_path / "pickled.pth")  # a whole module: loading it would run code
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "empty.pth")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    for name in ("pickled.pth", "empty.pth", "page.safetensors", "page.pth", "absent.pth"):
        with pytest.raises(ValueError, match=rf"model\.weights=.*{name}"):
            load_weights(network, tmp_path / name, in_channels=3)


@pytest.mark.parametrize(
    "held",
    [[torch.ones(2)], torch.ones(2), {"state_dict": None}, {"model": [1]}, {1: torch.ones(2)}],
    ids=repr,
)
def test_a_file_of_something_else_than_tensors_by_name_is_refused_as_such(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth holds something else than tensors by name"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_were_broken_off_are_refused_with_a_reason(suffix: str, tmp_path: Path) -> None:
    path = save(built(OURS).state_dict(), tmp_path / f"weights{suffix}")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"can't be read as weights alone: .+"):
        read_weights(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_weights(path)


def test_an_auxiliary_head_of_other_classes_is_left_behind(tmp_path: Path) -> None:
    volo = ("volo_d1_224", {})
    source, network = built(volo, num_outputs=7, shape=(3, 32, 32)), built(volo, shape=(3, 32, 32))
    path = save(source.state_dict(), tmp_path / "weights.pth")
    assert load_weights(network, path, in_channels=3).notes == (
        "weights.pth has a head of 7 outputs; head starts anew",
    )
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(network.forward_features(images), source.forward_features(images))  # type: ignore[operator]
