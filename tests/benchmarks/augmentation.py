"""Augmentation: ours on whole batches, torchvision's v2 image by image, and kornia's where it is installed.

Prints images/s of each and their ratio to ours, from interleaved rounds on one thread with the same random
batches, and how many different results each gives for equal images: kornia's policies draw their
operations once for the whole batch.

    python tests/benchmarks/augmentation.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from datamodules.augment import Augmentation, change_pixels, crop_and_flip
from datamodules.preprocess import Preprocess

try:
    import kornia.augmentation as kornia
    from kornia.augmentation import auto as kornia_auto
except ImportError:
    kornia = None

SHAPES = ((128, 3, 32, 32), (64, 3, 224, 224))
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


def different_results(transform: Transform, image: Tensor) -> float:
    """How many come of 64 equal images, the median of five batches."""
    images = image.expand(64, -1, -1, -1).contiguous()
    return statistics.median(
        len({result.numpy().tobytes() for result in transform(images)}) for _ in range(5)
    )


def seconds(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for shape in SHAPES:
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        # Which operations are drawn differs from batch to batch: several make a round.
        calls = 20 if shape[-1] < 64 else 3
        print(f"{shape[0]} images of {shape[1]}x{shape[2]}x{shape[3]}")
        for task, transforms in contenders(shape[-1]).items():
            times: dict[str, list[float]] = {name: [] for name in transforms}
            for transform in transforms.values():
                transform(images)
            for _ in range(rounds):
                for name, transform in transforms.items():
                    times[name].append(seconds(partial(transform, images), calls))
            for name, transform in transforms.items():
                ratios = [slow / own for slow, own in zip(times[name], times["ours"], strict=True)]
                print(
                    f"  {task:15} {name:12} {shape[0] / statistics.median(times[name]):9,.0f} images/s"
                    f"  time over ours {statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
                    f"  {different_results(transform, images[:1]):2.0f} results of 64",
                    flush=True,
                )


if __name__ == "__main__":
    main()
