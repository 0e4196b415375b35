"""Detects out-of-memory errors and suggests a remedy."""

from __future__ import annotations

import re

import torch
from pytorch_lightning.utilities.memory import is_cuda_out_of_memory, is_out_of_cpu_memory

REMEDY = (
    "Half of data.batch_size with twice trainer.accumulate_batches takes as many images into each step, all "
    "with the same weight, and needs about half the memory; only batch norms, whose statistics are then of "
    "smaller batches, and mixup or cutmix make another step of it. darkroom tune EXPERIMENT --batch-size "
    "finds what fits"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is why it was raised: by torch's allocators, by cuBLAS or cuDNN, or by Python itself.

    >>> is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory.")), is_out_of_memory(ValueError())
    (True, False)
    """
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or is_cuda_out_of_memory(error)
        or is_out_of_cpu_memory(error)
        or (isinstance(error, RuntimeError) and "_STATUS_ALLOC_FAILED" in str(error))
    )


def out_of_memory(error: BaseException) -> str:
    """One paragraph: what ran out, of what torch says the first sentences, and what helps.

    >>> said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.50 GiB free. Of it ..."
    >>> out_of_memory(torch.cuda.OutOfMemoryError(said)).partition(". Half")[0]
    'memory ran out: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.50 GiB free'
    """
    sentences = re.split(r"(?<=\.)\s+", " ".join(str(error).split()))
    said = " ".join(sentences[:3]).rstrip(".") or type(error).__name__
    return f"memory ran out: {said}. {REMEDY}"
