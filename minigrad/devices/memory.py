"""Memory without autograd: interned layouts, arrays, and the pools that buffers come from and go back to.

A `Layout` is what an op needs to know of an operand before it runs (device, dtype, shape, strides). Layouts are
interned, so "same shape, same dtype, contiguous" is one identity test, an op's checks are cached under the layouts it
was checked for, and each contiguous layout keeps its own free list: taking a buffer is one `list.pop`.

A buffer goes back to its pool when its `Buffer` dies and nobody else (a NumPy view, a DLPack consumer, a captured
program) refers to the memory under it; otherwise the memory is left to them.
"""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .addresses import register


class Place(Protocol):
    """All that memory needs to know of a device (`base.Device`)."""

    type: str

    def fresh(self, layout: Layout) -> Block:
        """New memory of a layout."""

    def container(self, array: Array) -> Any:
        """The NumPy or CuPy array over the memory of `array`."""


_LAYOUTS_MAX = 16384           # interned layouts kept; more (many sequence lengths) and the table starts afresh
_POOL_MAX = 1 << 30            # bytes newly taken from the system after which unused buffers are given back
_layouts: dict[tuple, Layout] = {}
_grown = 0
_private: dict[Layout, list] | None = None    # free lists of the capture under way
private_regions: set[int] = set()             # first addresses of the memory taken for it


