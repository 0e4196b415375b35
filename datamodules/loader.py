"""Batches: slices of a permutation, in the process that trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .images.random_crops import RATIO, random_resized_crops
from .images.store import ImageStore
from .seeding import derive_seed, generator_for
from .splitting.sampling import weighted_order

GPU_SHARE = 1 / 16  # of its free memory: networks need the rest, and several trials may share a GPU
AHEAD = 2  # batches read from disk while the network is at work on an earlier one
CROP_SALT = 0x2545F491  # crops are drawn before the rest, and apart from it


class Batch(NamedTuple):
    """What a step gets.

    Attributes:
        images: (B, C, H, W); uint8 from the loader, float32 once augmented and normalised. Where a
            device's share of the global batch is empty, one image that has no target: networks can't
            take none, and every process has to take part in every step.
        targets: Class indices, int64 (B,); of multi-label tasks float32 (B, K).
        indices: Places in the split, int64 (B,); its `ids` names them.
        seed: Of all randomness of this step, derived from (seed, epoch, step), and from the rank where
            it is not 0.
        global_targets: Of the global batch that this is a share of; None where it is the whole.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    seed: int
    global_targets: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on the device; Lightning asks each batch."""
        if self.images.device == device:
            return self
        return self._with(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pinned(self) -> Batch:
        """The same in page-locked memory, from which a GPU fetches it while the process goes on."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(value) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**changed)


class BatchLoader:
    """An iterable over a store, without worker processes and without padding.

    The epoch's order depends on (seed, epoch) alone. Where it stands is `state_dict`, which Lightning
    saves in its checkpoints: a resumed run sees the very batches it would have seen. Without shuffling
    every iteration starts at the first batch, whatever the last one left.

    Processes that train together share out each global batch, so that all of them make the same number
    of steps and every image is seen once: padding would count some twice.

    Batches of images that lie on disk are read ahead, in a thread of their own. Images that lie in memory
    are copied to the GPU that trains once, if they fit there, and not batch by batch.

    Args:
        store: The split to serve.
        batch_size: Images in each global batch; see `batches_per_epoch` of the last.
        shuffle: Permute anew each epoch.
        weights: With `shuffle`: draw images with replacement, in proportion to these (N,).
        crop_scale: Crop each image at random, to a share of its area in this range; null reads it whole.
        seed: Of the permutations and of each batch's `seed`.
        rank: Which share of each batch this process gets.
        world_size: How many processes share it.
        device: Which trains.
    """

    def __init__(
        self,
        store: ImageStore,
        batch_size: int,
        *,
        shuffle: bool = False,
        weights: Tensor | None = None,
        crop_scale: tuple[float, float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    ) -> None:
        self.store = store
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.weights = weights
        self.crop_scale = crop_scale
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.arrange: Callable[[Tensor, torch.Generator], Tensor] | None = None  # an epoch's order, shuffled
        self._near: tuple[ImageStore, ImageStore] | None = None  # the store, and as it is served
        self._epoch = 0
        self._step = 0

    def __len__(self) -> int:
        return batches_per_epoch(len(self.store), self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning asks for the iterator early and drops it before its end: the epoch is read when
        # the first batch is, and has moved on before the last one is handed out.
        # Evaluation may stop early (limit_val_batches), and must not go on from there the next time.
        epoch, first_step = self._epoch, self._step if self.shuffle else 0
        store = self._served()
        order = self._order(epoch).to(store.targets.device)
        chunks = torch.tensor_split(order, [self.batch_size * step for step in range(1, len(self))])
        pinned = self.device.type == "cuda" and order.device.type == "cpu"
        for step, batch in enumerate(self._read(store, chunks, epoch, first_step), start=first_step):
            self._epoch, self._step = (epoch, step + 1) if step + 1 < len(chunks) else (epoch + 1, 0)
            yield batch.pinned() if pinned else batch

    def _served(self) -> ImageStore:
        if self._near is None or self._near[0] is not self.store:
            # Random-resized crops are made where the files are read.
            is_near = self.crop_scale is None
            self._near = self.store, near(self.store, self.device) if is_near else self.store
        return self._near[1]

    def _read(
        self, store: ImageStore, chunks: Sequence[Tensor], epoch: int, first_step: int
    ) -> Iterator[Batch]:
        steps = range(first_step, len(chunks))
        if isinstance(store.images, Tensor) and self.crop_scale is None:  # nothing to wait for
            for step in steps:
                yield self._share(store, chunks[step], epoch, step)
            return
        # A new thread would have as many threads for its work as the last one that was told a number.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(1, "batches", torch.set_num_threads, (threads,)) as reader:
            ahead: deque[Future[Batch]] = deque()
            try:
                for step in steps:
                    ahead.append(reader.submit(self._share, store, chunks[step], epoch, step))
                    if len(ahead) > AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                reader.shutdown(wait=True, cancel_futures=True)

    def _share(self, store: ImageStore, chunk: Tensor, epoch: int, step: int) -> Batch:
        indices = chunk[self.rank :: self.world_size]
        seed = derive_seed(self.seed, epoch, step, *([self.rank] if self.rank else []))
        return Batch(
            images=read(store, indices if len(indices) else chunk[:1], self.crop_scale, seed),
            targets=store.targets.index_select(0, indices),
            indices=indices,
            seed=seed,
            global_targets=store.targets[chunk] if self.world_size > 1 else None,
        )

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.store))
        generator = generator_for("cpu", self.seed, epoch)
        if self.weights is not None:
            order = weighted_order(self.weights, generator)
        else:
            order = torch.randperm(len(self.store), generator=generator)
        return order if self.arrange is None else self.arrange(order, generator)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch, self._step = state_dict["epoch"], state_dict["step"]


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """How many batches there are: the last is smaller, or, where it would be one image, joins its neighbour.

    Batch norms can't learn from one image whose features are single numbers.

    >>> batches_per_epoch(130, 64), batches_per_epoch(129, 64), batches_per_epoch(1, 64)
    (3, 2, 1)
    """
    leaves_one = num_images > batch_size > 1 and num_images % batch_size == 1
    return -(-num_images // batch_size) - leaves_one


def read(store: ImageStore, places: Tensor, crop_scale: tuple[float, float] | None, seed: int) -> Tensor:
    """uint8 (B, C, H, W) at the places: whole, or cropped at random as the seed has it."""
    if crop_scale is None:
        return store.pixels(places)
    generator = generator_for("cpu", seed, CROP_SALT)
    if isinstance(store.images, Tensor):
        return random_resized_crops(store.pixels(places), crop_scale, generator)
    return store.images.random_resized_crops(places, crop_scale, RATIO, generator)


def near(store: ImageStore, device: torch.device) -> ImageStore:
    """Its images and targets on the device, where there is room for them; else itself."""
    images = store.images
    if not isinstance(images, Tensor) or images.numel() * images.element_size() > room_on(device):
        return store
    return replace(store, images=images.to(device), targets=store.targets.to(device))


def room_on(device: torch.device) -> float:
    """Bytes that images may take of the device's own memory; none where it has no memory of its own."""
    return torch.cuda.mem_get_info(device)[0] * GPU_SHARE if device.type == "cuda" else 0
