"""Every operation is torchvision's at the same strength, and every image draws its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as TF

from darkroom.datamodules.augmentation.policies import (
    AUG_MIX_OPERATIONS,
    OPERATIONS,
    RAND_AUGMENT,
    TRIVIAL_AUGMENT_WIDE,
    OperationRanges,
    apply_operations,
    aug_mix,
    rand_augment,
    trivial_augment,
)

Policy = Callable[..., Tensor]
POLICIES = [rand_augment, trivial_augment, aug_mix]
STRENGTHS = [-1.0, -0.6, -0.25, 0.0, 0.3, 0.77, 1.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(count: int, channels: int = 3, height: int = 36, width: int = 48) -> Tensor:
    """Smooth colours with edges and some noise, as bytes over 255."""
    coarse = torch.rand((count, channels, 5, 6), generator=generator(3))
    pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    pixels[:, :, 8:15, 10:30] *= 0.4
    pixels += 0.05 * torch.randn(pixels.shape, generator=generator(4))
    return (pixels.clamp(0.05, 0.9) * 255).round() / 255


def torchvisions(name: str, image: Tensor, strength: float, space: OperationRanges) -> Tensor:
    """What torchvision's policies do to one image."""
    height, width = image.shape[-2:]
    bilinear = InterpolationMode.BILINEAR
    affine = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    slope = math.degrees(math.atan(strength * space.shear))
    reach = {
        axis: space.translation * side + space.translation_pixels
        for axis, side in zip("xy", (width, height), strict=True)
    }
    most, least = space.bits
    factor = 1 + strength * space.blend
    calls = {
        "identity": lambda: image,
        "shear_x": lambda: TF.affine(
            image, **{**affine, "shear": [slope, 0.0]}, center=[0, 0], interpolation=bilinear
        ),
        "shear_y": lambda: TF.affine(
            image, **{**affine, "shear": [0.0, slope]}, center=[0, 0], interpolation=bilinear
        ),
        "translate_x": lambda: TF.affine(image, **{**affine, "translate": [int(strength * reach["x"]), 0]}),
        "translate_y": lambda: TF.affine(image, **{**affine, "translate": [0, int(strength * reach["y"])]}),
        "rotate": lambda: TF.rotate(image, strength * space.rotation, interpolation=bilinear),
        "brightness": lambda: TF.adjust_brightness(image, factor),
        "color": lambda: TF.adjust_saturation(image, factor),
        "contrast": lambda: TF.adjust_contrast(image, factor),
        "sharpness": lambda: TF.adjust_sharpness(image, factor),
        "posterize": lambda: (
            TF.posterize((image * 255).byte(), round(most - abs(strength) * (most - least))) / 255
        ),
        "solarize": lambda: TF.solarize(image, 1 - abs(strength)),
        "autocontrast": lambda: TF.autocontrast(image),
        "equalize": lambda: TF.equalize(image),
    }
    return calls[name]()


# Operations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [RAND_AUGMENT, TRIVIAL_AUGMENT_WIDE], ids=["randaugment", "trivialaugment"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_on_each_image(name: str, channels: int, space: OperationRanges) -> None:
    images = photographs(len(STRENGTHS), channels)
    operations = torch.full((1, len(images)), OPERATIONS.index(name))
    results = apply_operations(images.clone(), operations, torch.tensor([STRENGTHS]), space)
    for image, result, strength in zip(images, results, torch.tensor(STRENGTHS).tolist(), strict=True):
        expected = torchvisions(name, image, strength, space)
        torch.testing.assert_close(
            result, expected, atol=2e-3 if name in ("shear_x", "shear_y", "rotate") else 2e-6, rtol=0
        )


def test_the_operations_are_torchvisions_and_no_others() -> None:
    def names(policy: type) -> set[str]:
        return {name.lower() for name in policy._AUGMENTATION_SPACE}

    ours = {name.replace("_", "") for name in OPERATIONS}
    assert names(v2.RandAugment) == names(v2.TrivialAugmentWide) == ours
    partial = {name.lower() for name in v2.AugMix._PARTIAL_AUGMENTATION_SPACE}
    assert partial == {name.replace("_", "") for name in AUG_MIX_OPERATIONS}


def test_steps_run_one_after_another_and_images_keep_their_places() -> None:
    images = photographs(3)
    steps = [["equalize", "rotate", "identity"], ["solarize", "color", "shear_x"]]
    operations = torch.tensor([[OPERATIONS.index(name) for name in step] for step in steps])
    strengths = torch.tensor([[0.5, -0.4, 0.1], [0.3, 0.8, 0.9]])
    results = apply_operations(images.clone(), operations, strengths, RAND_AUGMENT)
    for place in range(3):
        expected = images[place]
        for step in range(2):
            strength = strengths[step, place].item()
            expected = torchvisions(steps[step][place], expected, strength, RAND_AUGMENT)
        torch.testing.assert_close(results[place], expected, atol=2e-3, rtol=0)


# Draws ------------------------------------------------------------------------------------------


def operations_drawn(
    policy, images: Tensor, monkeypatch: pytest.MonkeyPatch, **options
) -> tuple[Tensor, Tensor]:
    """What a policy hands to `apply_operations`, which then runs as ever."""
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(images: Tensor, operations: Tensor, strengths: Tensor, space: OperationRanges) -> Tensor:
        seen.append((operations, strengths))
        return apply_operations(images, operations, strengths, space)

    monkeypatch.setattr("darkroom.datamodules.augmentation.policies.apply_operations", spy)
    policy(images, generator(), **options)
    ((operations, strengths),) = seen
    return operations, strengths


