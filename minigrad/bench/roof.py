"""What one core can do at most: multiply-adds a second, and bytes a second of a copy, by the size of its arrays."""
from __future__ import annotations

import platform
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minigrad as mg

from ..core.capture import capture
from ..devices import open_device
from ..devices.work import work
from .timing import BLOCKS, interleaved

SIZES = (32_000, 2_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000)
# Bytes of both arrays: about a cache level each, and memory. Between 25 and 100 MB the last cache is outgrown: a line
# from 25 to 250 MB promised 1.3 times the rate at 50 MB (Zen 5, 32 MB of it).
_COPIED = 32_000_000            # bytes that a timed run copies at least: 200 us, so that its call does not count

work("fma_roof")            # `fma_peak` counts its operations


def fma_peak(dtype: Any = mg.float32, blocks: int = BLOCKS) -> float:
    """GFLOP/s of one core; a multiply-add counts as two."""
    out, rounds = mg.zeros(2, dtype=dtype), 200_000
    kernel = open_device("cpu").kernels.fma_roof[mg.dtype(dtype)]
    best, = interleaved(lambda: kernel.call(out.array.ptr, rounds), blocks=blocks)
    return float(2 * out.numpy()[0] * rounds / best.minimum / 1e9)


def copy_bandwidth(blocks: int = 9, nbytes: int = SIZES[-1]) -> float:
    """GB/s of copying one array to another, bytes read plus bytes written; `nbytes` are those of both arrays. The
    default is much larger than the caches."""
    x, y = mg.ones(nbytes // 8), mg.empty(nbytes // 8)
    repeats = max(1, _COPIED // nbytes)

    def copies() -> None:
        for _ in range(repeats):
            y.copy_(x)
    # Small arrays are copied faster than Python can ask for it: a captured run asks in C.
    best, = interleaved(capture(copies) if repeats > 1 else copies, blocks=blocks)
    return repeats * 2 * x.nbytes / best.minimum / 1e9


class Limits(NamedTuple):
    """What one core does at most: GFLOP/s in float32, and GB/s of a copy for each size of `SIZES`."""

    peak: float
    copies: tuple[float, ...]

    def copy(self, working_set: float) -> float:
        """GB/s of a copy whose two arrays have so many bytes: interpolated over the logarithm of the size between the
        sizes that were measured, and outside of them as at the nearest one."""
        return float(np.interp(log(working_set), np.log(SIZES), self.copies))

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.1f} GB/s at {_size(n)}" for rate, n in zip(self.copies, SIZES, strict=True))
        return f"FMA peak {self.peak:.0f} GFLOP/s; copy, read plus written, by the bytes of both arrays: {rates}"


def limits() -> Limits:
    """Measures this core; about two seconds."""
    found = Limits(fma_peak(), tuple(copy_bandwidth(nbytes=n) for n in SIZES))
    mg.empty_cache()
    return found


def cpu_name() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _size(nbytes: int) -> str:
    return f"{nbytes // 1_000_000} MB" if nbytes >= 1_000_000 else f"{nbytes // 1000} kB"
