"""The CPU device: NumPy arrays as containers, the C kernels of `minigrad._native` as launches. Read `base.py` first."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import memory
from .addresses import register
from .base import Device, Kernel, KernelTable, as_bools
from .memory import Array
from .native import Block, launcher, signatures

ALIGN = 64          # bytes, where arrays begin: a cache line, and the widest SIMD register
PAGE = 4096         # and large ones: a load waits for older stores whose last 12 address bits are its own


def alignment(nbytes: int) -> int:
    """At which multiples an array of so many bytes begins. Without pages some kernels take up to 1.8 times the time."""
    return PAGE if nbytes >= 16384 else ALIGN


def _run_on_host(function: Callable[..., Any], out: Any, *inputs: Any) -> None:
    with np.errstate(all="ignore"):
        function(*inputs, out=out)


class _Holder:
    """Gives NumPy an array over foreign memory that `root` keeps alive."""

    __slots__ = ("__array_interface__", "root")

    def __init__(self, array: Array) -> None:
        layout = array.layout
        size = layout.dtype.itemsize
        self.root = array.block.root
        self.__array_interface__ = {"data": (array.ptr, False), "shape": layout.shape, "typestr": layout.dtype.str,
                                    "version": 3, "strides": tuple(s * size for s in layout.strides)}


class _Table(np.ndarray):
    """A table of addresses, which keeps alive what they point to."""

    keep: Any


class CPU(Device):
    """The CPU. `host.call(function, out, *inputs)` runs NumPy where there is no C kernel."""

    type = name = "cpu"

    def __init__(self) -> None:
        kernels = {name: Kernel(name, *of, launcher(of.row), self) for name, of in signatures().items()}
        self.kernels = KernelTable("cpu", kernels)
        self.host = Kernel("host", "*", (), 0, _run_on_host, self)

    def fresh(self, nbytes: int, home: Any) -> Any:
        align = alignment(nbytes)
        root = np.empty(nbytes + align, np.uint8)
        base = root.__array_interface__["data"][0]
        offset = -base % align
        memory.register_fresh(root, base, nbytes + align)
        return Block(root, base, base + offset, home)

    def container(self, array: Array) -> np.ndarray:
        layout, block = array.layout, array.block
        if layout.size == 0:
            return np.empty(layout.shape, layout.dtype)
        if type(block) is Block:
            strides = None if layout.contiguous else tuple([s * layout.dtype.itemsize for s in layout.strides])
            return np.ndarray(layout.shape, layout.dtype, block.root, array.ptr - block.base, strides)
        if layout.dtype.kind == "V" or layout.dtype.hasobject:      # ml_dtypes: the array interface cannot name them
            raw = block.np.reshape(-1).view(np.uint8)
            start = array.ptr - raw.__array_interface__["data"][0]
            strides = tuple(s * layout.dtype.itemsize for s in layout.strides)
            return np.ndarray(layout.shape, layout.dtype, raw, start, strides)
        return np.asarray(_Holder(array))

    def wrap(self, array: np.ndarray) -> Array:
        """An `Array` that shares the memory of a NumPy array, and keeps it alive."""
        ptr = array.__array_interface__["data"][0]
        spans = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
        low = ptr + sum([min(0, s) for s in spans]) if array.size else ptr
        high = ptr + sum([max(0, s) for s in spans]) + array.itemsize
        register(array, low, high - low)
        return memory.external(array, memory.from_numpy_layout(array, self), ptr)

    def compiled(self, source: Any, suffix: str, rule: Any = None) -> list[Kernel]:
        from .foreign import library
        return library(source, suffix, self)

    def constant(self, values: np.ndarray, keep: Any = None) -> Array:
        if keep is not None:
            table = values.view(_Table)
            table.keep = keep
            values = table
        return self.wrap(values)

    def upload(self, values: np.ndarray) -> Array:
        out = memory.alloc_outside_pool(memory.layout(self, values.dtype, values.shape))
        out.np[...] = as_bools(values)
        return out

    def write(self, array: Array, values: Any, moved: bool = False) -> None:
        array.np[...] = as_bools(values)

    def download(self, array: Array) -> np.ndarray:
        return array.np.copy()