@pytest.mark.parametrize("policy", [rand_augment, trivial_augment])
def test_operations_are_drawn_evenly(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(1, 1, 8, 8).expand(3000, -1, -1, -1)
    operations, strengths = operations_drawn(policy, images, monkeypatch)
    for step in operations:
        assert stats.chisquare(torch.bincount(step, minlength=14)).pvalue > 1e-4
    assert (strengths < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_randaugment_takes_one_strength_and_as_many_operations_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = photographs(1, 1, 8, 8).expand(50, -1, -1, -1)
    operations, strengths = operations_drawn(rand_augment, images, monkeypatch, num_ops=3, magnitude=15)
    assert operations.shape == (3, 50)
    assert strengths.unique().tolist() == [-0.5, 0.5]


def test_trivialaugment_takes_each_of_31_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(1, 1, 8, 8).expand(3000, -1, -1, -1)
    _, strengths = operations_drawn(trivial_augment, images, monkeypatch)
    counts = Counter((strengths.abs() * 30).round().int().flatten().tolist())
    assert sorted(counts) == list(range(31))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_augmix_chains_are_one_to_three_operations_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = photographs(1, 1, 8, 8).expand(300, -1, -1, -1)
    operations, strengths = operations_drawn(aug_mix, images, monkeypatch)
    done = operations != OPERATIONS.index("identity")  # (3, 3 * 300)
    assert (done.int().diff(dim=0) <= 0).all()  # what has ended does not go on
    assert stats.chisquare(torch.bincount(done.sum(0), minlength=4)[1:]).pvalue > 1e-4
    assert {OPERATIONS[index] for index in operations[done].tolist()} == set(AUG_MIX_OPERATIONS)
    assert 0.01 <= strengths.abs().min().item() < 0.02
    assert 0.29 < strengths.abs().max().item() <= 0.3


@pytest.mark.parametrize("depth", [1, 5])
def test_augmix_chains_are_as_many_and_as_long_as_asked(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(20)
    options = {"mixture_width": 2, "chain_depth": depth, "severity": 10}
    operations, strengths = operations_drawn(aug_mix, images, monkeypatch, **options)
    assert operations.shape == (depth, 40)
    assert (operations != OPERATIONS.index("identity")).all()
    assert strengths.abs().max().item() > 0.9


def test_augmix_weights_are_those_of_the_article(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solarize makes white black; where one chain of three is that, light is lost by the chain's weight."""
    images = torch.ones(30_000, 1, 2, 2)
    seen: list[Tensor] = []

    def spy(images: Tensor, operations: Tensor, strengths: Tensor, space: OperationRanges) -> Tensor:
        seen.append(operations)
        return apply_operations(images, operations, strengths, space)

    monkeypatch.setattr("darkroom.datamodules.augmentation.policies.apply_operations", spy)
    out = aug_mix(images, generator(), chain_depth=1)
    black, same = (
        torch.isin(seen[0].view(3, -1), torch.tensor([OPERATIONS.index(name) for name in names]))
        for names in (["solarize"], ["autocontrast", "equalize"])
    )
    chosen = (black.sum(0) == 1) & (same.sum(0) == 2)
    assert chosen.sum() > 300
    random = np.random.default_rng(0)
    weights = random.dirichlet([1, 1, 1], 100_000)[:, 0] * random.beta(1, 1, 100_000)
    assert stats.ks_2samp(1 - out[chosen, 0, 0, 0].numpy(), weights).pvalue > 1e-3


# Every policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_images_in_the_unit_range_and_the_input_stays(policy: Policy, channels: int) -> None:
    images = photographs(200, channels, 12, 16)
    before = images.clone()
    out = policy(images, generator())
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    assert torch.equal(images, before)


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_images_of_one_batch_come_out_differently(policy: Policy) -> None:
    out = policy(photographs(1).expand(64, -1, -1, -1), generator())
    # Of 64, some draw operations without strength, or none.
    assert len({image.numpy().tobytes() for image in out}) > 40


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_comes_out_the_same_whatever_its_neighbours(policy: Policy) -> None:
    images = photographs(16)
    others = images.flip(0).clone()
    others[::2] = images[::2]
    torch.testing.assert_close(
        policy(others, generator())[::2], policy(images, generator())[::2], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_the_generator_alone_decides(policy: Policy) -> None:
    images = photographs(16)
    torch.manual_seed(0)
    first = policy(images, generator(5))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(policy(images, generator(5)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(policy(images, generator(6)), first)


@pytest.mark.parametrize("policy", POLICIES)
def test_large_batches_done_in_pieces_are_small_ones(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs(100)
    whole = policy(images, generator())
    monkeypatch.setattr("darkroom.datamodules.batch_ops.PIECE", 3 * images[0].numel())
    torch.testing.assert_close(policy(images, generator()), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_single_images_and_single_pixels_are_taken(policy: Policy) -> None:
    for shape in ((1, 3, 1, 1), (1, 1, 2, 5), (2, 3, 3, 1)):
        for seed in range(20):
            assert policy(torch.rand(shape), generator(seed)).shape == shape
