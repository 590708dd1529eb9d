"""The CPU device: NumPy arrays as containers, the C kernels of `minigrad._native` behind the door."""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from . import memory
from .device import Device, Kernel, KernelTable
from .memory import Array, Block, Layout

LEVELS = ("baseline", "avx2", "avx512")
_ALIGN = 64


def _load() -> tuple[Any, Any]:
    try:
        from . import _native
    except ImportError as error:
        raise ImportError("minigrad's C kernels are not built here: run `pip install .` (it needs a C compiler) in the source folder, then "
                          f"start Python outside of it, or `pip install -e .` to work inside; the loader said: {error}") from None
    return _native.lib, _native.ffi      # type: ignore[attr-defined]


lib: Any
ffi: Any
lib, ffi = _load()

# How much work space the kernels need: the functions and constants of native/workspace.h, which say what they count. The
# CUDA kernels are compiled with the same text. Example: `layout(device, dtype, (cpu.layer_norm_partial(rows, n),))`.
loss_chunks: Callable[[int], int] = lib.mg_loss_chunks
norm_chunks: Callable[[int], int] = lib.mg_chunks
layer_norm_partial: Callable[[int, int], int] = lib.mg_layer_norm_partial
rms_norm_partial: Callable[[int, int], int] = lib.mg_rms_norm_partial
rnn_steps: Callable[[int], int] = lib.mg_rnn_steps
rnn_sums: Callable[[int, int, int], int] = lib.mg_rnn_sums
rnn_forward_work: Callable[[int, int, int, int], int] = lib.mg_rnn_forward_work
rnn_backward_work: Callable[[int, int, int, int], int] = lib.mg_rnn_backward_work
segments: Callable[[int, int], int] = lib.mg_segments
SHARED_SUMS_BYTES: int = lib.MG_SHARED_SUMS_BYTES
WORKSPACE_TEXT: str = ffi.string(lib.mg_workspace_text()).decode()


def best_simd_level() -> str:
    """The highest ISA level of this CPU."""
    best = lib.mg_cpu_level()
    if best < 0:
        raise ImportError("minigrad needs a CPU of level x86-64-v2 (SSE4.2) or arm64; this one is older")
    return LEVELS[best]


def set_simd_level(level: str) -> None:
    """Chooses the kernels of an ISA level: baseline, avx2 or avx512 (`MINIGRAD_SIMD` does so at import)."""
    global _level
    if level not in LEVELS:
        raise ValueError(f"[set_simd_level] unknown level {level!r}; use one of {', '.join(LEVELS)}")
    if LEVELS.index(level) > LEVELS.index(best_simd_level()):
        raise ValueError(f"[set_simd_level] this CPU has {best_simd_level()} at most; got {level!r}")
    _level = level
    lib.mg_select(LEVELS.index(level))


def simd_level() -> str:
    """The ISA level in use: baseline, avx2 or avx512."""
    return _level


_level = "baseline"
set_simd_level(os.environ.get("MINIGRAD_SIMD") or best_simd_level())


def set_num_threads(n: int) -> None:
    """How many threads a kernel may use; results do not depend on it."""
    if not isinstance(n, int) or n < 1:
        raise RuntimeError(f"[set_num_threads] expected a positive int; got {n!r}")
    lib.mg_set_num_threads(n)


def get_num_threads() -> int:
    return lib.mg_get_num_threads()


def _threads_from_environment() -> None:
    wish = os.environ.get("MINIGRAD_NUM_THREADS", "")
    if wish:
        if not wish.isdigit() or int(wish) < 1:
            raise ImportError(f"MINIGRAD_NUM_THREADS is {wish!r}; it must be a positive whole number")
        lib.mg_set_num_threads(int(wish))


_threads_from_environment()


def _run_on_host(function: Callable[..., Any], out: Any, *inputs: Any) -> None:
    with np.errstate(all="ignore"):
        function(*inputs, out=out)


class _Holder:
    """Gives NumPy an array over memory that `root` keeps alive."""

    __slots__ = ("__array_interface__", "root")

    def __init__(self, array: Array) -> None:
        layout = array.layout
        size = layout.dtype.itemsize
        self.root = array.block.root
        self.__array_interface__ = {"data": (array.ptr, False), "shape": layout.shape, "typestr": layout.dtype.str, "version": 3,
                                    "strides": tuple(s * size for s in layout.strides)}


class _Table(np.ndarray):
    """Addresses, with what they point to."""

    keep: Any


class CPU(Device):
    type = name = "cpu"

    def __init__(self) -> None:
        kernels = {}
        for i in range(lib.mg_kernel_count()):
            name, signature = ffi.string(lib.mg_kernel_name(i)).decode(), ffi.string(lib.mg_kernel_signature(i)).decode()
            kernels[name] = Kernel(name, signature, i, getattr(lib, name))
        self.kernels = KernelTable("cpu", kernels)
        self.host = Kernel("host", "*", -1, _run_on_host)

    def fresh(self, layout: Layout) -> Block:
        nbytes = layout.nbytes
        root = np.empty(nbytes + _ALIGN, np.uint8)
        base = root.__array_interface__["data"][0]
        offset = -base % _ALIGN
        memory.register_fresh(root, base, nbytes + _ALIGN)
        return Block(np.ndarray(layout.shape, layout.dtype, root, offset), root, base + offset, layout.free)

    def container(self, array: Array) -> np.ndarray:
        layout = array.layout
        if layout.dtype.kind == "V" or layout.dtype.hasobject or layout.size == 0:     # ml_dtypes, empty
            if layout.size == 0:
                return np.empty(layout.shape, layout.dtype)
            raw = array.block.np.reshape(-1).view(np.uint8)
            start = array.ptr - raw.__array_interface__["data"][0]
            return np.ndarray(layout.shape, layout.dtype, raw, start, tuple(s * layout.dtype.itemsize for s in layout.strides))
        return np.asarray(_Holder(array))

    def wrap(self, array: np.ndarray) -> Array:
        """A NumPy array's memory as an `Array`, shared, kept alive."""
        ptr = array.__array_interface__["data"][0]
        low = ptr + sum(min(0, (n - 1) * s) for n, s in zip(array.shape, array.strides, strict=True)) if array.size else ptr
        high = ptr + sum(max(0, (n - 1) * s) for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
        memory.register(array, low, high - low)
        return memory.external(array, memory.from_numpy_layout(array, self), ptr)

    def constant(self, values: np.ndarray, keep: Any = None) -> Array:
        if keep is not None:
            table = values.view(_Table)
            table.keep = keep
            values = table
        return self.wrap(values)

    def upload(self, values: np.ndarray) -> Array:
        out = memory.apart(memory.layout(self, values.dtype, values.shape))
        out.block.np[...] = values
        return out

    def write(self, array: Array, values: Any) -> None:
        array.np[...] = values

    def download(self, array: Array) -> np.ndarray:
        return array.np.copy()
