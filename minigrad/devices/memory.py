"""Memory without autograd: layouts, arrays, and the pools that buffers come from and go back to. Nothing to read first.

A `Layout` is what an op needs to know of an operand before it runs: device, dtype, shape, strides. Layouts are
interned: there is one object for each value. So "same shape, same dtype, contiguous" is one identity test, what an op
checked is remembered by the layouts, and each layout knows its pool: taking a buffer is one `pop`.

A block of memory goes back to its pool when the last array over it is gone and nothing else (a NumPy view, a DLPack
consumer, a captured program) refers to its memory (native/objects.c). Otherwise the memory is freed when the last of
these is deleted. A pool holds blocks of one size for all layouts that are nearly as large (`block_size`).
"""
from __future__ import annotations

import sys
from collections import Counter
from itertools import count
from operator import index
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

import numpy as np

from .addresses import register
from .native import Pool, lib
from .private import active, private_pool, recording
from .usage import last_try


class Device(Protocol):
    """What memory needs of a device; `devices/base.py` has the whole of it."""

    type: str

    def fresh(self, nbytes: int, home: Any) -> Any:
        """A `Block` of new memory from the system; `home` is the `Pool` that it goes back to, or None."""

    def container(self, array: Array) -> Any:
        """The NumPy or CuPy array over the memory of `array`."""


_LAYOUTS_MAX = 16384            # with more layouts than this (many sequence lengths), those not in use are forgotten
_SLACK = 1 << 25                # bytes that pools may hold whatever is in use
_layouts: dict[tuple, Layout] = {}
halves_seen: set[np.dtype] = set()     # the 16-bit float dtypes that a layout had; while empty, nobody looks for them
_layouts_max = _LAYOUTS_MAX
_numbers = count(1)
_peak = 0                       # the most bytes that were in use since unused memory was given back
pools: dict[tuple[Device, int], Any] = {}       # by device and size of their blocks


class Layout:
    """Device, dtype, shape and strides (in elements) of an array. Made by `layout()` only: one object for each value.

    `contiguous`: the elements are in C order without gaps. `public`: the pool of blocks of its size. `free`: where
    `alloc` takes blocks from: `public`, or a `Door` during a capture. `number`: no other layout has it, ever.
    """

    __slots__ = ("device", "dtype", "shape", "strides", "ndim", "size", "contiguous", "free", "public", "number",
                 "__weakref__")

    device: Any             # a base.Device; this module needs no more of it than the protocol above
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, device: Device, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...],
                 contiguous: bool) -> None:
        self.device, self.dtype, self.shape, self.strides, self.contiguous = device, dtype, shape, strides, contiguous
        self.ndim, self.number = len(shape), next(_numbers)
        self.size = 1
        for n in shape:
            self.size *= n
        self.public: Any = _pool_of(self)
        self.free: Any = self.public

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, without gaps."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}" + ("" if self.contiguous else f" strides {list(self.strides)}")


