"""Memory that all processes of one host see, in which they average arrays without messages.

Each process has an array there, which it fills. Then it averages its share of the elements, by the kernel `average`
(native/average.c), and writes the mean into the arrays of all. So each element is read once from each array and written
once to each. Its bits depend on nothing but the values: they are added in the order of the ranks.
"""
from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.modes import mode
from ..devices import open_device
from ..devices.cpu import ALIGN
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


class SharedMemory:
    """Pieces of one memory for each process, by rank, as arrays of bytes; `shared_memory` makes it."""

    def __init__(self, arrays: Sequence[np.ndarray], rank: int) -> None:
        self.arrays, self.rank, self.used = arrays, rank, 0

    def take(self, elements: int, dtype: np.dtype) -> Shared:
        """The next arrays of so many elements; they begin as zeros."""
        begin, end = self.used, self.used + elements * dtype.itemsize
        self.used = -(-end // ALIGN) * ALIGN
        return Shared([a[begin:end].view(dtype) for a in self.arrays], self.rank)


def shared_memory(group: Any, nbytes: int) -> SharedMemory | None:
    """So many bytes for each process; all must call it. None if there is one process, or several hosts, or if the
    system does not give this memory (Linux does: a file without a name, which each opens through its maker)."""
    if group.name != "mpi" or group.size == 1 or len({host for host, _ in group.peers}) > 1:
        return None
    nbytes, made = max(nbytes, ALIGN), -1
    own = np.array([-1, int.from_bytes(os.urandom(7), "big")])      # the file, and what is in it
    try:
        made = os.memfd_create("minigrad")
        os.posix_fallocate(made, 0, nbytes)         # or its pages would end the process where memory is short
        np.frombuffer(mmap.mmap(made, nbytes), np.int64, 1)[0] = own[1]
        own[0] = made
    except (OSError, AttributeError):
        pass
    told = np.empty((group.size, 2), np.int64)
    group.run("shared memory", lambda: group.all_gather(told, own))
    arrays = []
    for (_, process), (number, token) in zip(group.peers, told.tolist(), strict=True):
        array = _opened(int(process), number, nbytes)
        if array is not None and array[:8].view(np.int64)[0] == token:      # else another process of that number
            arrays.append(array)
    all_found = np.array([len(arrays)])
    group.run("shared memory is there", lambda: group.all_reduce(all_found, "min"))
    if made >= 0:
        os.close(made)
    if all_found[0] < group.size:
        return None
    arrays[group.rank][:8] = 0
    return SharedMemory(arrays, group.rank)


def _opened(process: int, number: int, nbytes: int) -> np.ndarray | None:
    """The memory behind a file of a process, or None."""
    try:
        with open(f"/proc/{process}/fd/{number}", "r+b", buffering=0) as file:
            return np.frombuffer(mmap.mmap(file.fileno(), nbytes), np.uint8)
    except (OSError, ValueError):
        return None


# the sum and its product with 1 / count; each array is read and written
work("average", lambda k: k.count * (k.end - k.begin), lambda k: 2 * k.count * (k.end - k.begin))