class Layout:
    """Device, dtype, shape and strides (in elements) of an array. Made by `layout()`, one object per value."""

    __slots__ = ("device", "dtype", "shape", "strides", "ndim", "size", "contiguous", "free", "__weakref__")

    device: Any                 # a base.Device; only the methods of `Place` are used here
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, device: Place, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...], contiguous: bool) -> None:
        self.device, self.dtype, self.shape, self.strides, self.contiguous = device, dtype, shape, strides, contiguous
        self.ndim = len(shape)
        self.size = 1
        for n in shape:
            self.size *= n
        self.free: list[Block] = [] if _private is None else _private.setdefault(self, [])

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}" + ("" if self.contiguous else f" strides {list(self.strides)}")


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def layout(device: Place, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Layout:
    """The interned layout. Strides that walk the memory in C order give the contiguous layout, whatever the strides
    of size-1 or empty dimensions say."""
    key = (device, dtype, shape, strides)
    found = _layouts.get(key)
    if found is None:
        if dtype.kind not in "biufc" and dtype.name != "bfloat16" or not dtype.isnative:
            # the one door to memory: raw bytes read as Python objects would crash the process
            raise TypeError(f"[tensor] elements must be numbers or bools in this machine's byte order; got {dtype}; convert with astype()")
        dense = contiguous_strides(shape)
        contiguous = strides is None or 0 in shape or all(n == 1 or s == d for n, s, d in zip(shape, strides, dense, strict=True))
        if contiguous and strides is not None:
            found = layout(device, dtype, shape)
        else:
            found = Layout(device, dtype, shape, dense if strides is None else strides, contiguous)
        if len(_layouts) >= _LAYOUTS_MAX:
            _layouts.clear()
        _layouts[key] = found
    return found


class Block:
    """One piece of memory: `np` the typed contiguous array over it (handed out as views only), `root` what owns the bytes,
    `home` its free list."""

    __slots__ = ("np", "root", "ptr", "home", "lone")

    def __init__(self, array: Any, root: Any, ptr: int, home: list[Block]) -> None:
        self.np, self.root, self.ptr, self.home = array, root, ptr, home
        self.lone = -1          # the references a pooled block has when only its Buffer is left; set by _fresh


class Array:
    """Memory seen through a layout. `ptr` is the address of element 0."""

    __slots__ = ("layout", "ptr", "block")
    layout: Layout
    ptr: int
    block: Block
    if TYPE_CHECKING:
        version: Any            # a slot of owners, a property of views

    @property
    def storage(self) -> Array:
        """The array that owns the memory and carries its version counter."""
        return self

    @property
    def np(self) -> Any:
        """The NumPy or CuPy array over this memory (a view: writing to it writes here)."""
        return self.layout.device.container(self)


class Buffer(Array):
    """An array that owns a pooled block, and gives it back."""

    __slots__ = ("version",)

    @property
    def np(self) -> Any:
        return self.block.np[...]

    def __del__(self, refcount=sys.getrefcount) -> None:
        block = self.block
        if refcount(block.root) == block.lone:      # every view of the memory refers to its root
            block.home.append(block)


class External(Array):
    """An array over memory that came from outside (a NumPy array, a DLPack capsule): never pooled."""

    __slots__ = ("version",)

    @property
    def np(self) -> Any:
        return self.block.np


class View(Array):
    """Another layout on the memory of `owner`, which it keeps alive and whose version it shares."""

    __slots__ = ("owner",)
    owner: Array

    @property
    def storage(self) -> Array:
        return self.owner

    @property
    def version(self) -> int:
        return self.owner.version

    @version.setter
    def version(self, value: int) -> None:
        self.owner.version = value


_new = object.__new__


def alloc(layout: Layout) -> Buffer:
    """An uninitialised array of a contiguous layout."""
    free = layout.free
    try:
        block = free.pop()
    except IndexError:          # empty (another thread may have taken the last one)
        block = _fresh(layout)
    array = _new(Buffer)
    array.layout = layout
    array.ptr = block.ptr
    array.block = block
    array.version = 0
    return array


def apart(layout: Layout) -> Buffer:
    """An array for values that no launch writes: during a capture in memory of its own, because what comes from the program's
    pool is written over by each replay, and these values would not be written again."""
    global _private
    if _private is None:
        return alloc(layout)
    pool, _private = _private, None
    try:
        block = layout.device.fresh(layout)         # `lone` stays -1: never pooled
    finally:
        _private = pool
    array = _new(Buffer)
    array.layout = layout
    array.ptr = block.ptr
    array.block = block
    array.version = 0
    return array


def view(array: Array, to: Layout, offset: int = 0) -> View:
    """`array`'s memory under another layout, starting `offset` bytes further."""
    v = _new(View)
    v.layout = to
    v.ptr = array.ptr + offset
    v.block = array.block
    v.owner = array.storage
    return v


def external(container: Any, to: Layout, ptr: int, root: Any = None) -> External:
    """Wraps memory that somebody else owns; `root` (default the container) is kept alive."""
    array = _new(External)
    array.layout = to
    array.ptr = ptr
    array.block = Block(container, container if root is None else root, ptr, [])
    array.version = 0
    return array


def _fresh(layout: Layout) -> Block:
    global _grown
    _grown += layout.nbytes
    if _grown > _POOL_MAX:
        empty_cache()
        _grown = layout.nbytes
    try:
        block = layout.device.fresh(layout)
    except MemoryError:
        empty_cache()
        block = layout.device.fresh(layout)
    block.lone = sys.getrefcount(block.root)
    return block


def empty_cache() -> None:
    """Gives unused buffers back to the system."""
    for known in list(_layouts.values()):
        if _private is None:
            known.free.clear()


def register_fresh(root: Any, ptr: int, nbytes: int) -> None:
    """`register` for pooled memory: notes whether it was taken for the capture under way."""
    register(root, ptr, nbytes)
    if _private is not None:
        private_regions.add(ptr)


class private_pool:
    """Inside, buffers come from and go back to free lists of their own: what a captured program uses, nobody else gets."""

    def __enter__(self) -> private_pool:
        global _private
        private_regions.clear()
        self.public = {known: known.free for known in _layouts.values()}
        self.pools: dict[Layout, list] = {}
        _private = self.pools
        for known in self.public:
            known.free = self.pools.setdefault(known, [])
        return self

    def __exit__(self, *_: object) -> None:
        global _private
        _private = None
        for known in self.pools:
            known.free = self.public.get(known, [])


def from_numpy_layout(array: np.ndarray, device: Place) -> Layout:
    """The layout of a NumPy array whose strides are whole multiples of its item size."""
    size = array.itemsize
    return layout(device, array.dtype, array.shape, tuple(s // size for s in array.strides))
