"""Each image of a batch is changed in its own way, within the stated range, exactly where it can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from darkroom.datamodules.augmentation.pipeline import Augmentation, Policy, change_pixels, crop_and_flip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 2, height: int = 6, width: int = 5) -> Tensor:
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=generator(9), dtype=torch.uint8)


# Crop and flip ----------------------------------------------------------------------------------


def test_every_crop_is_a_window_of_the_padded_image_and_every_window_is_drawn() -> None:
    padding, images = 2, noise(1).expand(2000, -1, -1, -1)
    height, width = images.shape[2:]
    padded = np.pad(images[0].numpy(), [(0, 0), (padding, padding), (padding, padding)])
    windows = {
        padded[:, top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }
    crops = crop_and_flip(images, Augmentation(crop_padding=padding), generator())
    assert crops.shape == images.shape
    drawn = [windows[crop.numpy().tobytes()] for crop in crops]  # KeyError: not a window
    counts = {window: drawn.count(window) for window in windows.values()}
    # 25 windows of expected 80 draws each: five deviations of the binomial.
    assert all(80 - 44 < count < 80 + 44 for count in counts.values())


def test_a_crop_takes_its_pixels_from_its_own_image() -> None:
    numbers = torch.arange(1, 65, dtype=torch.uint8)
    images = numbers.view(-1, 1, 1, 1).expand(64, 3, 8, 8).contiguous()
    crops = crop_and_flip(images, Augmentation(crop_padding=3), generator())
    for number, crop in zip(numbers.tolist(), crops, strict=True):
        assert set(crop.unique().tolist()) <= {0, number}
        assert crop[:, 4, 4].tolist() == [number] * 3


def test_a_flip_of_probability_one_is_torchs_and_of_zero_changes_nothing() -> None:
    images = noise(50)
    assert torch.equal(crop_and_flip(images, Augmentation(horizontal_flip=1.0), generator()), images.flip(3))
    assert torch.equal(crop_and_flip(images, Augmentation(vertical_flip=1.0), generator()), images.flip(2))
    assert torch.equal(crop_and_flip(images, Augmentation(), generator()), images)


@pytest.mark.parametrize("probability", [0.2, 0.5])
@pytest.mark.parametrize(("knob", "dim"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_images_are_flipped_one_by_one_at_the_stated_rate(knob: str, dim: int, probability: float) -> None:
    images = noise(3000)
    out = crop_and_flip(images, Augmentation(**{knob: probability}), generator())
    flipped = (out == images.flip(dim)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert (flipped ^ kept).all()
    deviation = math.sqrt(probability * (1 - probability) / 3000)
    assert flipped.float().mean().item() == pytest.approx(probability, abs=4 * deviation)


@pytest.mark.parametrize("side", [8, 80])  # large images are mirrored one by one
def test_the_order_in_memory_stays_and_changes_nothing(side: int) -> None:
    everything = Augmentation(crop_padding=3, horizontal_flip=0.5, vertical_flip=0.5)
    images = noise(20, 3, side, side)
    whole = crop_and_flip(images, everything, generator())
    last = crop_and_flip(images.contiguous(memory_format=torch.channels_last), everything, generator())
    assert torch.equal(whole, last)
    assert whole.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_bytes_stay_bytes_and_floats_floats() -> None:
    everything = Augmentation(crop_padding=1, horizontal_flip=0.5)
    images = noise(4)
    whole = crop_and_flip(images, everything, generator())
    assert whole.dtype == torch.uint8
    floats = crop_and_flip(images.float(), everything, generator())
    assert floats.dtype == torch.float32
    assert torch.equal(floats, whole.float())


# Rotation, translation, zoom --------------------------------------------------------------------


def smooth(count: int, height: int, width: int) -> Tensor:
    coarse = torch.rand((count, 2, 4, 4), generator=generator(3))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def draws_of(seed: int, count: int) -> np.ndarray:
    return (torch.rand(4, count, generator=generator(seed)) * 2 - 1).double().numpy()


@pytest.mark.parametrize("shear", [0.0, 25.0])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (16, 28), (27, 15)])
def test_the_affine_map_is_scipys_with_the_same_angle_shift_scale_and_slope(
    height: int, width: int, shear: float
) -> None:
    augmentation = Augmentation(rotation=40, translation=0.2, zoom=0.3, shear=shear)
    images = smooth(6, height, width)
    out = change_pixels(images, augmentation, generator(5)).numpy()
    angles, zooms, shifts_x, shifts_y = draws_of(5, 6)
    source = generator(5)
    torch.rand(4, 6, generator=source)
    slopes = np.tan(np.deg2rad(shear * (torch.rand(2, 6, generator=source) * 2 - 1).double().numpy()))
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    for image, result, angle, zoom, shift_x, shift_y, (slope_x, slope_y) in zip(
        images.numpy(), out, np.deg2rad(40 * angles), zooms, shifts_x, shifts_y, slopes.T, strict=True
    ):
        # scipy reads output pixel (row, column) at matrix @ (row, column) + offset.
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[1, slope_y], [slope_x, 1]]) / (1 + 0.3 * zoom)
        shift = 0.2 * np.array([shift_y * height, shift_x * width])
        offset = centre + shift - matrix @ centre
        for channel in range(2):
            expected = ndimage.affine_transform(
                image[channel], matrix, offset, order=1, mode="grid-constant", cval=0
            )
            np.testing.assert_allclose(result[channel], expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 30)])
def test_rotation_is_torchvisions_by_the_same_angle(height: int, width: int) -> None:
    images = smooth(5, height, width)
    out = change_pixels(images, Augmentation(rotation=30), generator(1))
    bilinear = InterpolationMode.BILINEAR
    for image, result, draw in zip(images, out, draws_of(1, 5)[0], strict=True):
        expected = TF.affine(
            image,
            angle=-30 * draw,
            translate=[0, 0],
            scale=1,
            shear=[0.0],
            interpolation=bilinear,
        )
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def spot(count: int) -> Tensor:
    """A small disc of light, 10 pixels right of the centre of 41x41."""
    rows, columns = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    disc = (-(rows**2 + (columns - 10) ** 2) / 4).exp()
    return disc.expand(count, 1, 41, 41)


def centroids(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where the light is, in pixels right of and below the centre."""
    axis = torch.arange(41.0) - 20
    mass = images.sum((1, 2, 3))
    return (images.sum((1, 2)) @ axis) / mass, (images.sum((1, 3)) @ axis) / mass


