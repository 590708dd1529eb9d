"""Plans: what an op decided for a signature, and the tables by which kernels walk their operands.

Read `memory.py` first. A signature is the layouts of the inputs and the attributes of a call; each op remembers the
plans of its signatures.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .base import NoKernel
from .memory import Array, Layout, alloc, contiguous_strides, view
from .native import bound

_PLANS_MAX = 4096


class Plan:
    """How one signature of a primitive runs: `run(*arrays)` gives the output, of layout `layout`; `why` is its reason.

    Two kinds of plan are run without a call of `run` where speed matters: a view, whose output is the input's memory
    `offset` bytes further, and one kernel that walks its operands, `kernel.call(out, inputs..., walk)`, where `walk` is
    the address of `table`. `launch(inputs...)` runs it into a free block, or gives None: then `alloc` and `call` do.
    `op` is the plan's op and `attrs` what its nodes carry; `Primitive.plan` sets both.
    """

    __slots__ = ("run", "layout", "why", "kernel", "walk", "table", "offset", "op", "attrs", "launch")

    def __init__(self, run: Callable[..., Any] | None, layout: Any, why: str = "", kernel: Any = None,
                 table: Array | None = None, offset: int | None = None, attrs: dict | None = None) -> None:
        self.run: Any = run             # None if `kernel` is all that runs
        self.layout, self.why, self.kernel, self.table, self.offset = layout, why, kernel, table, offset
        self.walk = 0 if table is None else table.ptr
        self.launch: Any = None
        if kernel is not None:          # on a GPU there is no row, and a block is taken by `alloc`
            self.launch = bound(kernel.row, self.walk, layout.public) if kernel.row else lambda *addresses: None
        self.op: Any = None
        self.attrs = attrs

    def fresh(self, *arrays: Array) -> Any:
        """A new array with the result."""
        return self.run(*arrays)


class FusedPlan(Plan):
    """A signature of a composite that has kernels.

    `forward(*arrays) -> (outputs, saved)`; `backward(saved, gs, needs) -> gradients`, or None where only the definition
    gives what is needed. `copied`: which inputs are copied because they are not contiguous.
    """

    __slots__ = ("forward", "backward", "copied")

    def __init__(self, forward: Callable, backward: Callable | None, why: str = "", copied: tuple[int, ...] = (),
                 layout: Any = None, kernel: Any = None, table: Array | None = None, attrs: dict | None = None) -> None:
        super().__init__(None, layout, why, kernel, table, attrs=attrs)
        self.forward, self.backward, self.copied = forward, backward, copied


def view_plan(to: Layout, offset: int) -> Plan:
    """The plan of a view: the input's memory under the layout `to`, which begins `offset` bytes further."""
    return Plan(lambda x: view(x, to, offset), to, "view", offset=offset)


def is_half(dtype: np.dtype) -> bool:
    """Is it a float of 16 bits: float16, or ml_dtypes' bfloat16?"""
    return dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16")


def not_half(why: str, *inputs: Layout) -> None:
    """Raises NoKernel if an input is of half precision: then the op runs in float32, where NumPy would round each step.
    """
    if any([is_half(x.dtype) for x in inputs]):
        raise NoKernel(why)


def host_plan(to: Layout, function: Any, why: str, inputs: Sequence[Layout], moves: bool = False) -> Plan:
    """The plan of a NumPy function, `function(*inputs, out)`, for a signature that has no kernel. It is not for half
    precision, unless it only `moves` or converts elements."""
    if not moves:
        not_half(why, *inputs)

    def run(*arrays: Array) -> Array:
        y = alloc(to)
        to.device.host.call(function, y.np, *[a.np for a in arrays])
        return y
    return Plan(run, to, why)


def remember(plans: dict, key: Any, plan: Any) -> Any:
    """Keeps a plan under its signature, and returns it. A full table (ever new shapes or numbers) is emptied first."""
    if len(plans) >= _PLANS_MAX:
        plans.clear()
    plans[key] = plan
    return plan


def view_strides(x: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides under which the memory of `x` reads as `shape` (of as many elements); None if only a copy does."""
    if x.contiguous:
        return contiguous_strides(shape)
    old = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if n != 1]
    new = [n for n in shape if n != 1]
    out: list[int] = []
    i = j = 0
    while i < len(old) and j < len(new):
        a, b, start_i, start_j = old[i][0], new[j], i, j
        while a != b:
            if a < b:
                i += 1
                a *= old[i][0]
            else:
                j += 1
                b *= new[j]
        for k in range(start_i, i):
            if old[k][1] != old[k + 1][1] * old[k + 1][0]:
                return None
        step = old[i][1]
        group = []
        for n in reversed(new[start_j:j + 1]):
            group.append(step)
            step *= n
        out += reversed(group)
        i, j = i + 1, j + 1
    it = iter(out)
    return tuple(next(it) if n != 1 else 1 for n in shape)


# ---- tables for kernels ----------------------------------------------------------------------------------------------

def broadcast_strides(layout: Layout, shape: tuple[int, ...]) -> list[int]:
    """The strides by which `layout` is walked as if it had `shape`: 0 in dimensions where it is broadcast."""
    lead = len(shape) - layout.ndim
    return [0] * lead + [0 if n == 1 else s for n, s in zip(layout.shape, layout.strides, strict=True)]


def _coalesce(shape: Sequence[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Drops dimensions of size 1, and joins neighbours that every operand walks like one dimension."""
    dims = [(n, [s[i] for s in strides]) for i, n in enumerate(shape) if n != 1]
    joined: list[tuple[int, list[int]]] = []
    for n, steps in dims:
        if joined and all(outer == inner * n for outer, inner in zip(joined[-1][1], steps, strict=True)):
            joined[-1] = (joined[-1][0] * n, steps)
        else:
            joined.append((n, steps))
    return [n for n, _ in joined], [[s[k] for _, s in joined] for k in range(len(strides))]


def elementwise_plan(out: Layout, *inputs: Layout) -> Array:
    """The `plan` argument of elementwise kernels: ndim, size, shape, strides of the output, strides of each input."""
    shape, strides = _coalesce(out.shape, [broadcast_strides(o, out.shape) for o in (out, *inputs)])
    values = [len(shape), out.size, *shape, *(s for one in strides for s in one)]
    return out.device.constant(np.array(values, np.int64))


def reduce_plan(x: Layout, axes: tuple[int, ...]) -> Array:
    """The `plan` argument of reductions: nkeep, nreduce, keep shape, reduce shape, keep strides, reduce strides."""
    keep = [i for i in range(x.ndim) if i not in axes]
    ks, kst = _coalesce([x.shape[i] for i in keep], [[x.strides[i] for i in keep]])
    rs, rst = _coalesce([x.shape[i] for i in axes], [[x.strides[i] for i in axes]])
    return x.device.constant(np.array([len(ks), len(rs), *ks, *rs, *kst[0], *rst[0]], np.int64))
