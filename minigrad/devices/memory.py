"""Memory without autograd: layouts, arrays, and the pools that buffers come from and go back to. Nothing to read first.

A `Layout` is what an op needs to know of an operand before it runs: device, dtype, shape, strides. Layouts are
interned: there is one object for each value. So "same shape, same dtype, contiguous" is one identity test, what an op
checked is remembered by the layouts, and each contiguous layout has its own free list: taking a buffer is one
`list.pop`.

A buffer goes back to its pool when its `Buffer` is deleted and nothing else (a NumPy view, a DLPack consumer, a
captured program) refers to its memory. Otherwise the memory is freed when the last of these is deleted.
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

import numpy as np

from .addresses import register
from .private import Door, private_pool, recording


class Device(Protocol):
    """What memory needs of a device; `devices/base.py` has the whole of it."""

    type: str

    def fresh(self, layout: Layout) -> Block:
        """New memory of a layout, from the system."""

    def container(self, array: Array) -> Any:
        """The NumPy or CuPy array over the memory of `array`."""


_LAYOUTS_MAX = 16384            # with more layouts than this (many sequence lengths), the table is emptied
_POOL_MAX = 1 << 30             # after so many bytes taken from the system, unused buffers are given back to it
_layouts: dict[tuple, Layout] = {}
halves_seen: set[np.dtype] = set()     # the 16-bit float dtypes that a layout had; while empty, nobody looks for them
_grown = 0                      # bytes taken from the system since unused buffers were given back


class Layout:
    """Device, dtype, shape and strides (in elements) of an array. Made by `layout()` only: one object for each value.

    `contiguous`: the elements are in C order without gaps. `public`: the blocks of this layout that are not in use.
    `free`: where `alloc` takes blocks from: `public`, or during a capture `door`.
    """

    __slots__ = ("device", "dtype", "shape", "strides", "ndim", "size", "contiguous", "free", "public", "door",
                 "__weakref__")

    device: Any             # a base.Device; this module needs no more of it than the protocol above
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, device: Device, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...],
                 contiguous: bool) -> None:
        self.device, self.dtype, self.shape, self.strides, self.contiguous = device, dtype, shape, strides, contiguous
        self.ndim = len(shape)
        self.size = 1
        for n in shape:
            self.size *= n
        self.public: list[Block] = []
        self.free: Any = self.public
        self.door: Door | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, without gaps."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}" + ("" if self.contiguous else f" strides {list(self.strides)}")


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of an array of this shape in C order."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def layout(device: Device, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Layout:
    """The layout of these values; without `strides`, the contiguous one.

    Strides that walk the memory in C order give the contiguous layout, whatever those of size-1 or empty dimensions
    are. TypeError for dtypes other than numbers and bools.
    """
    key = (device, dtype, shape, strides)
    found = _layouts.get(key)
    if found is None:
        if dtype.kind not in "biufc" and dtype.name != "bfloat16" or not dtype.isnative:
            # every array has a layout, so all dtypes are checked here: bytes read as Python objects would crash
            raise TypeError(f"[tensor] elements must be numbers or bools in this machine's byte order; got {dtype}; "
                            "convert with astype()")
        shape = tuple([index(n) for n in shape])        # 2.0 == 2 would be found later: it must never be the layout's
        if dtype.itemsize == 2 and dtype.kind in "fV":
            halves_seen.add(dtype)
        dense = contiguous_strides(shape)
        contiguous = (strides is None or 0 in shape
                      or all(n == 1 or s == d for n, s, d in zip(shape, strides, dense, strict=True)))
        if contiguous and strides is not None:
            found = layout(device, dtype, shape)
        else:
            found = Layout(device, dtype, shape, dense if strides is None else strides, contiguous)
        if len(_layouts) >= _LAYOUTS_MAX:
            _layouts.clear()
        _layouts[key] = found
    return found


_DEAD: ref = ref(set())              # a weak reference to nothing


class Block:
    """One piece of memory, which its `Buffer` gives back to the free list `home`.

    `np` is the contiguous array over it (only views of it are handed out), `root` the object that owns the bytes; every
    view refers to `root`. `lone` is the reference count of `root` while nothing outside the block refers to it, and -1
    for blocks that are never pooled. `view` is a weak reference to the last tensor that was made as a view of this
    memory; `kept` has those that were alive when a later one was made.
    """

    __slots__ = ("np", "root", "ptr", "home", "lone", "view", "kept", "room")

    def __init__(self, array: Any, root: Any, ptr: int, home: list[Block]) -> None:
        self.np, self.root, self.ptr, self.home = array, root, ptr, home
        self.lone = -1          # `_fresh` sets that of pooled blocks
        self.view: ref = _DEAD
        self.kept: list[ref] = []
        self.room = 64          # with so many in `kept`, the dead ones are dropped

    def keep(self) -> None:
        """Keeps the weak reference to the last view: it is alive. Most are dropped before the next is made."""
        kept = self.kept
        while kept and kept[-1]() is None:
            kept.pop()
        if len(kept) >= self.room:
            kept[:] = [view for view in kept if view() is not None]
            self.room = 64 + 2 * len(kept)
        kept.append(self.view)

    def views(self) -> list[Any]:
        """The tensors that are views of this memory, in the order in which they were made."""
        return [view for view in [r() for r in (*self.kept, self.view)] if view is not None]


class Array:
    """Memory seen through a layout. `ptr` is the address of element 0, `version` counts the writes in place."""

    __slots__ = ("layout", "ptr", "block")
    layout: Layout
    ptr: int
    block: Block
    if TYPE_CHECKING:
        version: Any            # an attribute of Buffer and External, a property of View

    @property
    def storage(self) -> Array:
        """The array that owns the memory and carries its version counter."""
        return self

    @property
    def np(self) -> Any:
        """The NumPy or CuPy array over this memory (a view: writing to it writes here)."""
        return self.layout.device.container(self)


class Buffer(Array):
    """An array that owns a pooled block, and gives it back when it is deleted."""

    __slots__ = ("version",)

    @property
    def np(self) -> Any:
        """A new view of the block's array."""
        return self.block.np[...]

    def __del__(self, refcount: Callable[[Any], int] = sys.getrefcount) -> None:
        block = self.block
        if refcount(block.root) == block.lone:      # every view of the memory refers to its root
            block.home.append(block)


