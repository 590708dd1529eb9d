"""What CUDA needs beside a kernel's name and arguments: the file of its text, and how many blocks and threads run.

Each op says so beside itself, when it is imported:

    launch("ops/norm.cu", "layer_norm_forward", lambda k, host: [per_row(k.rows, k.n)], shared=256)

A rule reads the arguments of a launch by the names that native/minigrad.h gives them (`k.rows`, `k.n`). `host` holds the
values that a device array made by `Device.constant` (a plan, a table of addresses) had on the host, by its address.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Launch(NamedTuple):
    """One CUDA function: the kernel itself, or its STEP of that name. Nothing is launched if the grid's first size is 0."""

    step: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int = 0             # bytes of dynamic shared memory


Rule = Callable[[Any, Mapping[int, np.ndarray]], Sequence[Launch]]
THREADS = 256                   # of a block, where nothing else decides; common.cuh's MAX_THREADS is 512
BLOCKS = 1 << 20                # where there are more elements than this many blocks cover, the kernels loop over the grid


class Entry(NamedTuple):
    """A kernel of the table. `registers` and `shared` (static, in bytes) bound what the compiled kernel may use, `stack` what it
    may put into local memory: tests compile every kernel and check these bounds."""

    file: str                   # within the package
    rule: Rule
    registers: int = 128
    shared: int = 0
    stack: int = 0


KERNELS: dict[str, Entry] = {}      # filled by `launch` as the ops are imported


def launch(file: str, names: str, rule: Rule, registers: int = 128, shared: int = 0, stack: int = 0) -> None:
    """Adds the kernels `names` (separated by spaces) of a .cu file (path within the package) to the table."""
    for name in names.split():
        KERNELS[name] = Entry(file, rule, registers, shared, stack)


# ---- shapes of grids that several ops use --------------------------------------------------------------------------

def ceil_div(n: int, by: int) -> int:
    """n / by, rounded up."""
    return -(-n // by)


def power_of_two(n: int, most: int) -> int:
    """The largest power of two up to n, within 1 and `most`."""
    return 1 << max(0, min(n, most).bit_length() - 1)


def threads_for(n: int, most: int = 512) -> int:
    """Threads of one block for n elements: whole warps, at most `most`."""
    return min(most, ceil_div(max(n, 1), 32) * 32)


def over(n: int, step: str = "", each: int = 1) -> Launch:
    """A thread for `each` of n elements."""
    threads = threads_for(n, THREADS)
    return Launch(step, (min(ceil_div(n, threads * each), BLOCKS),), (threads,))


def per_row(rows: int, n: int, step: str = "") -> Launch:
    """Rows of n elements, as common.cuh walks them: a warp for each row of up to 1024 elements, else a block."""
    if n <= 1024:
        together = min(4, max(rows, 1))
        return Launch(step, (min(ceil_div(rows, together), BLOCKS) if n else 0,), (32, together))
    return Launch(step, (min(rows, BLOCKS),), (threads_for(ceil_div(n, 8)), 1))


def columns(n: int, step: str) -> Launch:
    """Sums of n columns, 32 columns a block."""
    return Launch(step, (ceil_div(n, 32),), (32, 16))


def single(step: str = "") -> Launch:
    """One thread."""
    return Launch(step, (1,), (1,))


def by_plan(k: Any, host: Mapping[int, np.ndarray]) -> Sequence[Launch]:
    """Elementwise kernels: the plan holds the number of elements."""
    return [over(int(host[k.plan][1]), each=2)]
