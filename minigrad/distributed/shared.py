"""Averaging in memory that all processes of one host see (`memory.py`), without messages.

Each process has an array there, which it fills. Then it averages its share of the elements, by the kernel `average`
(native/average.c), and writes the mean into the arrays of all. So each element is read once from each array and written
once to each. Its bits depend on nothing but the values: they are added in the order of the ranks.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.modes import mode
from ..devices import open_device
from ..devices.work import work
from ..ops.creation import from_numpy
from .group import joined


class Shared:
    """The arrays of all processes, by rank; `own`, a tensor, is that of this one. All have one length and dtype."""

    def __init__(self, arrays: Sequence[np.ndarray], rank: int) -> None:
        device, self.tensors = open_device("cpu"), [from_numpy(a) for a in arrays]
        self.own, self.kernel = self.tensors[rank], device.kernels.average[arrays[0].dtype]
        self.table = device.constant(np.array([t.array.ptr for t in self.tensors]))
        size, line = arrays[0].size, 64 // arrays[0].itemsize       # whole cache lines: no two processes write to one
        self.share = [min(size, -(-size // line) * r // len(arrays) * line) for r in (rank, rank + 1)]

    def average(self) -> None:
        """Writes this process's share of the mean; all must have filled their arrays."""
        if mode.recorder is not None:           # the launch names only the table: the recorder needs its addresses too
            for t in self.tensors:
                mode.recorder.hold(t.array.ptr)
        self.kernel.call(self.table.ptr, len(self.tensors), *self.share)

    def exchange(self, call: str) -> Callable[[], None]:
        """Averages once all processes have come; gives what waits until all shares are written."""
        host, array, pending = self.own.array.layout.device.host, self.own.array.np, list[Any]()
        host.call(lambda out: joined().agree(call), array)
        self.average()
        host.call(lambda out: pending.append(joined().barrier()), array)    # type: ignore[union-attr]     # it is Mpi
        return lambda: host.call(lambda out: joined().wait(pending.pop(), call), array)


# the sum and its product with 1 / count; each array is read and written
work("average", lambda k: k.count * (k.end - k.begin), lambda k: 2 * k.count * (k.end - k.begin))