def block_size(nbytes: int) -> int:
    """The bytes of a block for so many bytes of elements: at most an eighth more, or up to 64 bytes.

    Layouts of nearly one size share blocks: with ever new shapes, pools would otherwise hold a block for each of them.
    """
    step = max(64, 1 << max(nbytes - 1, 0).bit_length() >> 4)
    return max(-(-nbytes // step), 1) * step


def _pool_of(layout: Layout) -> Any:
    """The public pool that blocks of a layout come from."""
    key = layout.device, block_size(layout.nbytes)
    found = pools.get(key)
    return found if found is not None else pools.setdefault(key, Pool(key[1], True))


def choose_pools() -> None:
    """Gives all layouts the pools of `block_size`, after it was replaced."""
    for known in list(_layouts.values()):
        known.public = known.free = _pool_of(known)


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
        if dtype.kind not in "biuf" and dtype.name != "bfloat16" or not dtype.isnative:
            # every array has a layout, so all dtypes are checked here: bytes read as Python objects would crash
            raise TypeError(f"[tensor] elements must be real numbers or bools in this machine's byte order; got {dtype}"
                            "; convert with astype()")
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
        if len(_layouts) >= _layouts_max:
            _forget_unused()
        found = _layouts.setdefault(key, found)         # another thread may have made it meanwhile
        if (pool := active()) is not None:
            pool.guard(found)
    return found


def _forget_unused() -> None:
    """Removes the layouts that only the table refers to. Others stay: there must be one object for each value."""
    global _layouts_max
    names = Counter(map(id, _layouts.values()))         # a layout may stand under several keys
    for key, known in list(_layouts.items()):
        if sys.getrefcount(known) == names[id(known)] + 3:      # the list, `known` and the call's argument
            del _layouts[key]
            names[id(known)] -= 1
    _layouts_max = max(_LAYOUTS_MAX, 2 * len(_layouts))


_DEAD: ref = ref(set())              # a weak reference to nothing
_first = RLock()                     # while a block gets its list; what the garbage collector runs then may do so too


class Foreign:
    """In place of a `Block`: memory that is not minigrad's. `np` is the array it came in, `root` keeps it alive."""

    __slots__ = ("np", "root", "ptr", "view", "kept", "room")

    def __init__(self, array: Any, root: Any, ptr: int) -> None:
        self.np, self.root, self.ptr = array, root, ptr
        self.view, self.kept, self.room = _DEAD, None, 64


def keep_view(block: Any) -> None:
    """Keeps the weak reference to the last view, `block.view`: it is alive. Most are dropped before the next is made.

    `block.kept` has those that were alive when a later one was made; with `block.room` of them, the dead ones go.
    Threads of a loader take views of the same data. A lock would cost 140 ns, so each step here is whole by itself:
    what is looked at was taken out before, and what others append meanwhile stays.
    """
    kept = block.kept
    if kept is None:
        with _first:
            kept = block.kept = [] if block.kept is None else block.kept
    try:
        while kept:
            view = kept.pop()
            if view() is not None:
                kept.append(view)
                break
    except IndexError:                      # another thread took the last one
        pass
    size = len(kept)
    if size >= block.room:
        kept[:size] = [view for view in kept[:size] if view() is not None]
        block.room = 64 + 2 * len(kept)
    kept.append(block.view)


def views_of(block: Any) -> list[Any]:
    """The tensors that are views of this memory, in the order in which they were made."""
    return [view for view in [r() for r in (*(block.kept or ()), block.view)] if view is not None]


class Array:
    """Memory seen through a layout. `ptr` is the address of element 0, `version` counts the writes in place."""

    __slots__ = ("layout", "ptr", "block")
    layout: Layout
    ptr: int
    block: Any              # a Block or a Foreign
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
    """An array over a block of its own, which goes back to its pool when this array and all views of it are gone."""

    __slots__ = ("version",)

    @property
    def np(self) -> Any:
        """A new view of the block's array."""
        block, layout = self.block, self.layout
        if block.made_for != layout.number:
            made = layout.device.container(self)
            if layout.device.type != "cpu":     # CuPy's views do not refer to what they are views of
                return made
            block.np, block.made_for = made, layout.number
        return block.np[...]


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
        block = layout.device.fresh(layout.nbytes, None)
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
    array.block = Foreign(container, container if root is None else root, ptr)
    array.version = 0
    return array


def _fresh(layout: Layout) -> Any:
    """A block from the system. Unused memory is given back first if there is twice as much as was ever in use."""
    global _peak
    pool = recording()
    home = layout.public if pool is None else pool.instead_of(layout.public)
    held, new = lib.mg_pools_held(), home.nbytes
    in_use = held - lib.mg_pools_unused() + new
    if held + new > max(_SLACK, 2 * max(_peak, in_use)):
        empty_cache()
    try:
        block = layout.device.fresh(new, home)
    except MemoryError:
        empty_cache()
        block = last_try(layout, new, home)
    _peak = max(_peak, in_use)
    return block


def empty_cache() -> None:
    """Gives the memory of unused buffers, and the work space of kernels, back to the system.

    What captured programs hold is not unused.
    """
    global _peak
    for pool in list(pools.values()):
        pool.clear()
    lib.mg_release_scratch()
    _peak = lib.mg_pools_held()


def register_fresh(root: Any, ptr: int, nbytes: int) -> None:
    """`register`, for memory of the pool: in a thread that records, the memory is the program's."""
    register(root, ptr, nbytes)
    pool = recording()
    if pool is not None and not pool.outside:
        pool.regions.add(ptr)


def private() -> private_pool:
    """A private pool, for the layouts that there are."""
    return private_pool([known for known in list(_layouts.values()) if known.contiguous])


def from_numpy_layout(array: np.ndarray, device: Device) -> Layout:
    """The layout of a NumPy or CuPy array whose strides are multiples of its item size."""
    size = array.itemsize
    return layout(device, array.dtype, array.shape, tuple(s // size for s in array.strides))
