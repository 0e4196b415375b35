"""Augmentation: ours on whole batches, torchvision's v2 image by image, and kornia's where it is installed.

Interleaved rounds on one thread with the same random batches; and how many different results each gives for
equal images: kornia's policies draw their operations once for the whole batch.

    python tests/benchmarks/augmentation.py [--rounds 5]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from bench import arguments, figure, interleaved, ratios, seconds
from torch import Tensor
from torchvision.transforms import v2

from darkroom.datamodules.augmentation.pipeline import Augmentation, change_pixels, crop_and_flip
from darkroom.datamodules.preprocess import Preprocess

try:
    import kornia.augmentation as kornia
    from kornia.augmentation import auto as kornia_auto
except ImportError:
    kornia = None
CROPS = {32: 4, 224: 16}  # padding, by the side
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
BILINEAR = v2.InterpolationMode.BILINEAR
Transform = Callable[[Tensor], Tensor]


def ours(augmentation: Augmentation) -> Transform:
    generator = torch.Generator().manual_seed(0)
    scale = Preprocess((0, 0, 0), (1, 1, 1)).scale

    def augment(images: Tensor) -> Tensor:
        pixels = scale(crop_and_flip(images, augmentation, generator))
        return change_pixels(pixels, augmentation, generator)

    return augment


def image_by_image(transform: Transform) -> Transform:
    return lambda images: torch.stack([transform(image) for image in images]).float() / 255


def on_floats(transform: Transform) -> Transform:
    return lambda images: transform(images.float() / 255)


def contenders(side: int) -> dict[str, dict[str, Transform]]:
    """For each task, who does it how."""
    padding = CROPS[side]
    crop_and_mirror = v2.Compose([v2.RandomCrop(side, padding=padding), v2.RandomHorizontalFlip()])
    tasks = {
        "crop, flip": {
            "ours": ours(Augmentation(crop_padding=padding, horizontal_flip=0.5)),
            "torchvision": image_by_image(crop_and_mirror),
        },
        "colour jitter": {
            "ours": ours(Augmentation(**JITTER)),
            "torchvision": image_by_image(v2.ColorJitter(**JITTER)),
        },
        "RandAugment": {
            "ours": ours(Augmentation(policy="randaugment")),
            "torchvision": image_by_image(v2.RandAugment(interpolation=BILINEAR)),
        },
        "TrivialAugment": {
            "ours": ours(Augmentation(policy="trivialaugment")),
            "torchvision": image_by_image(v2.TrivialAugmentWide(interpolation=BILINEAR)),
        },
        "AugMix": {
            "ours": ours(Augmentation(policy="augmix")),
            "torchvision": image_by_image(v2.AugMix(all_ops=False)),
        },
    }
    if kornia is not None:
        theirs = {
            "crop, flip": kornia.AugmentationSequential(
                kornia.RandomCrop((side, side), padding=padding), kornia.RandomHorizontalFlip()
            ),
            "colour jitter": kornia.ColorJitter(**JITTER, p=1.0),
            "RandAugment": kornia_auto.RandAugment(n=2, m=9),
            "TrivialAugment": kornia_auto.TrivialAugment(),
        }
        for task, transform in theirs.items():
            tasks[task]["kornia"] = on_floats(transform)
    return tasks


def different_results(transform: Transform, images: Tensor) -> float:
    """Which share of equal images comes out different."""
    return len({result.numpy().tobytes() for result in transform(images)}) / len(images)


def main() -> None:
    given = arguments(__doc__, rounds=5, sides=([32, 224], [32]), images=(64, 4), equal=(64, 4))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for side in given.sides:
        images = torch.randint(0, 256, (given.images, 3, side, side), dtype=torch.uint8)
        # Which operations are drawn differs from batch to batch: several make a round.
        calls = 1 if given.tiny else 20 if side < 64 else 3
        for task, transforms in contenders(side).items():
            for transform in transforms.values():
                transform(images)
            taken = interleaved(
                given.rounds,
                {
                    name: partial(seconds, partial(transform, images), calls)
                    for name, transform in transforms.items()
                },
            )
            label = f"{task.replace(', ', '_').replace(' ', '_')}_{side}"
            for name in transforms.keys() - {"ours"}:
                what, against = f"{name}, {given.images} images of {side}", "ours"
                figure(f"augmentation/{label}_{name}", ratios(taken, name, "ours"), "s", what, against)
            for name, transform in transforms.items():
                same = images[:1].expand(given.equal, -1, -1, -1).contiguous()
                shares = [different_results(transform, same) for _ in range(given.rounds)]
                what = f"different results of equal images, {name}"
                figure(f"augmentation/{label}_{name}_results", shares, "share", what, "all")


if __name__ == "__main__":
    main()