def assert_spans(values: Tensor, low: float, high: float, slack: float) -> None:
    """All within [low, high], and all of that range in use."""
    assert low - slack < values.min().item() < low + (high - low) / 20
    assert high - (high - low) / 20 < values.max().item() < high + slack


def test_angles_span_the_stated_range_either_way() -> None:
    x, y = centroids(change_pixels(spot(300), Augmentation(rotation=25), generator()))
    assert_spans(torch.rad2deg(torch.atan2(y, x)), -25, 25, slack=0.2)
    torch.testing.assert_close(torch.hypot(x, y), torch.full((300,), 10.0), atol=0.05, rtol=0)


def test_shifts_span_the_stated_fraction_of_the_side_either_way() -> None:
    x, y = centroids(change_pixels(spot(300), Augmentation(translation=0.1), generator()))
    assert_spans(x - 10, -4.1, 4.1, slack=0.05)
    assert_spans(y, -4.1, 4.1, slack=0.05)


def test_zooms_span_the_stated_change_of_scale_either_way() -> None:
    x, y = centroids(change_pixels(spot(300), Augmentation(zoom=0.2), generator()))
    assert_spans(x / 10, 0.8, 1.2, slack=0.01)
    assert y.abs().max().item() < 0.01


def test_beyond_the_border_it_is_black() -> None:
    out = change_pixels(torch.ones(200, 1, 12, 12), Augmentation(translation=0.5), generator())
    assert out[:, :, 0, 0].eq(0).any()
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-5


# All together -----------------------------------------------------------------------------------

ALL_KNOBS: dict[str, float] = {
    "crop_padding": 2,
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "rotation": 20,
    "translation": 0.1,
    "zoom": 0.1,
    "shear": 10,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
    "grayscale": 0.3,
    "blur": 1.0,
    "noise": 0.1,
    "erasing": 0.5,
}
POLICIES = ("randaugment", "trivialaugment", "augmix")


def augmented(images: Tensor, augmentation: Augmentation, seed: int = 0) -> Tensor:
    """uint8 to float32, as a training batch goes."""
    source = generator(seed)
    return change_pixels(crop_and_flip(images, augmentation, source).float() / 255, augmentation, source)