class External(Array):
    """An array over memory that is not minigrad's (a NumPy array, a DLPack capsule): never pooled."""

    __slots__ = ("version",)

    @property
    def np(self) -> Any:
        """The array that the memory came in."""
        return self.block.np


class View(Array):
    """Another layout of the memory of `owner`, which it keeps alive, and whose version it shares.

    `plan` is the plan of the op that made it, None if it was made without recording.
    """

    __slots__ = ("owner", "plan")
    owner: Array
    plan: Any

    @property
    def storage(self) -> Array:
        """The array that owns the memory."""
        return self.owner

    @property
    def version(self) -> int:
        """The version of the owner."""
        return self.owner.version

    @version.setter
    def version(self, value: int) -> None:
        self.owner.version = value


_new = object.__new__


def alloc(layout: Layout) -> Buffer:
    """An array of a contiguous layout, with undefined values, from the pool."""
    free = layout.free
    try:
        block = free.pop()
    except IndexError:          # empty: a test before would not help, since another thread may take the last one
        block = _fresh(layout)
    array = _new(Buffer)
    array.layout = layout
    array.ptr = block.ptr
    array.block = block
    array.version = 0
    return array


def alloc_outside_pool(layout: Layout) -> Buffer:
    """An array for values that the host writes. During a capture, its memory does not come from the program's pool.

    Each replay overwrites the memory of that pool. It would not write these values again, since no launch makes them.
    Without a capture, this is `alloc`.
    """
    pool = recording()
    if pool is None:
        return alloc(layout)
    pool.outside = True
    try:
        block = layout.device.fresh(layout)         # `lone` stays -1: never pooled
    finally:
        pool.outside = False
    array = _new(Buffer)
    array.layout = layout
    array.ptr = block.ptr
    array.block = block
    array.version = 0
    return array


def view(array: Array, to: Layout, offset: int = 0) -> View:
    """The memory of `array` under the layout `to`, which begins `offset` bytes further."""
    v = _new(View)
    v.layout = to
    v.ptr = array.ptr + offset
    v.block = array.block
    v.owner = array.storage
    v.plan = None
    return v


def external(container: Any, to: Layout, ptr: int, root: Any = None) -> External:
    """An array over memory that something else owns; `root` (by default the container) is kept alive."""
    array = _new(External)
    array.layout = to
    array.ptr = ptr
    array.block = Block(container, container if root is None else root, ptr, [])
    array.version = 0
    return array


def _fresh(layout: Layout) -> Block:
    """A block from the system, for the pool; gives unused memory back first if much was taken, or if there is none."""
    global _grown
    pool = recording()
    if pool is not None and layout.free is layout.public:
        pool.guard(layout)
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
    """Gives the memory of unused buffers back to the system."""
    for known in list(_layouts.values()):
        known.public.clear()


def register_fresh(root: Any, ptr: int, nbytes: int) -> None:
    """`register`, for memory of the pool: in a thread that records, the memory is the program's."""
    register(root, ptr, nbytes)
    pool = recording()
    if pool is not None and not pool.outside:
        pool.regions.add(ptr)


def home(layout: Layout) -> list[Block]:
    """The list that new blocks of a layout go back to."""
    pool = recording()
    return layout.public if pool is None or layout.door is None else pool.lists[layout.door]


def private() -> private_pool:
    """A private pool, for the layouts that there are."""
    return private_pool([known for known in list(_layouts.values()) if known.public])


def from_numpy_layout(array: np.ndarray, device: Device) -> Layout:
    """The layout of a NumPy or CuPy array whose strides are multiples of its item size."""
    size = array.itemsize
    return layout(device, array.dtype, array.shape, tuple(s // size for s in array.strides))
