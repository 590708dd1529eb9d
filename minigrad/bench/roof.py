"""What one core can do at most: multiply-adds, and bytes of a copy."""
from __future__ import annotations

from typing import Any

import minigrad as mg

from ..devices import open_device
from ..devices.work import work
from .timing import BLOCKS, interleaved

work("fma_roof")            # `fma_peak` counts its operations


def fma_peak(dtype: Any = mg.float32, blocks: int = BLOCKS) -> float:
    """GFLOP/s of one core; a multiply-add counts as two."""
    out, rounds = mg.zeros(2, dtype=dtype), 200_000
    kernel = open_device("cpu").kernels.fma_roof[mg.dtype(dtype)]
    best, = interleaved(lambda: kernel.call(out.array.ptr, rounds), blocks=blocks)
    return float(2 * 16 * out.numpy()[0] * rounds / best.minimum / 1e9)


def copy_bandwidth(blocks: int = 9) -> float:
    """GB/s of reading and writing memory, with arrays much larger than the caches."""
    x = mg.ones(24 << 20)
    y = mg.empty(24 << 20)
    best, = interleaved(lambda: y.copy_(x), blocks=blocks)
    return 2 * x.nbytes / best.minimum / 1e9