@pytest.mark.parametrize("knobs", [{"rotation": 25.0}, {"translation": 0.1}, {"zoom": 0.2}, {}])
@pytest.mark.parametrize("flip", [0.0, 0.5])
@pytest.mark.parametrize("padding", [0, 2])
def test_the_first_five_knobs_draw_and_compute_as_they_did_when_accuracies_were_recorded(
    padding: int, flip: float, knobs: dict[str, float]
) -> None:
    """Bit for bit: the steps of the first release, restated image by image where that is exact."""
    images = noise(40, 3, 12, 10)
    source = generator(3)
    expected = images
    if padding:
        black = torch.nn.functional.pad(images, (padding,) * 4)
        tops, lefts = torch.randint(2 * padding + 1, (2, 40), generator=source).tolist()
        windows = zip(black, tops, lefts, strict=True)
        expected = torch.stack([image[:, top : top + 12, left : left + 10] for image, top, left in windows])
    if flip:
        mirrored = torch.rand(40, generator=source) < flip
        pairs = zip(expected, mirrored, strict=True)
        expected = torch.stack([image.flip(2) if mirror else image for image, mirror in pairs])
    expected = expected.float() / 255
    if knobs:
        draws = torch.rand(4, 40, generator=source) * 2 - 1
        angle = torch.deg2rad(draws[0] * knobs.get("rotation", 0.0))
        scale = 1 / (1 + draws[1] * knobs.get("zoom", 0.0))
        x, y = draws[2:] * 2 * knobs.get("translation", 0.0)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        theta = torch.stack([cos, -sin * (12 / 10), x, sin / (12 / 10), cos, y], dim=1).view(40, 2, 3)
        grid = torch.nn.functional.affine_grid(theta, [40, 3, 12, 10], align_corners=False)
        expected = torch.nn.functional.grid_sample(expected, grid, align_corners=False)
    augmentation = Augmentation(crop_padding=padding, horizontal_flip=flip, **knobs)
    assert torch.equal(augmented(images, augmentation, seed=3), expected)


def test_large_images_resampled_in_pieces_are_the_same_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(10, 3, 40, 50)
    augmentation = Augmentation(rotation=20, translation=0.1, zoom=0.1, shear=10)
    whole = augmented(images, augmentation)
    monkeypatch.setattr("darkroom.datamodules.batch_ops.PIECE", 3 * images[0].numel())
    assert torch.equal(augmented(images, augmentation), whole)


def test_no_augmentation_costs_nothing() -> None:
    images, source = smooth(4, 8, 8), generator()
    before = source.get_state()
    assert crop_and_flip(images, Augmentation(), source) is images
    assert change_pixels(images, Augmentation(), source) is images
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("knob", ALL_KNOBS)
def test_each_knob_alone_changes_images(knob: str) -> None:
    images = noise(64, 3, 12, 12)
    out = augmented(images, Augmentation(**{knob: ALL_KNOBS[knob]}))
    assert (out != images / 255).flatten(1).any(1).float().mean() > 0.15
    assert out.shape == images.shape


@pytest.mark.parametrize("policy", [None, *POLICIES])
@pytest.mark.parametrize("channels", [1, 3])
def test_with_every_knob_images_stay_images(channels: int, policy: Policy | None) -> None:
    out = augmented(noise(100, channels, 14, 11), Augmentation(**ALL_KNOBS, policy=policy))
    assert out.shape == (100, channels, 14, 11)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-5


@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_with_every_knob_an_image_comes_out_the_same_whatever_its_neighbours(policy: Policy | None) -> None:
    images = noise(16, 3, 14, 11)
    others = images.flip(0)
    others[::2] = images[::2]
    augmentation = Augmentation(**ALL_KNOBS, policy=policy)
    torch.testing.assert_close(
        augmented(others, augmentation)[::2], augmented(images, augmentation)[::2], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_with_every_knob_the_seed_alone_decides(policy: Policy | None) -> None:
    images, augmentation = noise(16, 3, 14, 11), Augmentation(**ALL_KNOBS, policy=policy)
    torch.manual_seed(0)
    first = augmented(images, augmentation, seed=4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(augmented(images, augmentation, seed=4), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(augmented(images, augmentation, seed=5), first)


# Randomness -------------------------------------------------------------------------------------


def test_the_same_generator_gives_the_same_batch_and_another_another() -> None:
    augmentation = Augmentation(crop_padding=2, horizontal_flip=0.5, rotation=20, translation=0.1, zoom=0.1)
    images = smooth(8, 12, 12)

    def augmented(seed: int) -> Tensor:
        source = generator(seed)
        return change_pixels(crop_and_flip(images, augmentation, source), augmentation, source)

    assert torch.equal(augmented(0), augmented(0))
    assert not torch.equal(augmented(0), augmented(1))


def test_equal_images_of_one_batch_come_out_differently() -> None:
    images = smooth(1, 12, 12).expand(32, -1, -1, -1)
    out = change_pixels(images, Augmentation(rotation=20), generator())
    assert len({image.numpy().tobytes() for image in out}) == 32


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    augmentation = Augmentation(crop_padding=2, horizontal_flip=0.5, rotation=20)
    images = smooth(8, 12, 12)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        source = generator()
        results.append(change_pixels(crop_and_flip(images, augmentation, source), augmentation, source))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(results[0], results[1])


# Knobs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("crop_padding", -1),
        ("vertical_flip", 1.1),
        ("shear", 61.0),
        ("brightness", -0.1),
        ("contrast", 1.1),
        ("saturation", math.inf),
        ("hue", 0.6),
        ("grayscale", 2.0),
        ("blur", -1.0),
        ("noise", math.nan),
        ("erasing", 1.5),
        ("horizontal_flip", -0.1),
        ("horizontal_flip", 1.1),
        ("horizontal_flip", math.nan),
        ("rotation", -1.0),
        ("rotation", 181.0),
        ("translation", -0.1),
        ("translation", 1.0),
        ("zoom", -0.1),
        ("zoom", 1.0),
    ],
)
def test_a_knob_out_of_range_is_refused_by_name_and_value(knob: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"augmentation\.{knob} must .* got {value}"):
        Augmentation(**{knob: value})


def test_only_resampling_knobs_move_pixels() -> None:
    assert not Augmentation(crop_padding=4, horizontal_flip=1.0, policy="augmix").moves_pixels
    for knob in ("rotation", "translation", "zoom", "shear"):
        assert Augmentation(**{knob: 0.1}).moves_pixels


@pytest.mark.parametrize(
    ("knob", "policy", "value"),
    [
        ("num_ops", "randaugment", 0),
        ("magnitude", "randaugment", 30.5),
        ("severity", "augmix", 0),
        ("mixture_width", "augmix", 0),
        ("chain_depth", "augmix", 0),
    ],
)
def test_a_policys_knob_out_of_range_is_refused(knob: str, policy: Policy, value: float) -> None:
    with pytest.raises(ValueError, match=rf"augmentation\.{knob} must .* got {value}"):
        Augmentation(policy=policy, **{knob: value})


@pytest.mark.parametrize("policy", [None, *POLICIES])
@pytest.mark.parametrize(
    ("knob", "owner"),
    [
        ("num_ops", "randaugment"),
        ("magnitude", "randaugment"),
        ("severity", "augmix"),
        ("mixture_width", "augmix"),
        ("chain_depth", "augmix"),
    ],
)
def test_a_knob_that_the_policy_would_ignore_is_refused(knob: str, owner: str, policy: Policy | None) -> None:
    if policy == owner:
        assert Augmentation(policy=policy, **{knob: 2}).policy_options == {knob: 2}
        return
    with pytest.raises(ValueError, match=rf"augmentation\.{knob} is read by policy {owner} alone"):
        Augmentation(policy=policy, **{knob: 2})


def test_a_policys_knobs_reach_it() -> None:
    images = noise(32, 3, 12, 12)
    still = Augmentation(policy="randaugment", num_ops=1, magnitude=0)
    strong = Augmentation(policy="randaugment", num_ops=1, magnitude=30)
    changed = [
        (augmented(images, knobs) != images / 255).flatten(1).any(1).sum() for knobs in (still, strong)
    ]
    # At magnitude 0 only autocontrast and equalize change an image, and solarize its white.
    assert changed[0] < changed[1]


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"must be one of randaugment, trivialaugment, augmix or null, got 'rand'"
    ):
        Augmentation(policy="rand")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.1), (math.nan, 1.0)])
def test_a_resized_crop_that_is_no_range_of_shares_is_refused(value: tuple[float, float]) -> None:
    assert Augmentation(resized_crop=(0.08, 1.0)).resized_crop == (0.08, 1.0)
    with pytest.raises(ValueError, match=r"augmentation\.resized_crop must .* \[0\.08, 1\] is customary"):
        Augmentation(resized_crop=value)
